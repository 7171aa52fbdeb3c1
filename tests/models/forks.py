# SPDX-License-Identifier: Apache-2.0
"""Forks of the world model: two holders of one identity, and what becomes of each (clone-specialization.md 9.1)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from control_plane.channel import verdict
from tests.models import world
from tests.models.world import HEARTBEAT, HOUR, REAL, Holder, Life, Rules, Tally, act, look

WAYS = ("cold clone", "snapshot with memory", "restored beside the original", "dd to other hardware")
# What the copy has that the original has not. `all`: its platform gives a new value of everything it has; `identity`:
# of the generation id and the firmware's, as a hypervisor's copy; `weak`: cards and disk alone; `none`: a perfect copy.
DIFFERENCES: Mapping[str, tuple[str, ...]] = {
    "all": ("vmgenid", "cloud_instance_id", "dmi_uuid", "dmi_serial", "dmi_asset_tag", "disk_id", "macs"),
    "identity": ("vmgenid", "dmi_uuid", "macs"),
    "weak": ("disk_id", "macs"),
    "none": (),
}
WATCHED = 24 * HOUR


@dataclass
class Forked:
    """What came of many forks. `missed`: forks with differing evidence whose copy still used the identity a day later;
    `wronged`: originals that did not have their identity then; `undecided`: perfect copies that the hub could not tell
    apart, by outcome. Seconds: `detected`, from the copy's first look to its being out of use; `healed`, to its having
    a name of its own (policy adopt) or being in quarantine."""

    forks: int = 0
    missed: list[str] = field(default_factory=list)
    wronged: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    detected: list[int] = field(default_factory=list)
    healed: list[int] = field(default_factory=list)


def fork(rules: Rules, dice: random.Random, told: Forked) -> None:
    """One machine, some days of normal life, and a copy of it. The original runs all the time."""
    life = Life(rules, dice, Tally())
    for _ in range(dice.randrange(1, 4)):
        life.day()
    if life.hub.words:
        return
    way, difference = dice.choice(WAYS), dice.choice(list(DIFFERENCES))
    clones = dice.choice((verdict.QUARANTINE, verdict.ADOPT))
    hub, original = life.hub, life.machine
    hub._clones, hub._image = clones, dice.random() < 0.5
    copy = _copied(life, way, difference)
    is_strong = bool(rules.compare(copy.kept, copy.now()[0]).strong)
    differs = copy.now()[1] != original.now()[1]
    told.forks += 1
    name = f"{way}, {difference}, {life.kind}"
    begun, detected, healed = life.at, -1, -1
    if way != "snapshot with memory" or copy.hardware["vmgenid"] != original.hardware["vmgenid"]:
        look(hub, copy, life.at)
        looked = True
    else:
        looked = False  # nothing says that it was copied: himds looks within the hour
    clocks = {id(original): begun + dice.randrange(HEARTBEAT), id(copy): begun + dice.randrange(60)}
    while min(clocks.values()) < begun + WATCHED and healed < 0:
        holder, other = (original, copy) if clocks[id(original)] <= clocks[id(copy)] else (copy, original)
        at = clocks[id(holder)]
        if not looked and at > begun + HOUR:
            look(hub, copy, at)
            looked = True
        act(hub, holder, [other], at)
        if detected < 0 and copy.state != "connected":
            detected = at - begun
        if copy.state in ("adopted", "quarantined"):
            healed = at - begun
        clocks[id(holder)] = max(at + dice.randrange(5, HEARTBEAT), holder.again if holder.state == "parked" else 0)
    for _ in range(4):  # the original goes on
        life.at = max(clocks.values()) + HEARTBEAT
        clocks[id(original)] = life.at
        act(hub, original, [copy], life.at)
    if differs and copy.state == "connected":
        told.missed.append(name)
    if original.state != "connected" and (is_strong or differs):
        told.wronged.append(f"{name}: {original.state}")
    told.outcomes[
        f"{'strong' if is_strong else 'weak' if differs else 'perfect'}{', same boot' if copy.boot == original.boot else ''}: {_pair(original, copy)}"
    ] += 1
    if detected >= 0:
        told.detected.append(detected)
    if healed >= 0:
        told.healed.append(healed)


def _pair(original: Holder, copy: Holder) -> str:
    return f"original {original.state}, copy {copy.state}"


def _copied(life: Life, way: str, difference: str) -> Holder:
    """The copy at its start."""
    dice, original = life.dice, life.machine
    source = life.snapshot if way == "restored beside the original" else original
    hardware = dict(original.hardware)
    for name in DIFFERENCES["all" if way == "dd to other hardware" and difference != "none" else difference]:
        if hardware[name] is not None:
            hardware[name] = f"{dice.getrandbits(64):x}"
    boot = original.boot if way == "snapshot with memory" else f"{dice.getrandbits(64):x}"
    return replace(
        original,
        hardware=hardware,
        boot=boot,
        kept=source.kept,
        epoch=source.epoch,
        nonce=source.nonce,
        slot=source.slot,
    )


def forks(rules: Rules, count: int, seed: int) -> Forked:
    """`count` forks of machines of every kind."""
    dice, told = random.Random(seed), Forked()
    while told.forks < count:
        fork(rules, dice, told)
    return told


def percentile(values: list[int], part: float) -> int:
    """The value below which `part` of them are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


__all__ = ["REAL", "Forked", "forks", "percentile", "world"]

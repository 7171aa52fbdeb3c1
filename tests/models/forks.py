# SPDX-License-Identifier: Apache-2.0
"""Forks of the world model: two holders of one identity, and what becomes of each (clone-specialization.md 9.1)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from control_plane.channel import verdict
from tests.models.world import HEARTBEAT, HOUR, Holder, Life, Rules, Tally, act, look

WAYS = ("cold clone", "snapshot with memory", "restored beside the original", "dd to other hardware")
# What the copy has that the original has not. `all`: its platform gives a new value of everything it has; `identity`:
# of the generation id and the firmware's, as a hypervisor's copy; `weak`: cards and disk alone; `none`: a perfect copy.
DIFFERENCES: Mapping[str, tuple[str, ...]] = {
    "all": ("vmgenid", "cloud_instance_id", "dmi_uuid", "dmi_serial", "dmi_asset_tag", "disk_id", "macs"),
    "identity": ("vmgenid", "dmi_uuid", "macs"),
    "weak": ("disk_id", "macs"),
    "none": (),
}
# What can tell a copy: evidence that differs strongly, weakly, or not at all.
KINDS = ("strong", "weak", "perfect")
WATCHED = 24 * HOUR
# Of heartbeats that a renewal follows. In life it is one in 13,000; here it is to meet every moment of a fork.
RENEWALS = 0.1


@dataclass
class Forked:
    """What came of many forks. `missed`: forks with differing evidence whose copy still used the identity a day later;
    `wronged`: originals of such forks that did not have their identity then; `outcomes`: how both ended, by what told
    them apart (one of KINDS). Seconds since the copy woke, by the same: `detected`, until it is out of use; `judged`,
    until the hub has offered it a name of its own or put it into quarantine."""

    forks: int = 0
    missed: list[str] = field(default_factory=list)
    wronged: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    detected: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    judged: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in KINDS})


def fork(rules: Rules, dice: random.Random, told: Forked) -> None:
    """One machine, some days of normal life, and a copy of it. The original runs all the time."""
    life = Life(rules, dice, Tally())
    for _ in range(dice.randrange(1, 4)):
        life.day()
    way, difference = dice.choice(WAYS), dice.choice(list(DIFFERENCES))
    life.hub.becomes(dice.choice((verdict.QUARANTINE, verdict.ADOPT)), image=dice.random() < 0.5)
    original, copy = life.machine, _copied(life, way, difference)
    is_strong = bool(rules.compare(copy.kept, copy.now()[0]).strong)
    differs = copy.now()[1] != original.now()[1]
    kind = "strong" if is_strong else "weak" if differs else "perfect"
    told.forks += 1
    _watch(life, copy, told, kind, looks=way != "snapshot with memory" or _has_other_generation(original, copy))
    name = f"{way}, {difference}, {life.kind}"
    if differs and copy.state == "connected":
        told.missed.append(name)
    if differs and original.state != "connected":
        told.wronged.append(f"{name}: {original.state}")
    told.outcomes[f"{kind}: original {original.state}, copy {copy.state}"] += 1


def _has_other_generation(original: Holder, copy: Holder) -> bool:
    return original.hardware["vmgenid"] != copy.hardware["vmgenid"]


def _watch(life: Life, copy: Holder, told: Forked, kind: str, *, looks: bool) -> None:
    """Both go on until the copy has ended, a day at most. `looks`: himds of the copy looks at once, because it starts
    or is told of the generation id; otherwise within the hour."""
    dice, hub, original, begun = life.dice, life.hub, life.machine, life.at
    detected, judged, due = -1, -1, begun if looks else begun + HOUR
    clocks = {id(original): begun + dice.randrange(HEARTBEAT), id(copy): begun + dice.randrange(60)}
    while min(clocks.values()) < begun + WATCHED and judged < 0:
        holder, other = (original, copy) if clocks[id(original)] <= clocks[id(copy)] else (copy, original)
        at = clocks[id(holder)]
        if at >= due:
            look(hub, copy, at)
            due = begun + 2 * WATCHED
        act(hub, holder, [other], at)
        if dice.random() < RENEWALS and holder.state == "connected":
            hub.renew(holder, at)
        if detected < 0 and copy.state != "connected":
            detected = at - begun
        if copy.state in ("adopted", "quarantined"):
            judged = at - begun
        clocks[id(holder)] = max(at + dice.randrange(5, HEARTBEAT), holder.again if holder.state == "parked" else 0)
    life.at = max(clocks.values())
    for _ in range(4):  # the original goes on
        life.at += HEARTBEAT
        act(hub, original, [copy], life.at)
    told.detected[kind] += [detected] if detected >= 0 else []
    told.judged[kind] += [judged] if judged >= 0 else []


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

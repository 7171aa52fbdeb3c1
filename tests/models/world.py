# SPDX-License-Identifier: Apache-2.0
"""Machines whose truth is known, and the hub that judges them: normal life, and forks (clone-specialization.md 9.1 to
9.3).

What decides is the real code of both sides, as `Rules`: branches of a lease, the verdicts, the comparison of evidence.
What is here is the world around it, and the thin shell of hub and agent (docs/protocol.md sections 14.1 to 14.3)
without network, database and clock. Times are seconds. Quiet hours between events are passed over: heartbeats of one
holder that goes on decide nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from agent_runtime.identity import evidence
from agent_runtime.platform.base import Signal
from control_plane.channel import branches, verdict
from control_plane.channel import evidence as recording
from control_plane.channel.branches import Held, Main, Seal, Step
from control_plane.channel.verdict import Fork, Judgement, Lease, Question, Word

TENANT = "11111111-1111-1111-1111-111111111111"
HEARTBEAT, HOUR, DAY = 300, 3600, 86400
BESIDE = (Lease.LOST, Lease.CONFLICT, Lease.OTHER, Lease.FORK)
CHANGING = (Lease.REBASE, Lease.RECOVERED, Lease.ROLLBACK)
Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Rules:
    """The functions that are judged."""

    step: Callable[[Seal, int, Main | None, Held, int], Step] = branches.step
    newest: Callable[[Seal, int, Main | None, int, str, int], bool] = branches.newest
    fork: Callable[..., Fork] = verdict.fork
    question: Callable[[Question], Judgement] = verdict.question
    outcome: Callable[..., str | None] = verdict.outcome
    favours: Callable[..., bool] = verdict.favours_asker
    renews: Callable[..., bool] = verdict.may_renew
    differing: Callable[..., tuple[str, ...]] = verdict.differing
    agreeing: Callable[..., tuple[str, ...]] = verdict.agreeing
    reported: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = recording.reported
    after_gap: Callable[[Mapping[str, Any], str], dict[str, Any] | None] = recording.after_gap
    compare: Callable[[Items, Items], evidence.Difference] = evidence.compare


REAL = Rules()


@lru_cache(maxsize=4096)
def _vector(hardware: tuple[tuple[str, str | None], ...]) -> tuple[Items, str]:
    """Items and digest. A value that begins with `!` is a read that failed, None one that has nothing to say."""
    signals = [
        Signal(name, "absent", None)
        if value is None
        else Signal(name, value[1:], None)
        if value.startswith("!")
        else Signal(name, "ok", value)
        for name, value in hardware
    ]
    items = evidence.vector(TENANT, signals)
    return items, evidence.digest(items)


_NAMES = ("tpm_key", "vmgenid", "cloud_instance_id", "dmi_uuid", "dmi_serial", "machine_id", "dmi_asset_tag", "disk_id")
_KINDS: Mapping[str, tuple[str, ...]] = {
    "vm": ("vmgenid", "dmi_uuid", "dmi_serial", "machine_id", "disk_id", "macs"),
    "cloud": ("vmgenid", "cloud_instance_id", "dmi_uuid", "dmi_serial", "machine_id", "disk_id", "macs"),
    "metal": ("dmi_uuid", "dmi_serial", "dmi_asset_tag", "machine_id", "disk_id", "macs"),
    "board": ("machine_id", "disk_id", "macs"),
    "container": ("machine_id",),
}


def _hardware(kind: str, dice: random.Random) -> dict[str, str | None]:
    """A machine of a kind, as its agent can read it."""
    has = _KINDS[kind]
    return {name: f"{dice.getrandbits(64):x}" if name in has else None for name in (*_NAMES, "macs")}


def _mark(boot: str) -> bytes:
    return branches.boot_mark(boot)


@dataclass
class Holder:
    """A running copy of the agent. `state`: connected, parked, quarantined, adopted; `kept`: `evidence.json`; `again`:
    when it asks next; `why`: of a held one, the reason that it gives."""

    hardware: dict[str, str | None]
    boot: str
    epoch: int = 0
    nonce: str = ""
    slot: int = 1
    kept: Items = field(default_factory=list)
    state: str = "connected"
    again: int = 0
    why: str = "evidence"
    up: bool = True
    since: int = 0

    def now(self) -> tuple[Items, str]:
        """Items and digest of what it reads now."""
        return _vector(tuple(self.hardware.items()))


@dataclass(frozen=True)
class Kept:
    """What the hub has of a machine in its database."""

    row: Main | None
    digest: str
    recorded: Items
    evidence: Mapping[str, Any]
    slots: Mapping[int, str]


class Hub:
    """One machine at the hub. `words`: every verdict on a question or a fork that held somebody, with the holder."""

    def __init__(self, rules: Rules, dice: random.Random, clones: str = verdict.QUARANTINE, image: bool = False):
        self.rules, self._dice, self._clones, self._image = rules, dice, clones, image
        self.epoch = 1
        self.machine = Kept(None, "", [], {}, {1: verdict.CURRENT})
        self.before = self.machine
        self.seen: int | None = None
        self.challenged: int | None = None
        self.holding: set[int] = set()
        self.barred: set[str | bytes] = set()
        self.words: list[tuple[Holder, str]] = []

    def becomes(self, clones: str, *, image: bool) -> None:
        """The profile's policy, and whether the machine is recorded to come from an image."""
        self._clones, self._image = clones, image

    def _seal(self) -> Seal:
        return Seal(b"model", 1, self.epoch)

    def enrol(self, holder: Holder, at: int) -> None:
        """A machine that begins."""
        holder.kept, digest = holder.now()
        self.machine = replace(self.machine, recorded=holder.kept, evidence={"digest": digest})
        self.checkin(holder, at)

    def checkin(self, holder: Holder, at: int, lost: bool = False) -> bool:
        """A heartbeat; False when it was refused, and then the holder is parked. `lost`: the answer does not arrive."""
        _, digest = holder.now()
        if self._refuses(digest, holder.boot):
            self._park(holder, "identity_conflict", at)
            return False
        slot = self._slot(holder)
        if slot is verdict.Slot.SUPERSEDED:
            self._park(holder, "superseded", at)
            return False
        request = f"{self._dice.getrandbits(64):x}"
        held = Held(holder.epoch, holder.nonce, request, holder.boot)
        old = self.machine.row
        step = self.rules.step(self._seal(), self.epoch, old, held, at)
        given, is_beside = step.given, step.lease in BESIDE
        is_held_elsewhere = bool(self.holding - {id(holder)})
        is_restarted = step.lease is Lease.LOST and self._seal().boot(holder.nonce) == _mark(holder.boot)
        is_other = is_beside or step.lease in CHANGING or (old is not None and self._is_booted(old, holder))
        if is_held_elsewhere or (old is not None and is_other and not is_restarted):
            self.challenged = at
        if 0 < holder.epoch < self.epoch and digest != self.machine.digest:
            known = self.rules.after_gap(self.machine.evidence, digest)
            self.machine = replace(self.machine, evidence=known or self.machine.evidence)
        if is_beside and self._lost_main():
            given, is_beside = self._succeed(holder, digest, request), False
        elif step.lease is Lease.FORK:
            found = self._forked(holder, digest, step, request)
            if found is None:
                self._park(holder, "identity_conflict", at)
                return False
            given, is_beside = found, False
        elif not is_beside:
            row = Main(self.epoch, step.main, step.previous, request)
            self.before, self.machine = self.machine, replace(self.machine, row=row, digest=digest)
        if slot is verdict.Slot.TAKE_OVER and not is_beside:
            self.machine = replace(self.machine, slots=verdict.taken_over(self.machine.slots, holder.slot))
        self.seen = at
        if not lost:
            holder.epoch, holder.nonce = self.epoch, given
        self.holding.add(id(holder))
        return True

    def _is_booted(self, old: Main, holder: Holder) -> bool:
        return branches.boots_differ(self._seal().boot(old.nonce), _mark(holder.boot))

    def _suspects(self, digest: str) -> bool:
        return "everyone" in self.barred and digest not in recording.fitting(self.machine.evidence)

    def _refuses(self, digest: str, boot: str) -> bool:
        return self._suspects(digest) or bool({digest, _mark(boot)} & self.barred)

    def _lost_main(self) -> bool:
        machine = self.machine
        boot = self._seal().boot(machine.row.nonce) if machine.row else None
        return self._suspects(machine.digest) or machine.digest in self.barred or (boot or b"?") in self.barred

    def renew(self, holder: Holder, at: int, lost: bool = False) -> bool:
        """The next certificate, for the holder of the main branch while there is no sign of another."""
        row = self.machine.row
        known = branches.is_main(self._seal(), self.epoch, row, holder.nonce, at)
        since = None if self.challenged is None else at - self.challenged
        if not self.rules.renews(main=known and not self._lost_main(), since_another=since):
            return False
        if self._slot(holder) is not verdict.Slot.USABLE:
            return False
        self.machine = replace(self.machine, slots={**self.machine.slots, holder.slot + 1: verdict.NEXT})
        if not lost:
            holder.slot += 1
        return True

    def _slot(self, holder: Holder) -> verdict.Slot:
        found = verdict.slot(self.machine.slots, holder.slot)
        if found is verdict.Slot.UNKNOWN and holder.slot > max(self.machine.slots):
            # What is signed by the hub's own CA and unknown after a restore is one of the time between.
            slots = verdict.taken_over({**self.machine.slots, holder.slot: verdict.NEXT}, holder.slot)
            self.machine = replace(self.machine, slots=slots)
            return verdict.Slot.USABLE
        return verdict.Slot.SUPERSEDED if found is verdict.Slot.UNKNOWN else found

    def _park(self, holder: Holder, why: str, at: int) -> None:
        holder.state, holder.why, holder.again, holder.since = "parked", why, at, holder.since or at
        self.holding.discard(id(holder))

    def _forked(self, holder: Holder, digest: str, step: Step, request: str) -> str | None:
        """The nonce for the holder when it is the one that stays; None when it loses."""
        machine = self.machine
        older = step.older_boot and _mark(holder.boot) not in self.barred
        judged = self.rules.fork(
            recording.fitting(machine.evidence),
            machine.digest,
            digest,
            older_boot=older,
            presented=recording.presented(machine.evidence),
        )
        main, other = self._seal().boot(machine.row.nonce) if machine.row else None, _mark(holder.boot)
        if judged is Fork.BOTH:
            self.barred.add("everyone")
            return None
        if judged is Fork.OTHER:
            self.barred.add(digest)
            return None
        if judged is Fork.UNDECIDED_OTHER:
            self.barred |= {other} - {main}
            return None
        if judged is Fork.UNDECIDED_MAIN and main is not None:
            self.barred |= {main} - {other}
        if judged is Fork.MAIN:
            self.barred.add(machine.digest)
        return self._succeed(holder, digest, request)

    def _succeed(self, holder: Holder, digest: str, request: str) -> str:
        """The nonce of a holder that takes the place of the one on the main branch."""
        made = self._seal().main(holder.boot)
        self.machine = replace(self.machine, row=Main(self.epoch, made, holder.nonce, request), digest=digest)
        return made

    def report(self, holder: Holder) -> None:
        """A weak difference is told and recorded; a strong one is not told away."""
        items, digest = holder.now()
        if not self.rules.differing(self.machine.recorded, items):
            evidence = self.rules.reported(self.machine.evidence, {"digest": digest})
            self.machine = replace(self.machine, recorded=items, evidence=evidence)
            holder.kept = items

    def ask(self, holder: Holder, others: list[Holder], at: int) -> None:
        """A held machine asks; every other holder that runs is asked for a heartbeat first."""
        alive = [other for other in others if other.up and other.state == "connected" and self.checkin(other, at)]
        items, digest = holder.now()
        machine, seal = self.machine, self._seal()
        newest = self.rules.newest(seal, self.epoch, machine.row, holder.epoch, holder.nonce, at)
        current = machine.row is not None and machine.row.epoch == self.epoch == holder.epoch
        judged = self.rules.question(
            Question(
                alive=bool(alive),
                silent=None if self.seen is None else at - self.seen,
                newest=newest,
                behind=current and not newest,
                slot=machine.slots.get(holder.slot, verdict.RETIRED),
                differs=self.rules.differing(machine.recorded, items),
                agrees=self.rules.agreeing(machine.recorded, items),
                favoured=self.rules.favours(
                    recording.fitting(machine.evidence),
                    recording.presented(machine.evidence),
                    digest,
                    alive[0].now()[1] if alive else None,
                ),
            )
        )
        if judged.word is Word.WAIT:
            holder.again = at + max(1, judged.seconds)
            return
        outcome = self.rules.outcome(judged.word, self._clones, verdict.ASK, sealed=self._image)
        if outcome is None:
            if judged.evicts:
                self.barred.add(alive[0].now()[1])
            self._accept(holder, items, digest, at)
            return
        self.words.append((holder, judged.word.value))
        self.barred.add(_mark(holder.boot) if digest == machine.evidence["digest"] else digest)
        holder.state = {verdict.ADOPT: "adopted", verdict.QUARANTINE: "quarantined"}.get(outcome, "parked")
        holder.again = at + HOUR

    def _accept(self, holder: Holder, items: Items, digest: str, at: int) -> None:
        slots = dict(self.machine.slots)
        if slots.get(holder.slot) == verdict.RETIRED:
            holder.slot = max(slots) + 1
            slots = verdict.taken_over({**slots, holder.slot: verdict.NEXT}, holder.slot)
        nonce = self._seal().main(holder.boot)
        row = Main(self.epoch, nonce, holder.nonce[:16], f"{self._dice.getrandbits(64):x}")
        self.machine = Kept(row, digest, items, {"digest": digest}, slots)
        self.barred -= {digest, _mark(holder.boot), "everyone"}
        self.seen = at
        holder.kept, holder.epoch, holder.nonce = items, self.epoch, nonce
        holder.state, holder.since = "connected", 0


def look(hub: Hub, holder: Holder, at: int) -> None:
    """himds compares before it uses the identity."""
    if holder.state != "connected":
        return
    found = hub.rules.compare(holder.kept, holder.now()[0])
    if found.strong:
        hub._park(holder, "evidence", at)
    elif found.altered:
        hub.report(holder)


def act(hub: Hub, holder: Holder, others: list[Holder], at: int) -> None:
    """What himds does when it is time: a heartbeat, or the question."""
    if not holder.up:
        return
    if holder.state == "connected":
        hub.checkin(holder, at)
    if holder.state in ("parked", "quarantined") and at >= holder.again:
        hub.ask(holder, others, at)


@dataclass
class Tally:
    """What came of it. `accused`: of machines without a twin, what the hub said and after which event; `held_seconds`:
    how long such a machine was parked until the hub had decided for it."""

    days: int = 0
    events: int = 0
    accused: list[str] = field(default_factory=list)
    held_seconds: list[int] = field(default_factory=list)


class Life:
    """One machine that nobody copies."""

    def __init__(self, rules: Rules, dice: random.Random, tally: Tally) -> None:
        self.dice, self.tally = dice, tally
        self.hub = Hub(rules, dice)
        self.kind = dice.choice(list(_KINDS))
        self.machine = Holder(_hardware(self.kind, dice), self._boot())
        self.at = 1_800_000_000 + dice.randrange(DAY)
        self.hub.enrol(self.machine, self.at)
        self.yesterday = self.hub.machine
        self.snapshot = replace(self.machine)

    def _boot(self) -> str:
        return f"{self.dice.getrandbits(64):x}"

    def day(self) -> None:
        """A day with an event or two, and its heartbeats around them."""
        self.tally.days += 1
        for _ in range(self.dice.choice((0, 1, 1, 2))):
            self.at += self.dice.randrange(HOUR, DAY // 3)
            self._beat()
            name = self.dice.choice(NAMES)
            EVENTS[name](self)
            self.tally.events += 1
            self._settle(name)
        self.at += DAY // 4
        if self.dice.random() < 0.1:
            self.yesterday, self.snapshot = self.hub.machine, replace(self.machine)

    def _beat(self) -> None:
        act(self.hub, self.machine, [], self.at)

    def _settle(self, name: str) -> None:
        machine, begun = self.machine, self.at
        beats = 0
        while beats < 5:
            self.at += self.dice.randrange(5, HEARTBEAT)
            if self.dice.random() < 0.1 and machine.state == "connected":
                self.hub.checkin(machine, self.at, lost=True)
                continue
            if machine.state == "parked":
                self.at = max(self.at, machine.again)
            act(self.hub, machine, [], self.at)
            beats += machine.state == "connected" and self.is_quiet
            if machine.state == "quarantined" or self.at - begun > 3 * HOUR:
                break
        if self.hub.words or machine.state != "connected":
            said = ",".join(word for _, word in self.hub.words) or "held"
            self.tally.accused.append(f"{name} on {self.kind}: {said}")
            self.__init__(self.hub.rules, self.dice, self.tally)  # type: ignore[misc] # another machine in its place

    @property
    def is_quiet(self) -> bool:
        """Whether the hub and the machine agree on the last nonce, so that heartbeats to come decide nothing."""
        row = self.hub.machine.row
        return row is not None and row.nonce == self.machine.nonce

    def start(self, hours: float = 0.02) -> None:
        """himds starts again after a time without it."""
        self.at += int(hours * HOUR)
        parked = self.at
        look(self.hub, self.machine, self.at)
        while self.machine.state == "parked" and self.at - parked < 2 * HOUR:
            self.at = max(self.at + 5, self.machine.again)
            act(self.hub, self.machine, [], self.at)
        if self.at > parked:
            self.tally.held_seconds.append(self.at - parked)

    # Events of normal life (clone-specialization.md 9.3)

    def reboot(self) -> None:
        self.machine.boot = self._boot()
        self.start()

    def live_migration(self) -> None:
        self.at += 3  # the clock that counts sleep has moved
        look(self.hub, self.machine, self.at)

    def nic_swap(self) -> None:
        if self.machine.hardware["macs"]:
            self.machine.hardware["macs"] = f"{self.dice.getrandbits(64):x}"
        self.reboot()

    def nothing_that_is_evidence(self) -> None:
        """DHCP change, rename, domain join, clock jump of ten years: not in the vector."""
        look(self.hub, self.machine, self.at)

    def memory_or_processors(self) -> None:
        self.start(0.2)
        self.reboot()

    def disk_added(self) -> None:
        if self.machine.hardware["disk_id"]:
            self.machine.hardware["disk_id"] = f"{self.dice.getrandbits(64):x}"
        look(self.hub, self.machine, self.at)

    def kernel_upgrade(self) -> None:
        """For one boot some readings fail."""
        right = dict(self.machine.hardware)
        for name, value in right.items():
            if value is not None and self.dice.random() < 0.4:
                self.machine.hardware[name] = self.dice.choice(("!denied", "!error", "!absent"))
        self.reboot()
        self._beat()
        self.machine.hardware = right
        self.reboot()

    def agent_upgrade(self) -> None:
        """himds starts again in the same boot; it may read more than it did."""
        if self.kind == "metal" and self.machine.hardware["dmi_asset_tag"] is None:
            self.machine.hardware["dmi_asset_tag"] = "tag"
        self.start(0.002)

    def deallocated(self) -> None:
        """Stopped and started in a cloud: another generation id, the same instance."""
        if self.machine.hardware["vmgenid"]:
            self.machine.hardware["vmgenid"] = f"{self.dice.getrandbits(64):x}"
        self.machine.boot = self._boot()
        self.start(self.dice.choice((0.03, 0.2, 1, 10)))

    def container_restart(self) -> None:
        self.start(0.005)

    def lost_answers(self) -> None:
        for _ in range(self.dice.randrange(1, 4)):
            self.at += self.dice.randrange(2, 120)
            self.hub.checkin(self.machine, self.at, lost=True)

    def crash_without_lease(self) -> None:
        """lease.json is not synced: after a power cut it may be an older one, or none."""
        if self.dice.random() < 0.5:
            self.machine.epoch, self.machine.nonce = 0, ""
        else:
            self.machine.epoch, self.machine.nonce = self.snapshot.epoch, self.snapshot.nonce
        self.reboot()

    def hub_killed(self) -> None:
        """Heartbeats of the last half second are lost with the process."""
        if self.dice.random() < 0.5:
            self.hub.machine = replace(self.hub.machine, row=self.hub.before.row)
        self.hub.epoch += 1

    def hub_restored(self) -> None:
        """From a backup of a day ago or more; what was barred then is not."""
        self.hub.machine = self.yesterday
        self.hub.epoch += 1

    def renewed(self) -> None:
        """The certificate; the answer may be lost, and then it is renewed again."""
        self.hub.renew(self.machine, self.at, lost=self.dice.random() < 0.2)

    def set_back(self) -> None:
        """Restored in place from a snapshot: one machine, an old state."""
        old = self.snapshot
        hardware = dict(self.machine.hardware)
        self.machine.epoch, self.machine.nonce, self.machine.slot = old.epoch, old.nonce, old.slot
        self.machine.kept = old.kept
        if hardware["vmgenid"]:
            hardware["vmgenid"] = f"{self.dice.getrandbits(64):x}"
        self.machine.hardware = hardware
        self.machine.boot = self._boot()
        self.start(self.dice.choice((0.05, 0.3, 2)))


EVENTS: Mapping[str, Callable[[Life], None]] = {
    "reboot": Life.reboot,
    "live migration": Life.live_migration,
    "NIC swap": Life.nic_swap,
    "DHCP change": Life.nothing_that_is_evidence,
    "rename": Life.nothing_that_is_evidence,
    "domain join": Life.nothing_that_is_evidence,
    "RAM or CPU change": Life.memory_or_processors,
    "disk added": Life.disk_added,
    "kernel upgrade": Life.kernel_upgrade,
    "agent upgrade": Life.agent_upgrade,
    "deallocate and start": Life.deallocated,
    "container restart": Life.container_restart,
    "clock jump of ten years": Life.nothing_that_is_evidence,
    "lost answers": Life.lost_answers,
    "power cut without lease": Life.crash_without_lease,
    "hub killed": Life.hub_killed,
    "hub restored, a day old": Life.hub_restored,
    "certificate renewed": Life.renewed,
    "restored in place": Life.set_back,
}
NAMES = tuple(EVENTS)


def normal_life(rules: Rules, days: int, seed: int, of_each: int = 25) -> Tally:
    """`days` machine-days of machines that nobody copies, `of_each` days of each machine."""
    dice, tally = random.Random(seed), Tally()
    while tally.days < days:
        life = Life(rules, dice, tally)
        for _ in range(min(of_each, days - tally.days)):
            life.day()
    return tally

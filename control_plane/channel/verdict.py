# SPDX-License-Identifier: Apache-2.0
"""What a check-in means for the identity (clone-specialization.md 5.1, design section 4). Pure.

The truth table of docs/protocol.md sections 14.2 and 14.3. Only here anybody is accused: by a fork inside one epoch, or
when a holder asks and another one proves to be alive.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

CURRENT, NEXT, RETIRED = "current", "next", "retired"
GAP_SLACK = 60


class Lease(StrEnum):
    """What a check-in did to the branches of a lease (branches.py).

    ADVANCE: the main branch went on. REPEAT: the same request again, the same answer again. REBASE: another epoch, so
    nothing can be concluded. LOST: the nonce before the last, as after a lost answer: another branch begins. CONFLICT:
    an unknown nonce in this epoch: another branch begins. OTHER: another branch went on. RECOVERED, ROLLBACK: it alone
    went on for so long that it is the main one now, after a lost answer, or as a machine does that was set back. FORK:
    it and the main branch have advanced in turn: there are two holders."""

    ADVANCE = "advance"
    REPEAT = "repeat"
    REBASE = "rebase"
    LOST = "lost"
    CONFLICT = "conflict"
    OTHER = "other"
    RECOVERED = "recovered"
    ROLLBACK = "rollback"
    FORK = "fork"


class Slot(StrEnum):
    """USABLE: the current credential. TAKE_OVER: the next one, before its first heartbeat. SUPERSEDED: retired.
    UNKNOWN: not ours."""

    USABLE = "usable"
    TAKE_OVER = "take_over"
    SUPERSEDED = "superseded"
    UNKNOWN = "unknown"


def slot(states: Mapping[int, str], used: int) -> Slot:
    """Verdict on a credential slot, given the state of each slot of the machine."""
    return {
        CURRENT: Slot.USABLE,
        NEXT: Slot.TAKE_OVER,
        RETIRED: Slot.SUPERSEDED,
    }.get(states.get(used, ""), Slot.UNKNOWN)


def taken_over(states: Mapping[int, str], used: int) -> dict[int, str]:
    """States after the first heartbeat with slot `used`: it is current, everything older is retired."""
    return {
        number: CURRENT if number == used else (RETIRED if number < used else state) for number, state in states.items()
    }


def in_gap(moment: int, gaps: Sequence[Sequence[int]] | None) -> bool:
    """True for a moment (Unix seconds) that a restored hub does not remember: from a backup to its restoring. What was
    signed just before the backup may have been committed after it."""
    return any(begins - GAP_SLACK <= moment <= ends for begins, ends in gaps or ())


class Fork(StrEnum):
    """Who loses when two branches are both alive. OTHER, MAIN: that one is the clone. UNDECIDED_OTHER, UNDECIDED_MAIN:
    both match the recorded evidence, so that one, of the younger boot chain, has to ask. BOTH: neither matches."""

    OTHER = "other"
    MAIN = "main"
    UNDECIDED_OTHER = "undecided_other"
    UNDECIDED_MAIN = "undecided_main"
    BOTH = "both"


def fork(recorded: Sequence[str], main: str, other: str, *, older_boot: bool, presented: Collection[str] = ()) -> Fork:
    """Verdict on a proven fork, by digests of evidence. `recorded`: `evidence.fitting`, the newest first; `presented`:
    `evidence.presented`; `older_boot`: the other branch has the older boot chain.

    Where both are recorded and differ, one of them was reported later: it is the copy's, for the original goes on with
    what it had.
    """
    main_fits, other_fits = (one in recorded or one in presented for one in (main, other))
    if main_fits and other_fits:
        if main != other and main in recorded and other in recorded:
            return Fork.OTHER if recorded.index(other) < recorded.index(main) else Fork.MAIN
        return Fork.UNDECIDED_MAIN if older_boot else Fork.UNDECIDED_OTHER
    if main_fits:
        return Fork.OTHER
    return Fork.MAIN if other_fits else Fork.BOTH


def favours_asker(recorded: Sequence[str], presented: Collection[str], asker: str, holder: str | None) -> bool:
    """True when the evidence of who asks fits the recorded one and that of the holder who is alive does not (None:
    nobody is). `recorded`: `evidence.fitting`; `presented`: `evidence.presented`. Digests can be forged, so that this
    takes the identity only from a holder that does not even try to fit."""
    if holder is None or asker not in recorded:
        return False
    return holder not in recorded and holder not in presented


def may_renew(*, main: bool, since_another: int | None) -> bool:
    """Whether a holder gets the next certificate: the one of the main branch, when nothing has hinted at another holder
    for long enough that any other one would have been heard. `since_another`: seconds since the last hint."""
    return main and (since_another is None or since_another > SILENCE)


SILENCE = 900
"""Seconds after which a holder that was not heard no longer counts as one."""
STRONG = ("tpm_key", "vmgenid", "cloud_instance_id", "dmi_uuid", "dmi_serial", "machine_id")
WEAK = ("dmi_asset_tag", "disk_id", "macs")
HARDWARE = ("tpm_key", "cloud_instance_id", "dmi_uuid")
"""Names of evidence (docs/protocol.md section 14.1): those whose difference parks an identity, those whose difference
is reported, and those of which one that is the same says that it is the same hardware."""

Items = Sequence[Mapping[str, str | None]]


def _read(items: Items) -> dict[str, str]:
    return {str(item["name"]): str(item["digest"]) for item in items if item["status"] == "ok" and item["digest"]}


def differing(recorded: Items, given: Items, names: Sequence[str] = STRONG) -> tuple[str, ...]:
    """Those of `names` that were read both times and differ. A read that failed equals nothing and differs from
    nothing."""
    before, now = _read(recorded), _read(given)
    return tuple(name for name in names if name in before and name in now and before[name] != now[name])


def agreeing(recorded: Items, given: Items, names: Sequence[str] = HARDWARE) -> tuple[str, ...]:
    """Those of `names` that were read both times and are the same."""
    before, now = _read(recorded), _read(given)
    return tuple(name for name in names if name in before and before[name] == now.get(name))


class Word(StrEnum):
    """The answer to a parked machine. SAME, ROLLBACK, MOVED: it may go on. CLONE: somebody else is the machine.
    UNDECIDED: nobody can tell. WAIT: nobody can tell yet."""

    SAME = "same"
    ROLLBACK = "rollback"
    MOVED = "moved"
    CLONE = "clone"
    UNDECIDED = "undecided"
    WAIT = "wait"


@dataclass(frozen=True)
class Question:
    """What is known when a parked machine asks. `alive`: another holder proved itself since; `silent`: seconds since
    any holder was heard, None: never; `newest`: the asker holds the nonce that was given last; `behind`: it holds an
    older one of this epoch; `slot`: state of its credential; `differs`, `agrees`: its evidence against the recorded;
    `favoured`: it fits the recorded evidence, and the holder that is alive does not."""

    alive: bool
    silent: int | None
    newest: bool
    behind: bool
    slot: str
    differs: tuple[str, ...] = ()
    agrees: tuple[str, ...] = ()
    favoured: bool = False

    @property
    def is_same_hardware(self) -> bool:
        """Something that only this hardware has is the same. Whole images share an instance id that somebody wrote into
        them, so that one counts for nothing beside firmware that differs."""
        return bool(self.agrees) and not ("dmi_uuid" in self.differs and self.agrees == ("cloud_instance_id",))

    @property
    def is_faceless(self) -> bool:
        """Nothing that is the hardware's could be compared, as in a container or on a bare board: there the lease alone
        tells who it is."""
        return not self.agrees and not set(self.differs) & {*HARDWARE, "vmgenid", "dmi_serial"}


@dataclass(frozen=True)
class Judgement:
    """`seconds`: of WAIT, when to ask again; `evicts`: the holder that is alive loses the identity to the asker."""

    word: Word
    seconds: int = 0
    evicts: bool = False


def question(asked: Question) -> Judgement:
    """Verdict on a question (docs/protocol.md section 14.3). Total: every combination has one answer."""
    if asked.alive and asked.favoured and not asked.differs:
        return Judgement(Word.ROLLBACK if asked.slot == RETIRED or asked.behind else Word.SAME, evicts=True)
    if asked.alive:
        return Judgement(Word.CLONE if asked.differs else Word.UNDECIDED)
    left = 0 if asked.silent is None else max(0, SILENCE - asked.silent)
    if not asked.differs:
        if asked.slot == RETIRED:
            # A new certificate ends that of a holder who may only be between two heartbeats.
            return Judgement(Word.WAIT, left) if left else Judgement(Word.ROLLBACK)
        return Judgement(Word.ROLLBACK if asked.behind else Word.SAME)
    if (asked.is_same_hardware or asked.is_faceless) and asked.newest and asked.slot != RETIRED:
        return Judgement(Word.SAME)
    if left:
        return Judgement(Word.WAIT, left)
    return Judgement(Word.SAME if asked.is_same_hardware else Word.MOVED)


REJECT, QUARANTINE, ADOPT = "reject", "quarantine", "adopt"
POLICIES = (REJECT, QUARANTINE, ADOPT)
ASK, KEEP = "ask", "keep"


def outcome(word: Word, clones: str, moved: str, *, sealed: bool) -> str | None:
    """What becomes of an asker: None: it may go on; else one of POLICIES. `clones`, `moved`: of its profile; `sealed`:
    the machine is recorded to come from an image, which alone lets an undecided one be adopted."""
    if word in (Word.SAME, Word.ROLLBACK):
        return None
    if word is Word.MOVED:
        return None if moved == KEEP else QUARANTINE
    if word is Word.UNDECIDED and clones == ADOPT and not sealed:
        return QUARANTINE
    return clones

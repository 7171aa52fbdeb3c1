# SPDX-License-Identifier: Apache-2.0
"""What a check-in means for the identity (clone-specialization.md 5.1, design section 4). Pure.

Version 1 accuses nobody: an unknown nonce inside one epoch is counted, and the caller is set back on the row's nonce.
Later parts add verdicts here, not fields on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

CURRENT, NEXT, RETIRED = "current", "next", "retired"
GAP_SLACK = 60


class Lease(StrEnum):
    """ADVANCE: the last nonce came back, draw a new one. REPEAT: the last answer was lost, give it again.
    REBASE: another epoch, so nothing can be concluded. CONFLICT: unknown nonce in this epoch."""

    ADVANCE = "advance"
    REPEAT = "repeat"
    REBASE = "rebase"
    CONFLICT = "conflict"


class Slot(StrEnum):
    """USABLE: the current credential. TAKE_OVER: first use of the next one. SUPERSEDED: retired. UNKNOWN: not ours."""

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
    """States after the first use of slot `used`: it is current, everything older is retired."""
    return {
        number: CURRENT if number == used else (RETIRED if number < used else state) for number, state in states.items()
    }


def lease(
    hub_epoch: int, row_epoch: int, nonce: str, previous_nonce: str, given_epoch: int, given_nonce: str, *, same: bool
) -> Lease:
    """Verdict on the lease counter. `same`: the request repeats the last one (same requestId).

    A lost answer never accuses: the last two nonces are known, and as long as the older one comes back the newer one
    is given again, so that any number of lost answers in a row is harmless.
    """
    if given_epoch != hub_epoch or row_epoch != hub_epoch:
        return Lease.REBASE
    if same:
        return Lease.REPEAT
    if given_nonce == nonce:
        return Lease.ADVANCE
    if given_nonce == previous_nonce:
        return Lease.REPEAT
    return Lease.CONFLICT


def in_gap(moment: int, gaps: Sequence[Sequence[int]] | None) -> bool:
    """True for a moment (Unix seconds) that a restored hub does not remember: from a backup to its restoring. What was
    signed just before the backup may have been committed after it."""
    return any(begins - GAP_SLACK <= moment <= ends for begins, ends in gaps or ())

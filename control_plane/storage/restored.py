# SPDX-License-Identifier: Apache-2.0
"""What a database is told of itself when it was restored from a backup (docs/operations.md, 'Backup and restore')."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, object_session

from control_plane.storage.models import HubState, Machine, Process, UserSession

# Raised by so much for each restore, so that no generation falls below what a machine has seen since the backup:
# machines refuse documents of a generation that falls (docs/protocol.md section 7).
GENERATION_STEP = 1 << 20
_BATCH = 1000


def beyond(session: Session) -> int:
    """What no number can have reached that the gaps of this database have swallowed; 0 where there are none."""
    return GENERATION_STEP * len(session.get_one(HubState, 1).gaps or [])


def next_generation(machine: Machine, kind: str) -> int:
    """The one after that of a machine's document. Where there was none, there may have been some in a gap."""
    number = machine.generations.get(kind, 0)
    session = object_session(machine)
    return (number or (beyond(session) if session else 0)) + 1


def may_be_behind(session: Session, created: int, sequence: int) -> bool:
    """Whether a machine may have been told a higher sequence number in a gap, of what was made at `created` (Unix
    seconds)."""
    gaps = session.get_one(HubState, 1).gaps or []
    return bool(gaps) and created <= gaps[-1][1] and sequence < beyond(session)


def next_sequence(session: Session, created: int, sequence: int) -> int:
    """The number of another run, above all that a machine can have been told."""
    return max(sequence + 1, beyond(session) if may_be_behind(session, created, sequence) else 0)


def mark(session: Session, taken: int, at: int) -> None:
    """The database is that of `taken` and in force again from `at` (Unix seconds). The next start raises the epoch;
    sessions of people end."""
    state = session.get_one(HubState, 1)
    state.clean = False
    state.gaps = [*(state.gaps or []), [taken, at]]
    state.trust_generation += GENERATION_STEP
    session.execute(delete(Process))
    session.execute(delete(UserSession))
    last = 0
    while found := session.scalars(select(Machine).where(Machine.id > last).order_by(Machine.id).limit(_BATCH)).all():
        last = found[-1].id
        for machine in found:
            machine.generations = {
                kind: number + GENERATION_STEP if number else 0 for kind, number in machine.generations.items()
            }
        session.flush()
        session.expunge_all()

# SPDX-License-Identifier: Apache-2.0
"""Hub processes over one PostgreSQL: who runs, who died, the epoch that a death raises.

A process holds the session-level advisory lock (PRESENCE, its number) as long as its connection lives. The server gives
the lock back the moment the process is killed, so a row without its lock is an unclean end (design section 4). A
process that merely lost its connection is taken for dead too: the epoch rises once more, which accuses nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from control_plane.clock import now
from control_plane.storage.database import Database
from control_plane.storage.models import HubState, Process
from control_plane.storage.presence import numbers


def _dead(session: Session) -> set[int]:
    return set(session.scalars(select(Process.number))) - numbers(session.connection())


def _bury(session: Session, also: int | None = None) -> int:
    """Forget who died, and raise the epoch for all if somebody did. Returns the epoch."""
    state = session.get_one(HubState, 1)
    dead = _dead(session) - {also}
    if dead:
        session.execute(delete(Process).where(Process.number.in_(dead)))
    if dead or not state.clean:  # not clean: restored from a backup, or used with SQLite's rules before
        state.epoch, state.clean = state.epoch + 1, True
    return state.epoch


def join(database: Database, address: str, hold: Callable[[int], None]) -> tuple[int, int]:
    """Enter a new process. `hold`: takes its lock, before others can see the row. Returns number and epoch."""
    with database.write() as session:
        epoch = _bury(session)
        made = Process(started=now(), seen=now(), address=address[:320])
        session.add(made)
        session.flush()
        hold(made.number)
        return made.number, epoch


def rejoin(database: Database, number: int, started: int, address: str) -> int:
    """A process that had lost its connection holds its lock again; others may have taken it for dead. Returns the
    epoch."""
    with database.write() as session:
        if session.get(Process, number) is None:
            session.add(Process(number=number, started=started, seen=now(), address=address[:320]))
        return _bury(session, also=number)


def leave(database: Database, number: int) -> None:
    """A clean end."""
    with database.write() as session:
        session.execute(delete(Process).where(Process.number == number))


def seen(database: Database, number: int) -> None:
    """Note that a process is alive, for people who look."""
    with database.write() as session:
        session.execute(update(Process).where(Process.number == number).values(seen=now()))


def find_dead(database: Database) -> int | None:
    """Look whether a process has died since; the epoch if it was raised for that."""
    with database.read() as session:
        if not _dead(session):
            return None
    with database.write() as session:
        return _bury(session) if _dead(session) else None


def epoch(database: Database) -> int:
    """The epoch in force."""
    with database.read() as session:
        return session.get_one(HubState, 1).epoch

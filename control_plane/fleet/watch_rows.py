# SPDX-License-Identifier: Apache-2.0
"""The watcher's reading and writing: what was announced of machines, and the events of what is announced now.

Several hub processes may see the same change: the row of `machine_states` is changed by whoever finds it as it was, and
only that one writes the event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from control_plane.arm.status import AWAITING, CONNECTED, DISCONNECTED, DISCONNECTED_AFTER, EXPIRED, Status
from control_plane.fleet.events import event_json
from control_plane.fleet.transitions import Beats, Heard, listening
from control_plane.storage import history
from control_plane.storage.fleet_models import FleetCount, Listening, MachineEvent, MachineState, Outage, Outbox
from control_plane.storage.models import Heartbeat, Machine, ResourceGroup

CHUNK = 500
RECOVERED = "Recovered"
TRANSITIONS = (DISCONNECTED, EXPIRED, RECOVERED)


@dataclass(frozen=True)
class Watched:
    """A machine, what its heartbeats say, and what was last announced of it (None: nothing yet)."""

    machine_id: int
    beats: Beats
    conflicts: int
    known: Status | None
    known_conflicts: int


@dataclass(frozen=True)
class Change:
    """What is to be announced. `quiet`: noted without an event. `conflicts`: the new count, if that is told."""

    watched: Watched
    status: Status
    conflicts: int | None = None
    quiet: bool = False


def begin(session: Session, at: int) -> Heard:
    """Note that this process listens."""
    row = session.get(Listening, 1)
    heard, outage = listening((row.since, row.alive, row.deaf_from) if row else None, at)
    if row is None:
        session.add(Listening(id=1, since=heard.since, alive=at, deaf_from=heard.deaf_from))
    else:
        row.since, row.alive, row.deaf_from = heard.since, at, heard.deaf_from
    if outage is not None and session.get(Outage, outage[0]) is None:
        session.add(Outage(began=outage[0], ended=outage[1]))
    return heard


def alive(session: Session, at: int) -> None:
    """Note that it still does."""
    session.execute(update(Listening).values(alive=at).where(Listening.alive < at))


def watched(session: Session, ids: Sequence[int] | None = None) -> list[Watched]:
    """The machines with these ids, or all."""
    query = (
        select(
            Machine.id,
            Machine.created,
            Heartbeat.seen,
            Heartbeat.connected_since,
            Heartbeat.conflicts,
            MachineState.status,
            MachineState.since,
            MachineState.conflicts,
        )
        .outerjoin(Heartbeat, Heartbeat.machine_id == Machine.id)
        .outerjoin(MachineState, MachineState.machine_id == Machine.id)
    )
    if ids is not None:
        query = query.where(Machine.id.in_(ids))
    return [
        Watched(key, Beats(seen, since, created), conflicts or 0, Status(word, at) if word else None, known or 0)
        for key, created, seen, since, conflicts, word, at, known in session.execute(query)
    ]


def overlooked(session: Session, at: int, after: int) -> list[int]:
    """Machines to look at that no heartbeat here called attention to: heard again by another process, or made since."""
    heard = (
        select(MachineState.machine_id)
        .join(Heartbeat, Heartbeat.machine_id == MachineState.machine_id)
        .where(MachineState.status != CONNECTED, Heartbeat.seen >= at - DISCONNECTED_AFTER)
    )
    made = select(Machine.id).where(Machine.id > after)
    return [*session.scalars(heard.limit(5000)), *session.scalars(made.order_by(Machine.id).limit(5000))]


def announce(
    session: Session, changes: Sequence[Change], targets: Sequence[tuple[str, frozenset[str]]], at: int
) -> int:
    """Write what is news to the table, with its events and what `targets` (name, words) are to be told. At most CHUNK
    changes at once. Returns the number of events."""
    taken = _take(session, changes)
    loud = [change.watched.machine_id for change in taken if not change.quiet]
    query = select(Machine, ResourceGroup.name).join(ResourceGroup, Machine.group_id == ResourceGroup.id)
    machines = {machine.id: (machine, group) for machine, group in session.execute(query.where(Machine.id.in_(loud)))}
    made: list[tuple[MachineEvent, str | None]] = []
    for change in taken:
        if change.watched.machine_id in machines:
            made += _events(change, *machines[change.watched.machine_id], at)
    session.add_all(row for row, _ in made)
    session.flush()
    for row, word in made:
        for name, words in targets:
            if word in words:
                session.add(Outbox(target=name, created=at, event={**event_json(row), "transition": word}))
    return len(made)


def _events(change: Change, machine: Machine, group: str, at: int) -> list[tuple[MachineEvent, str | None]]:
    """The events of a change, and the word that notifications know each by."""
    found: list[tuple[MachineEvent, str | None]] = []
    known, new = change.watched.known, change.status
    before, began = (known.word, known.since) if known else (AWAITING, 0)
    if before != new.word:
        once = f"{machine.id}:{new.word}:{new.since}:{began}"
        row = history.about(machine, group, history.STATUS, new.since, {"from": before, "to": new.word}, once)
        found.append((row, RECOVERED if new.word == CONNECTED and before != AWAITING else new.word))
    if change.conflicts is not None:
        row = history.about(machine, group, history.CONFLICT, at, {"count": change.conflicts}, None)
        found.append((row, None))
    return found


def _take(session: Session, changes: Sequence[Change]) -> list[Change]:
    """Change the rows of what was announced. Returns what no other process was quicker with."""
    ids = [change.watched.machine_id for change in changes]
    locked = select(MachineState).where(MachineState.machine_id.in_(ids)).order_by(MachineState.machine_id)
    rows = {row.machine_id: row for row in session.scalars(locked.with_for_update())}
    taken = []
    for change in changes:
        watched_, new = change.watched, change.status
        row = rows.get(watched_.machine_id)
        if row is None:
            continue
        if watched_.known == Status(row.status, row.since) and watched_.known_conflicts == row.conflicts:
            row.status, row.since = new.word, new.since
            row.conflicts = max(row.conflicts, change.conflicts or 0)
            taken.append(change)
    return taken + _make(session, [change for change in changes if change.watched.known is None])


def _make(session: Session, changes: Sequence[Change]) -> list[Change]:
    if not changes:
        return []
    by_id = {change.watched.machine_id: change for change in changes}
    present = set(session.scalars(select(Machine.id).where(Machine.id.in_(list(by_id)))))  # some may be deleted by now
    rows = [
        {
            "machine_id": key,
            "status": change.status.word,
            "since": change.status.since,
            "conflicts": change.conflicts or 0,
        }
        for key, change in by_id.items()
        if key in present
    ]
    if not rows:
        return []
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(MachineState).on_conflict_do_nothing().returning(MachineState.machine_id)
    return [by_id[key] for key in session.scalars(statement.values(rows))]


def sample(session: Session, slot: int, span: int) -> None:
    """Count the fleet for the slot that begins at `slot`, unless another process did."""
    if session.scalar(select(FleetCount.at).where(FleetCount.span == span, FleetCount.at == slot).limit(1)) is not None:
        return
    query = (
        select(Machine.subscription_id, MachineState.status, func.count())
        .join(Machine, Machine.id == MachineState.machine_id)
        .group_by(Machine.subscription_id, MachineState.status)
    )
    counts: dict[str, dict[str, int]] = {}
    for subscription, word, number in session.execute(query):
        counts.setdefault(subscription, {})[word] = number
    for subscription, found in counts.items():
        names: dict[str, Any] = {
            "connected": found.get(CONNECTED, 0),
            "disconnected": found.get(DISCONNECTED, 0),
            "expired": found.get(EXPIRED, 0),
            "awaiting": found.get(AWAITING, 0),
        }
        session.add(FleetCount(span=span, at=slot, subscription_id=subscription, **names))

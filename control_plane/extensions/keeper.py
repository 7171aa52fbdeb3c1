# SPDX-License-Identifier: Apache-2.0
"""What happens to extensions without anybody asking: wishes that no outcome comes of expire, and automatic upgrades
begin. One for each hub process, on its event loop; several over one database find each other's work done.

The catalogue may be written by any process (a command of the operator's over SQLite too): it is looked at, not told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from sqlalchemy import exists, or_, select, update
from sqlalchemy.orm import Session

from control_plane.arm import locks
from control_plane.arm.status import DISCONNECTED_AFTER
from control_plane.clock import now, rfc3339
from control_plane.extensions import operations, versions, writing
from control_plane.extensions.progress import FAILED, KEPT_SECONDS, RETRY_SECONDS, UNDER_WAY, expired
from control_plane.storage import audit, catalogue, extensions, run_commands
from control_plane.storage.database import Database
from control_plane.storage.extension_models import Extension, ExtensionPackage
from control_plane.storage.extensions import Kept
from control_plane.storage.machines import PulseOf, pulse_of
from control_plane.storage.models import Heartbeat, Machine

EVERY_SECONDS = 10
CHUNK = 200
"""Machines that one turn moves to a newer version: a fleet is not sent for a new package in one instant."""
ACTOR = audit.Actor("hub", "extensions")
Changed = dict[int, dict[str, int]]
log = logging.getLogger("hawser.hub.extensions")


def _expire(session: Session, machine: Machine, kept: Kept, live: PulseOf, at: int) -> None:
    """No outcome in time. An automatic upgrade is taken back, for nobody asked for it; all else has failed."""
    row = kept.row
    moved = extensions.moved_with(session, kept) if row.rollback_to is not None else []
    for item in moved or [kept]:
        detail = {"version": item.row.version, "sequence": item.row.sequence}
        audit.record(session, ACTOR, "machines/extensions/expired", item.resource.resource_id, detail=detail)
    if moved:
        for item in moved:
            writing.take_back(session, machine, item, at)
        return
    error = _late(session, machine, live, at)
    row.state, row.code, row.message = FAILED, error["code"], error["message"]


def _late(session: Session, machine: Machine, live: PulseOf, at: int, waited: int = KEPT_SECONDS) -> dict[str, str]:
    """Why there is no outcome after `waited` seconds."""
    pulse = pulse_of(session, machine.id, live)
    connected = pulse is not None and pulse.seen > at - DISCONNECTED_AFTER
    return expired(machine.name, rfc3339(pulse.seen) if pulse else None, connected, waited)


def _expire_commands(session: Session, machine: Machine, live: PulseOf, at: int) -> None:
    for kept, given in run_commands.overdue(session, machine.id, UNDER_WAY, at - KEPT_SECONDS):
        row, error = kept.row, _late(session, machine, live, at, KEPT_SECONDS + given)
        row.state, row.code, row.message = FAILED, error["code"], error["message"]
        audit.record(session, ACTOR, "machines/runCommands/expired", kept.resource.resource_id)


def expire(session: Session, live: PulseOf, at: int) -> Changed:
    """End what has waited for six hours, with a script that runs for its time besides. Returns the generations of
    machines whose document is another one now."""
    late = at - KEPT_SECONDS
    query = select(Extension.machine_id).where(Extension.state.in_(UNDER_WAY), Extension.began <= late)
    changed: Changed = {}
    found = set(session.scalars(query.distinct().limit(CHUNK)))
    for machine_id in sorted(found | set(run_commands.machines_with(session, UNDER_WAY, late, CHUNK))):
        machine = session.get_one(Machine, machine_id)
        before = machine.generations
        for kept in extensions.of_machine(session, machine_id):
            if kept.row.state in UNDER_WAY and kept.row.began <= at - KEPT_SECONDS:
                _expire(session, machine, kept, live, at)
        _expire_commands(session, machine, live, at)
        operations.settle(session, machine_id, at)
        if machine.generations != before:
            changed[machine_id] = dict(machine.generations)
    operations.orphans(session, at)
    return changed


def look_again(session: Session, at: int) -> None:
    """The catalogue may be another one: every extension that is upgraded automatically is looked at. One that waits
    after a failure goes on waiting, unless its handler has a package that came since."""
    newer = exists().where(
        ExtensionPackage.handler_key == Extension.handler_key, ExtensionPackage.created >= Extension.began
    )
    looked = or_(Extension.retry.is_(None), newer)
    session.execute(update(Extension).where(Extension.automatic, Extension.removed.is_(None), looked).values(retry=at))


def _upgrade_machine(session: Session, machine: Machine, kept: Iterable[Kept], at: int) -> None:
    """Move what is due, all extensions of a handler together. What is locked is looked at again later."""
    locked = locks.held(session, machine.subscription_id)
    by_handler: dict[str, list[Kept]] = {}
    for item in kept:
        if item.row.removed is None:
            by_handler.setdefault(item.row.handler_key, []).append(item)
    for key, mine in by_handler.items():
        due = [item for item in mine if item.row.retry is not None and item.row.retry <= at]
        if not due:
            continue
        known = {item.version for item in writing.packages_for(session, machine, key)}
        version = versions.upgrade(known, due[0].row.version)
        ready = all(item.row.automatic and item.row.state not in UNDER_WAY for item in mine)
        if version is None or not all(item.row.automatic for item in mine):
            for item in due:
                item.row.retry = None
        elif any(locks.standing_against("PUT", item.resource.resource_id, locked) for item in mine):
            for item in due:
                item.row.retry = at + RETRY_SECONDS
        elif not ready:
            for item in due:
                item.row.retry = at + EVERY_SECONDS
        else:
            for item in mine:
                writing.move(session, machine, item, version, at, automatic=True)
                detail = {"version": version, "rollbackTo": item.row.rollback_to}
                audit.record(session, ACTOR, "machines/extensions/upgrade", item.resource.resource_id, detail=detail)


def upgrade(session: Session, at: int) -> Changed:
    """Begin automatic upgrades on connected machines; those of others wait until they are back. Returns as `expire`."""
    query = (
        select(Extension.machine_id)
        .join(Heartbeat, Heartbeat.machine_id == Extension.machine_id)
        .where(Extension.retry <= at, Heartbeat.seen > at - DISCONNECTED_AFTER)
    )
    changed: Changed = {}
    for machine_id in session.scalars(query.distinct().limit(CHUNK)).all():
        machine = session.get_one(Machine, machine_id)
        before = machine.generations
        _upgrade_machine(session, machine, extensions.of_machine(session, machine_id), at)
        if machine.generations != before:
            changed[machine_id] = dict(machine.generations)
    return changed


class Keeper:
    """`changed`: told of machines whose document is another one."""

    def __init__(self, database: Database, live: PulseOf, changed: Callable[[int, dict[str, int]], None]) -> None:
        self._database, self._live, self._changed = database, live, changed
        self._stamp: tuple[int, int] | None = None

    def turn(self, at: int) -> None:
        """Once; `at`: Unix seconds. In a thread."""
        with self._database.read() as session:
            stamp = catalogue.stamp(session)
            idle = stamp == self._stamp and not _due(session, at)
        if idle:
            return
        with self._database.write() as session:
            if stamp != self._stamp:
                look_again(session, at)
            changed = expire(session, self._live, at) | upgrade(session, at)
        self._stamp = stamp
        for machine_id, generations in changed.items():
            self._changed(machine_id, generations)

    async def run(self) -> None:
        """Ends when cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.turn, now())
            except Exception:
                log.exception("Extensions could not be looked after; it is tried again.")
            await asyncio.sleep(EVERY_SECONDS)


def _due(session: Session, at: int) -> bool:
    """Most turns find nothing, and write nothing."""
    late = select(Extension.resource_id).where(Extension.state.in_(UNDER_WAY), Extension.began <= at - KEPT_SECONDS)
    ready = (
        select(Extension.resource_id)
        .join(Heartbeat, Heartbeat.machine_id == Extension.machine_id)
        .where(Extension.retry <= at, Heartbeat.seen > at - DISCONNECTED_AFTER)
    )
    queries = (late, ready, operations.orphaned())
    if any(session.execute(query.limit(1)).first() is not None for query in queries):
        return True
    return bool(run_commands.machines_with(session, UNDER_WAY, at - KEPT_SECONDS, 1))

# SPDX-License-Identifier: Apache-2.0
"""Automatic upgrades of the agent: when another version was published, machines with `enableAutomaticUpgrade` are
brought to the newest, so many at a time. One for each hub process; several find each other's work done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.clock import now
from control_plane.extensions.versions import newest
from control_plane.storage import agent_packages, audit, restored, twins
from control_plane.storage.database import Database
from control_plane.storage.models import AuditEntry, Machine, Report
from control_plane.upgrades import view, wish

EVERY_SECONDS = 10
LOOKED = 2000
"""Machines that one turn looks at."""
CHUNK = 200
"""Machines that one turn sends for the new package."""
TRIAL, TRIAL_SECONDS = 20, wish.DEADLINE_SECONDS + 300
"""So many machines try a version first, of all processes; the others follow when those have had the time to take it
back."""
FAILURES, FAILURE_SHARE = 5, 0.1
"""Machines that must have taken a version back, in number and of all that have tried it, before it goes no further."""
ACTOR, ACTION = audit.Actor("hub", "agentUpgrade"), "machines/agentUpgrade"
log = logging.getLogger("hawser.hub.upgrades")


class Keeper:
    """`changed`: told of machines whose document is another one."""

    def __init__(self, database: Database, changed: Callable[[int, dict[str, int]], None]) -> None:
        self._database, self._changed = database, changed
        self._stamp: tuple[int, int] | None = None
        self._after: int | None = None
        self._until = 0.0  # the end of a trial, by time.monotonic(): before it nothing has to be looked at

    def turn(self) -> None:
        """Once. In a thread."""
        with self._database.read() as session:
            stamp = agent_packages.stamp(session)
            if stamp != self._stamp:
                self._stamp, self._after, self._until = stamp, 0, 0.0
            if self._after is None or time.monotonic() < self._until:
                return
            if self._is_bad(session):
                self._after = None
                return
            room, left = _room(session)
            if not room:
                self._until = time.monotonic() + left
                return
            due, after = self._due(session, self._after, room)
        moved: dict[int, dict[str, int]] = {}
        if due:
            with self._database.write() as session:
                if room < CHUNK and _room(session)[0] < len(due):
                    return  # another process was faster; the next turn looks anew
                published = agent_packages.versions(session)
                for machine_id in due:
                    machine = session.get(Machine, machine_id)
                    if machine is not None and move(session, machine, published):
                        moved[machine_id] = dict(machine.generations)
        self._after = after
        for machine_id, generations in moved.items():
            self._changed(machine_id, generations)

    def _due(self, session: Session, after: int, most: int) -> tuple[list[int], int | None]:
        """At most `most` machines to be moved, from an id on, and the id to go on from; None at the end."""
        published = agent_packages.versions(session)
        query = select(Machine.id, Machine.properties, Machine.agent_version).where(Machine.id > after)
        due: list[int] = []
        rows = session.execute(query.order_by(Machine.id).limit(LOOKED)).all()
        for machine_id, properties, running in rows:
            after = machine_id
            wanted = properties.get(wish.MEMBER) or {}
            if wanted.get("enableAutomaticUpgrade") and wish.automatic(wanted, published, running):
                due.append(machine_id)
                if len(due) == most:
                    return due, after
        return due, after if len(rows) == LOOKED else None

    def _is_bad(self, session: Session) -> bool:
        """Whether so many machines have taken the newest version back that no more are sent for it, until something
        else is published."""
        found = newest(agent_packages.versions(session))
        told = Report.data["desiredVersion"].as_string() == found
        states = [data["state"] for data in session.scalars(select(Report.data).where(Report.kind == wish.KIND, told))]
        failed, well = states.count(view.ROLLED_BACK), states.count(view.SUCCEEDED)
        if failed < FAILURES or failed <= FAILURE_SHARE * (failed + well):
            return False
        log.error(
            "Automatic upgrades to %s have stopped: %d of %d machines have taken it back. "
            "Publish another version, or take this one off the list.",
            found,
            failed,
            failed + well,
        )
        return True

    async def run(self) -> None:
        """Ends when cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.turn)
            except Exception:
                log.exception("Automatic upgrades could not be looked after; it is tried again.")
            await asyncio.sleep(EVERY_SECONDS)


def _room(session: Session) -> tuple[int, int]:
    """How many machines may be sent for the newest version now, and if none, in how many seconds the others follow.

    The audit knows who was sent and when, in the transaction of the wish itself: all processes read the same there, and
    after a restart too. A time that is further off than a trial is long, either way, is that of a wrong clock.
    """
    version = AuditEntry.detail["desiredVersion"].as_string() == newest(agent_packages.versions(session))
    query = select(func.count(), func.min(AuditEntry.at)).where(AuditEntry.actor == ACTOR.name, version)
    sent, began = session.execute(query.where(AuditEntry.action == ACTION)).one()
    gone = abs(now() - began) if sent else 0
    return (CHUNK, 0) if gone >= TRIAL_SECONDS else (max(0, TRIAL - sent), TRIAL_SECONDS - gone)


def move(session: Session, machine: Machine, published: list[str]) -> bool:
    """Raise what is wished of one machine, if it is to be brought to the newest and is not there."""
    wanted = machine.properties.get(wish.MEMBER) or {}
    fresh = wish.automatic(wanted, published, machine.agent_version) if wanted.get("enableAutomaticUpgrade") else {}
    if not fresh:
        return False
    machine.properties = {**machine.properties, wish.MEMBER: {**wanted, **fresh}}
    machine.generations = {**machine.generations, "agent": restored.next_generation(machine, "agent")}
    audit.record(session, ACTOR, ACTION, twins.resource_id(session, machine), detail=dict(fresh))
    return True

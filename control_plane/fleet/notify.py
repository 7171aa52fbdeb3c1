# SPDX-License-Identifier: Apache-2.0
"""Sends what is in the outbox: at least once, in order, each target by itself.

A delivery is noted after it arrived. If the process dies in between it is sent again; receivers know an event by its
id. Over PostgreSQL several processes share the outbox, and a lease lets one of them send to a target.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from control_plane.clock import now
from control_plane.fleet.deliver import MAX_EVENTS, SMTP_TIMEOUT, DeliveryError, deliver
from control_plane.fleet.targets import Mail, Target
from control_plane.storage.database import Database
from control_plane.storage.fleet_models import NotifyTarget, Outbox

MAX_QUEUE = 10_000
MAX_AGE = 7 * 86400
FIRST_PAUSE, LONGEST_PAUSE, GONE_PAUSE = 5, 3600, 86400
EVERY = 2.0
MAIL_LEASE, LEASE_MORE = 4 * SMTP_TIMEOUT, 10  # seconds; longer than a delivery takes
log = logging.getLogger("hawser.hub.notify")


@dataclass(frozen=True)
class Batch:
    """What is to be sent next. `ids`: of the rows; `dropped`: how many were given up before them."""

    ids: tuple[int, ...]
    events: tuple[dict[str, Any], ...]
    dropped: int


def pause(tries: int) -> int:
    """Seconds until the next attempt after so many failures."""
    return int(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries - 1, 20)))


class Notifier:
    """`hub`: its URL. `shared`: other processes may use the same outbox."""

    def __init__(self, database: Database, hub: str, targets: Sequence[Target], *, shared: bool) -> None:
        self._database, self._hub, self._targets = database, hub, targets
        # A process that has the outbox to itself takes its own lease back after a kill.
        self._me = str(uuid4()) if shared else "the only process"

    async def run(self) -> None:
        """Ends when cancelled."""
        try:
            await asyncio.to_thread(self._forget_others)
        except Exception:
            log.exception("What waits for former targets could not be removed; the next start does it.")
        await asyncio.gather(*(self._serve(target) for target in self._targets))

    def _forget_others(self) -> None:
        """Targets that the configuration does not name any more get nothing, also not when they come back."""
        names = [target.name for target in self._targets]
        with self._database.write() as session:
            session.execute(delete(Outbox).where(Outbox.target.not_in(names)))
            session.execute(delete(NotifyTarget).where(NotifyTarget.name.not_in(names)))

    async def _serve(self, target: Target) -> None:
        while True:
            try:
                while await self._turn(target):
                    pass
            except Exception:
                log.exception("The outbox of '%s' cannot be used; it is tried again.", target.name)
            await asyncio.sleep(EVERY)

    async def _turn(self, target: Target) -> bool:
        """Send one batch. True when there may be another."""
        batch = await asyncio.to_thread(self._take, target, now())
        if batch is None:
            return False
        try:
            count = await deliver(self._hub, target, batch.events, batch.dropped)
        except DeliveryError as error:
            await asyncio.to_thread(self._failed, target, error)
            return False
        await asyncio.to_thread(self._sent, target, batch.ids[:count])
        return True

    def _take(self, target: Target, at: int) -> Batch | None:
        with self._database.read() as session:  # mostly there is nothing, and nothing to be written then
            if session.scalar(select(Outbox.id).where(Outbox.target == target.name).limit(1)) is None:
                return None
        mail = target.way if isinstance(target.way, Mail) else None
        with self._database.write() as session:
            row = session.get(NotifyTarget, target.name, with_for_update=True)
            if row is None:
                row = NotifyTarget(name=target.name, lease_until=0, lease_by=self._me, tries=0, due=0, dropped=0)
                session.add(row)
            if row.due > at or (row.lease_until > at and row.lease_by != self._me):
                return None
            row.dropped += _bound(session, target.name, at)
            query = select(Outbox).where(Outbox.target == target.name).order_by(Outbox.id)
            found = list(session.scalars(query.limit(MAX_QUEUE if mail else MAX_EVENTS)))
            if not found or (mail and row.tries == 0 and found[0].created + mail.digest > at):
                return None
            row.lease_by = self._me
            row.lease_until = at + (MAIL_LEASE if isinstance(target.way, Mail) else target.way.timeout + LEASE_MORE)
            return Batch(tuple(item.id for item in found), tuple(item.event for item in found), row.dropped)

    def _sent(self, target: Target, ids: Sequence[int]) -> None:
        with self._database.write() as session:
            for start in range(0, len(ids), 500):
                session.execute(delete(Outbox).where(Outbox.id.in_(ids[start : start + 500])))
            values = {"tries": 0, "due": 0, "dropped": 0, "lease_until": 0}
            session.execute(update(NotifyTarget).where(NotifyTarget.name == target.name).values(**values))

    def _failed(self, target: Target, error: DeliveryError) -> None:
        with self._database.write() as session:
            row = session.get_one(NotifyTarget, target.name)
            row.tries += 1
            wait = GONE_PAUSE if error.gone else pause(row.tries)
            row.due = now() + int(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads attempts, hides nothing
            row.lease_until = 0
            if error.gone:
                removed = session.execute(delete(Outbox).where(Outbox.target == target.name))
                row.dropped += int(getattr(removed, "rowcount", 0))
        log.warning("'%s' was not told (attempt %d, next in %d s): %s", target.name, row.tries, wait, error.message)


def _bound(session: Session, name: str, at: int) -> int:
    """Give up what is too old, or too much: the oldest. Returns how many."""
    mine = Outbox.target == name
    gone = session.scalar(select(func.count()).where(mine, Outbox.created < at - MAX_AGE)) or 0
    if gone:
        session.execute(delete(Outbox).where(mine, Outbox.created < at - MAX_AGE))
    edge = session.scalar(select(Outbox.id).where(mine).order_by(Outbox.id.desc()).offset(MAX_QUEUE).limit(1))
    if edge is not None:
        gone += session.scalar(select(func.count()).where(mine, Outbox.id <= edge)) or 0
        session.execute(delete(Outbox).where(mine, Outbox.id <= edge))
    if gone:
        log.error("%d messages to '%s' were given up: its queue is full, or they are a week old.", gone, name)
    return gone


def standing(session: Session) -> dict[str, dict[str, int]]:
    """For each target that was ever used: `queued`, `tries` since the last success, `due` (Unix seconds, 0: at once),
    `dropped`."""
    counts = dict(session.execute(select(Outbox.target, func.count()).group_by(Outbox.target)).tuples().all())
    found = {
        row.name: {"queued": 0, "tries": row.tries, "due": row.due, "dropped": row.dropped}
        for row in session.scalars(select(NotifyTarget))
    }
    for name, number in counts.items():
        found.setdefault(name, {"queued": 0, "tries": 0, "due": 0, "dropped": 0})["queued"] = number
    return found

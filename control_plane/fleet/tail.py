# SPDX-License-Identifier: Apache-2.0
"""Brings events from the table to the bus of this process, whoever wrote them: the watcher, the API, a command, another
process. What the bus carries is therefore what the table holds, with its ids."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from sqlalchemy import func, or_, select

from control_plane.fleet.bus import Bus, Event
from control_plane.fleet.events import event_json
from control_plane.storage.database import Database
from control_plane.storage.fleet_models import MachineEvent

EVERY = 1.0
BATCH = 500
# Ids are given before transactions end: for a while, an id that was passed over may still appear (PostgreSQL).
_LATE_SECONDS = 10
log = logging.getLogger("hawser.hub.events")


class Tail:
    """Reads what is behind the last id it saw, and ids before it that were missing."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database, self._bus = database, bus
        self._marks: deque[tuple[float, int]] = deque()
        self._missing: set[int] = set()
        self._last: int | None = None

    def _newest(self) -> int:
        with self._database.read() as session:
            return int(session.scalar(select(func.max(MachineEvent.id))) or 0)

    def _new(self, last: int) -> list[MachineEvent]:
        query = select(MachineEvent).where(
            or_(MachineEvent.id > last, MachineEvent.id.in_(sorted(self._missing)[-BATCH:]))
        )
        with self._database.read() as session:
            return list(session.scalars(query.order_by(MachineEvent.id).limit(BATCH)))

    async def run(self, told: asyncio.Event) -> None:
        """Ends when cancelled. `told`: set by who wrote events just now."""
        while True:
            try:
                if self._last is None:
                    self._last = await asyncio.to_thread(self._newest)
                more = True
                while more:
                    more = await self._step(self._last)
            except Exception:
                log.exception("Events could not be read; they are tried again.")
            try:
                async with asyncio.timeout(EVERY):
                    await told.wait()
            except TimeoutError:
                pass
            told.clear()

    async def _step(self, last: int) -> bool:
        rows = await asyncio.to_thread(self._new, last)
        for row in rows:
            self._bus.publish(Event(row.kind, row.resource_id, row.at, event_json(row)))
            self._missing.discard(row.id)
        newest = max([last, *(row.id for row in rows)])
        if newest - last <= 4 * BATCH:  # otherwise rows were removed, not late
            self._missing |= set(range(last + 1, newest)) - {row.id for row in rows}
        self._last = newest
        moment = asyncio.get_running_loop().time()
        self._marks.append((moment, newest))
        while self._marks[0][0] < moment - _LATE_SECONDS:
            passed = self._marks.popleft()[1]
            self._missing = {key for key in self._missing if key > passed}
        return len(rows) >= BATCH

# SPDX-License-Identifier: Apache-2.0
"""Turns heartbeats, and their absence, into events. One for each hub process, on its event loop.

It sleeps until the next deadline of any machine, a heartbeat that is news, or a few seconds have passed; the fleet is
read as a whole once, at the start. A deadline that passes is looked up in the newest heartbeats: mostly the machine was
heard since, and gets another one.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from control_plane.arm.status import CONNECTED
from control_plane.clock import now
from control_plane.fleet import watch_rows
from control_plane.fleet.transitions import ALIVE_EVERY, GAP, Beats, Heard, announced, deadline
from control_plane.fleet.watch_rows import CHUNK, Change, Watched
from control_plane.storage.database import Database
from control_plane.storage.machines import PulseOf
from control_plane.storage.pulse import Pulse

SAMPLE_SPAN = 300
SLACK = 2  # heartbeats of other processes reach the database within half a second
CONFLICT_PAUSE = 3600
log = logging.getLogger("hawser.hub.watcher")


class Watcher:
    """`targets`: names of notification targets and the words each is told of."""

    def __init__(self, database: Database, live: PulseOf, targets: Sequence[tuple[str, frozenset[str]]] = ()) -> None:
        self._database, self._live, self._targets = database, live, targets
        self._heard = Heard(0, 0)
        self._words: dict[int, str] = {}
        self._due: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        self._noted: set[int] = set()
        self._conflicts: dict[int, int] = {}
        self._newest_id = 0
        self._wake = asyncio.Event()
        self.told = asyncio.Event()
        """Set whenever events were written."""

    def beat(self, machine_id: int, old: Pulse | None, pulse: Pulse) -> None:
        """A heartbeat was taken. On the loop, and cheap: most are no news."""
        if self._words.get(machine_id) != CONNECTED or (old is not None and pulse.conflicts > old.conflicts):
            self._noted.add(machine_id)
            self._wake.set()

    async def run(self) -> None:
        """Ends when cancelled. A database that fails is tried again; nothing is lost by it, for what was not announced
        is still to be."""
        while True:
            try:
                await self._begin()
                while True:
                    await self._turn()
            except Exception:
                log.exception("Events could not be written; they are tried again.")
                await asyncio.sleep(ALIVE_EVERY)

    async def stop(self) -> None:
        """Note until when this process listened."""
        await asyncio.to_thread(self._say_alive, now())

    async def _begin(self) -> None:
        at = now()
        self._heard = await asyncio.to_thread(self._listen, at)
        self._heap, self._due = [], {}
        await self._look(None, at, quiet=True)

    def _listen(self, at: int) -> Heard:
        with self._database.write() as session:
            return watch_rows.begin(session, at)

    def _say_alive(self, at: int) -> None:
        with self._database.write() as session:
            watch_rows.alive(session, at)
            watch_rows.sample(session, at - at % SAMPLE_SPAN, SAMPLE_SPAN)

    def _overlooked(self, at: int) -> list[int]:
        with self._database.read() as session:
            return watch_rows.overlooked(session, at, self._newest_id)

    async def _turn(self) -> None:
        at = now()
        pause = max(
            0.2, min(ALIVE_EVERY - at % ALIVE_EVERY, self._heap[0][0] + SLACK - at if self._heap else ALIVE_EVERY)
        )
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
            await asyncio.sleep(0.05)  # a fleet that comes back is read in hundreds
        except TimeoutError:
            pass
        self._wake.clear()
        before, at = at, now()
        if at - before > GAP or at < before - GAP:  # the machine slept, or its clock was set: as after a start
            await self._begin()
            return
        ids, self._noted = self._noted, set()
        ids.update(self._passed(at - SLACK))
        if at // ALIVE_EVERY != before // ALIVE_EVERY:
            await asyncio.to_thread(self._say_alive, at)
            ids.update(await asyncio.to_thread(self._overlooked, at))
        try:
            if ids:
                await self._look(sorted(ids), at)
        except BaseException:
            self._noted |= ids
            raise

    def _passed(self, at: int) -> Iterable[int]:
        while self._heap and self._heap[0][0] <= at:
            due, machine_id = heapq.heappop(self._heap)
            if self._due.get(machine_id) == due:
                del self._due[machine_id]
                yield machine_id

    async def _look(self, ids: list[int] | None, at: int, *, quiet: bool = False) -> None:
        """Judge machines and announce what is news. `ids` None: all. `quiet`: those never announced before are noted
        without an event, as at the first start after an upgrade."""
        parts = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)] if ids is not None else [None]
        for part in parts:
            found = await asyncio.to_thread(self._read, part)
            if part is not None:
                for gone in set(part) - {item.machine_id for item in found}:
                    self._words.pop(gone, None)
                    self._due.pop(gone, None)
            changes = [change for item in found if (change := self._judge(item, at, quiet)) is not None]
            for start in range(0, len(changes), CHUNK):
                if await asyncio.to_thread(self._write, changes[start : start + CHUNK], at):
                    self.told.set()
            for item in found:
                self._follow(item, announced(item.beats, self._heard, at).word)

    def _read(self, ids: list[int] | None) -> list[Watched]:
        with self._database.read() as session:
            found = watch_rows.watched(session, ids)
        return [self._newest(item) for item in found]

    def _newest(self, item: Watched) -> Watched:
        pulse = self._live(item.machine_id)
        if pulse is None or (item.beats.seen is not None and item.beats.seen > pulse.seen):
            return item
        beats = Beats(pulse.seen, pulse.connected_since, item.beats.created)
        return replace(item, beats=beats, conflicts=max(item.conflicts, pulse.conflicts))

    def _judge(self, item: Watched, at: int, quiet: bool) -> Change | None:
        status = announced(item.beats, self._heard, at)
        conflicts = None
        if item.conflicts > item.known_conflicts and self._conflicts.get(item.machine_id, 0) <= at - CONFLICT_PAUSE:
            self._conflicts[item.machine_id] = at
            conflicts = item.conflicts
        if item.known is not None and item.known.word == status.word and conflicts is None:
            return None
        if item.known is not None and item.known.word == status.word:
            status = item.known
        return Change(item, status, conflicts, quiet=quiet and item.known is None)

    def _write(self, changes: list[Change], at: int) -> int:
        with self._database.write() as session:
            return watch_rows.announce(session, changes, self._targets, at)

    def _follow(self, item: Watched, word: str) -> None:
        self._words[item.machine_id] = word
        self._newest_id = max(self._newest_id, item.machine_id)
        due = deadline(item.beats, self._heard, word)
        if due is None:
            self._due.pop(item.machine_id, None)
        elif self._due.get(item.machine_id) != due:
            self._due[item.machine_id] = due
            heapq.heappush(self._heap, (due, item.machine_id))
        if len(self._heap) > 2 * len(self._due) + 1000:
            self._heap = [(due, machine_id) for machine_id, due in self._due.items()]
            heapq.heapify(self._heap)

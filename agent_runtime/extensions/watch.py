# SPDX-License-Identifier: Apache-2.0
"""Looks at the status and heartbeat files of enabled extensions: soon after enable, then ever more rarely.

The result often comes long after enable has returned, and monitoring extensions write theirs for ever
(extension-handler.md section 15).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Optional

from agent_runtime.extensions import heartbeat, plan, status
from agent_runtime.extensions.layout import Layout
from agent_runtime.extensions.timing import Timing
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Event, Loop, sleep
from agent_runtime.state import atomic


class Place(NamedTuple):
    """One file that is looked at; `ident` None: the heartbeat of the handler."""

    key: str
    ident: Optional[str]
    path: str


class _Entry:
    def __init__(self, at: float, pause: float) -> None:
        self.at = at
        self.pause = pause
        self.signature: Optional[tuple[int, ...]] = None
        self.works = True


class Watch:
    """`judged(key, ident, verdict)` and `heard(key, health)` are told what was found, `lost(key, ident)` at each look
    that a status file is still missing."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        layout: Layout,
        timing: Timing,
        judged: Callable[[str, str, status.Verdict], None],
        heard: Callable[[str, heartbeat.Health], None],
        lost: Callable[[str, str], object],
    ) -> None:
        self._loop = loop
        self._log = log
        self._layout = layout
        self._timing = timing
        self._judged = judged
        self._heard = heard
        self._lost = lost
        self._bell = Event()
        self._entries: dict[Place, _Entry] = {}
        # The handler that is being worked on: its commands write over its results.
        self.busy = ""

    def follow(self, records: Mapping[str, plan.Record]) -> None:
        """From now on these are looked at, and nothing else."""
        wanted = {place for key, record in records.items() for place in self._places(key, record)}
        now = time.monotonic()
        for place in wanted - set(self._entries):
            self._entries[place] = _Entry(now + self._timing.status_first, self._timing.status_first)
        for place in set(self._entries) - wanted:
            del self._entries[place]
        self._bell.set()

    def _places(self, key: str, record: plan.Record) -> list[Place]:
        if record["state"] != plan.ENABLED:
            return []
        handler, version = f"{record['publisher']}.{record['type']}", record["version"]
        made = []
        for ident, known in record["extensions"].items():
            name = known["name"] if record["multi"] else None
            if known["enabled"]:
                made.append(Place(key, ident, self._layout.status(handler, version, known["sequence"], name)))
        if record["heartbeat"]:
            made.append(Place(key, None, os.path.join(self._layout.folder(handler, version), heartbeat.FILE)))
        return made

    async def first(self, key: str, ident: str) -> None:
        """Looks at one extension now, whose enable has just returned."""
        for place, entry in list(self._entries.items()):
            if (place.key, place.ident) == (key, ident):
                entry.signature = None
                entry.at = time.monotonic() + self._timing.status_first
                entry.pause = self._timing.status_first
                await self._look(place, entry, is_first=True)

    def refresh(self, key: str, ident: str) -> None:
        """Has one extension looked at again at once, as if its file had changed."""
        for place, entry in self._entries.items():
            if (place.key, place.ident) == (key, ident):
                entry.signature, entry.at = None, time.monotonic()
        self._bell.set()

    async def run(self) -> None:
        """Looks at what is due, for ever."""
        while True:
            now = time.monotonic()
            due = min((entry.at for entry in self._entries.values()), default=None)
            timer = None if due is None else self._loop.later(max(0.0, due - now), self._bell.set)
            await self._bell.wait()
            self._bell.clear()
            if timer is not None:
                timer.cancel()
            for place, entry in list(self._entries.items()):
                if entry.at <= time.monotonic() and self._entries.get(place) is entry:
                    entry.at = time.monotonic() + entry.pause
                    if place.key != self.busy:
                        await self._look(place, entry)

    async def _look(self, place: Place, entry: _Entry, is_first: bool = False) -> None:
        try:
            await self._look_at(place, entry, is_first)
        except Exception as problem:  # noqa: BLE001 - what one handler writes must not keep us from all the others
            entry.at = time.monotonic() + self._timing.failure
            self._log.error(f"looking at {place.path} failed: {type(problem).__name__}: {problem}")

    async def _look_at(self, place: Place, entry: _Entry, is_first: bool) -> None:
        if place.ident is None:
            entry.at = time.monotonic() + self._timing.heartbeat
            has_changed, signature = self._has_changed(place.path, entry)
            # The first look knows of no former one.
            is_new, entry.signature = has_changed and entry.signature is not None, signature
            found = self._beat(place.path, is_new)
            if found is not None:
                self._heard(place.key, found)
            return
        is_new, signature = self._has_changed(place.path, entry)
        if is_new:
            verdict = await self._read(place.path)
            if self._entries.get(place) is not entry or (self.busy == place.key and not is_first):
                return  # while it was read again, the extension has gone, or another command has begun
            entry.signature = signature
            # What moves is followed closely again.
            entry.pause = self._timing.status_first
            entry.works = verdict.state == "transitioning"
            self._judged(place.key, place.ident, verdict)
        elif not signature:
            self._lost(place.key, place.ident)
        entry.at = time.monotonic() + entry.pause
        longest = self._timing.status_works if entry.works else self._timing.status_most
        entry.pause = min(entry.pause * 2, longest)

    def _has_changed(self, path: str, entry: _Entry) -> tuple[bool, tuple[int, ...]]:
        try:
            known = os.stat(path)
            signature: tuple[int, ...] = (known.st_ino, known.st_size, known.st_mtime_ns)
        except OSError:
            signature = ()
        return signature != entry.signature, signature

    async def _read(self, path: str) -> status.Verdict:
        """The verdict over a file that may just be written."""
        verdict = status.MISSING
        for number in range(self._timing.status_tries):
            if number:
                await sleep(self._timing.status_pause)
            try:
                return status.verdict(atomic.read_bytes(path, status.READ_LIMIT))
            except FileNotFoundError:
                verdict = status.MISSING
                break
            except status.NotYet as problem:
                verdict = status.bad(str(problem))
            except (OSError, ValueError) as problem:
                verdict = status.unreadable(str(problem))
        return verdict

    def _beat(self, path: str, is_new: bool) -> Optional[heartbeat.Health]:
        try:
            age = time.time() - os.stat(path).st_mtime
            return heartbeat.health(atomic.read_bytes(path, 65536), age, is_new)
        except FileNotFoundError:
            return heartbeat.health(None, 0.0)
        except (OSError, ValueError):
            return heartbeat.health(b"", 0.0)

# SPDX-License-Identifier: Apache-2.0
"""What gcad and extd tell himds (docs/protocol.md sections 8 and 10): sent on a connection, kept until himds has it.

What himds answers with an error, for want of room to keep it, is sent again while it is the newest of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from agent_runtime.service import ipc
from agent_runtime.service.desired_store import STATE, TRUST, Store
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop, Timer

# Seconds until what himds could not take is sent again. What it will never take costs a frame in ten minutes.
AGAIN_FIRST, AGAIN_MOST = 30.0, 600.0


class Teller:
    """Reports of one service; its verdicts are of `report_kind`."""

    def __init__(self, loop: Loop, log: Log, store: Store, report_kind: str) -> None:
        self._loop = loop
        self._log = log
        self._store = store
        self._report_kind = report_kind
        self._stream: Optional[ipc.Stream] = None
        self._number = 0
        self._sent: dict[int, tuple[str, dict[str, Any]]] = {}
        self._pause = AGAIN_FIRST
        self._timer: Optional[Timer] = None

    def linked(self, stream: Optional[ipc.Stream]) -> None:
        """From now on this is the connection; None: there is none."""
        self._stream = stream
        self._sent.clear()
        self._pause = AGAIN_FIRST

    def number(self) -> int:
        """The number of the next frame of this connection."""
        self._number += 1
        return self._number

    def keep(self, kind: str, data: dict[str, Any]) -> None:
        """Keeps a report until himds has it; without room on the disk as long as the process lives."""
        try:
            self._store.keep_report(kind, data)
        except OSError as problem:
            self._log.error(f"a report is kept in memory alone: {problem.strerror or problem}")

    async def send(self, kind: str, data: dict[str, Any]) -> None:
        """Sends a report that is kept; without a connection the next one does."""
        if self._stream is None:
            return
        number = self.number()
        self._sent[number] = (kind, data)
        own = TRUST if kind == TRUST else self._report_kind
        arguments = {"kind": kind[len(STATE) :] if kind.startswith(STATE) else own, "data": data}
        try:
            await self._stream.send({"v": 1, "id": number, "verb": "report", "args": arguments})
        except OSError:
            return

    async def send_kept(self) -> None:
        """Sends all that himds does not have, and has not been sent."""
        for kind, data in self._store.reports():
            if all(kind != other for other, _ in self._sent.values()):
                await self.send(kind, data)

    def answered(self, frame: Mapping[str, Any]) -> None:
        """A frame that may be the answer to a report."""
        number = frame.get("id")
        if not isinstance(number, int) or number not in self._sent:
            return
        kind, data = self._sent.pop(number)
        try:
            if frame.get("ok") is True:
                self._pause = AGAIN_FIRST
                self._store.report_sent(kind, data)
                return
        except OSError as problem:
            self._log.error(f"a report that himds has cannot be removed: {problem.strerror or problem}")
            return
        if self._timer is None:
            told = frame.get("error")
            why = str(told.get("message"))[:200] if isinstance(told, dict) else "no reason"
            self._log.warning(f"himds did not take a report, sending it again later: {why}")
            self._timer = self._loop.later(self._pause, self._again)
            self._pause = min(self._pause * 2, AGAIN_MOST)

    def _again(self) -> None:
        self._timer = None
        self._loop.spawn(self._send_again(), "reports")

    async def _send_again(self) -> None:
        try:
            await self.send_kept()
        except OSError as problem:  # the next report of a kind, or the next connection, comes by here again
            self._log.error(f"reports that are kept cannot be read: {problem.strerror or problem}")

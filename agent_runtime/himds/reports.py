# SPDX-License-Identifier: Apache-2.0
"""Reports on their way to the hub: stored, sent when there is an identity to send them with, removed when the hub has
them (docs/protocol.md section 8)."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

from agent_runtime import errors
from agent_runtime.himds.identity import Known
from agent_runtime.hub import backoff
from agent_runtime.hub.client import Hub, HubRefusal
from agent_runtime.identity import evidence
from agent_runtime.service.loop import Event, Loop, Timeout, TimeoutExpired
from agent_runtime.state.outbox import REPORTS, Outbox


class Reports:
    """`hub` gives the client of the hub, None while there is none."""

    def __init__(self, loop: Loop, known: Known, hub: Callable[[], Hub | None]) -> None:
        self._loop = loop
        self._known = known
        self._hub = hub
        self._outbox = Outbox(known.paths.outbox)
        self._waiting = Event()
        self._answers = Event()
        self._failures = 0
        self._reported: dict[str, str] = {}

    def put(self, kind: str, data: dict[str, Any]) -> str:
        """Store a report and have it sent; its id. Errors: OSError."""
        number = self._outbox.put(kind, data)
        self.flush()
        return number

    def changed(self, kind: str, data: dict[str, Any]) -> None:
        """Report what differs from the last report of this kind since the start."""
        text = json.dumps(data, sort_keys=True)
        if self._known.state not in ("connecting", "connected") or self._reported.get(kind) == text:
            return
        try:
            self.put(kind, data)
        except OSError as error:
            self._known.log.warning(f"a report cannot be stored: {error.strerror}")
            return
        self._reported[kind] = text

    def forget(self) -> None:
        """The identity changes: the next one's hub knows nothing yet."""
        self._reported.clear()

    def flush(self) -> None:
        """Send what waits."""
        self._waiting.set()

    def answers_again(self) -> None:
        """The hub has taken a heartbeat after it was away: nothing waits any longer because it was."""
        self._failures = 0
        self._answers.set()
        self.flush()

    async def send(self) -> None:
        """Send what waits, whenever there is something and an identity to send it with."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            hub = self._hub()
            if self._known.state != "connected" or hub is None:
                continue
            try:
                await self._all(hub)
                self._failures = 0
            except (HubRefusal, errors.AgentError, OSError, ValueError) as problem:
                self._failures += 1
                self._known.log.warning(f"reports wait: {getattr(problem, 'message', problem)}")
                self._answers.clear()
                pause = max(5.0, backoff.delay(self._failures, random.random()))
                with contextlib.suppress(TimeoutExpired), Timeout(self._loop, pause):
                    await self._answers.wait()
                if self._failures < 5:
                    self._waiting.set()

    async def _all(self, hub: Hub) -> None:
        limit = REPORTS
        while self._known.state == "connected":
            batch = self._outbox.batch(limit)
            if not batch:
                return
            try:
                answer = await hub.call(self._known.credential(), "report", {"reports": batch})
            except HubRefusal as refusal:
                if refusal.status not in (400, 413):
                    raise
                limit = 1
                if len(batch) == 1:
                    # The hub will never take it, and those behind it must not wait for ever.
                    self._known.log.error(f"the hub refused a report of kind {batch[0]['kind']}: {refusal.message}")
                    self._outbox.acknowledge([str(batch[0]["id"])])
                continue
            accepted = {str(number) for number in answer.get("accepted", [])}
            for report in batch:
                if report["kind"] == "evidence" and report["id"] in accepted:
                    self._known.keep_evidence(evidence.valid(report["data"]["items"]))
            self._outbox.acknowledge(list(accepted))
            if not accepted:
                raise errors.InternalError("the hub acknowledged none of the reports")

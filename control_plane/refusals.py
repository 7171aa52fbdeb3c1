# SPDX-License-Identifier: Apache-2.0
"""Refusals that anybody who reaches the hub can bring about. The audit keeps its rows for ever: these may not fill it.

Each is a line in the log and counts in `hawser_refusals_total`. The audit has a row of those alone that were about
something of this hub (a token that was made here, a user, a machine), and of these one in a minute for the same action,
target and code. Counted in the memory of one process.
"""

from __future__ import annotations

import logging
from typing import Any

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from control_plane.metrics import Metrics
from control_plane.storage import audit
from control_plane.storage.database import Database

_ONE = RateLimitItemPerMinute(1)
log = logging.getLogger("hawser.hub")


class Refusals:
    """Safe to use from several threads."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database, self._metrics = database, metrics
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def first(self, action: str, target: str, code: str = "") -> bool:
        """Whether there was no such one within the last minute."""
        return self._limiter.hit(_ONE, action, target, code)

    def note(self, action: str, code: str, peer: str) -> None:
        """Somebody was refused who has proved nothing: a line in the log and a count."""
        self._metrics.refused(action, code)
        log.info("%s was refused: %s", action, code, extra={"action": action, "code": code, "peer": peer})

    def audit(self, actor: audit.Actor, action: str, target: str, code: str, peer: str, **detail: Any) -> None:
        """The same, and a row of the audit unless there was one within the last minute."""
        self.note(action, code, peer)
        if self.first(action, target, code):
            with self._database.write() as session:
                told = {**detail, "from": peer}
                audit.record(session, actor, action, target, outcome="Refused", code=code, detail=told)

# SPDX-License-Identifier: Apache-2.0
"""How much one caller may ask of the hub: requests a minute, and how many are worked on at once.

Counted in the memory of one process, for each principal or user and for each client id at the token endpoint. A
controller that rolls out to 10,000 hosts stays far below. Machines on their channel are not counted: they wait for
one answer at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from control_plane.errors import ApiError

REQUESTS_PER_MINUTE = 12_000
TOKENS_PER_MINUTE = 1_200
AT_ONCE = 10
"""Requests of ARM and `/hawser/v1` worked on at once: fewer than there are connections to the database, so that
machines always find one."""


class Limits:
    """`config`: the section `limits` as it is now. Safe to use from several threads, but for `room`."""

    def __init__(self, config: Callable[[], Mapping[str, Any]]) -> None:
        self._config = config
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._room: anyio.CapacityLimiter | None = None

    @property
    def room(self) -> anyio.CapacityLimiter:
        """For the threads of ARM and `/hawser/v1`. On the loop."""
        if self._room is None:
            self._room = anyio.CapacityLimiter(AT_ONCE)
        return self._room

    def request(self, caller: str) -> None:
        """Count a request of an authenticated caller.

        Errors: ApiError 429 `TooManyRequests` with `Retry-After`.
        """
        self._count("request", caller, self._config().get("requests_per_minute", REQUESTS_PER_MINUTE))

    def token(self, client: str) -> None:
        """Count a request for a token. Errors: ApiError 429."""
        self._count("token", client, self._config().get("tokens_per_minute", TOKENS_PER_MINUTE))

    def _count(self, what: str, who: str, per_minute: int) -> None:
        item = RateLimitItemPerMinute(per_minute)
        key = (what, who.lower()[:128])
        if self._limiter.hit(item, *key):
            return
        seconds = max(1, int(self._limiter.get_window_stats(item, *key).reset_time - time.time()) + 1)
        raise ApiError(
            429,
            "TooManyRequests",
            f"More than {per_minute} requests in a minute; try again in {seconds} seconds.",
            headers={"Retry-After": str(seconds)},
        )

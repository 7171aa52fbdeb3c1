# SPDX-License-Identifier: Apache-2.0
"""How often signing in may fail: for one name from one address, for one name from anywhere, for one address.

Counted in the memory of one hub process. Only failures count, so that nobody is locked out by working.
"""

from __future__ import annotations

import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from control_plane.errors import ApiError

NAME_AND_PEER = RateLimitItemPerMinute(5, 5)
NAME = RateLimitItemPerMinute(50, 60)
PEER = RateLimitItemPerMinute(60, 5)


class Throttle:
    """Counts failures. Safe to use from several threads."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def _windows(self, name: str, peer: str) -> tuple[tuple[RateLimitItem, tuple[str, ...]], ...]:
        name = name.lower()[:128]
        return ((NAME_AND_PEER, ("both", name, peer)), (NAME, ("name", name)), (PEER, ("peer", peer)))

    def check(self, name: str, peer: str) -> None:
        """Errors: ApiError 429 `TooManyRequests` with `Retry-After` while there were too many failures."""
        for item, key in self._windows(name, peer):
            if not self._limiter.test(item, *key):
                seconds = max(1, int(self._limiter.get_window_stats(item, *key).reset_time - time.time()) + 1)
                raise ApiError(
                    429,
                    "TooManyRequests",
                    "Signing in failed too often; wait some minutes and try again.",
                    headers={"Retry-After": str(seconds)},
                )

    def failed(self, name: str, peer: str) -> None:
        """Count a failure."""
        for item, key in self._windows(name, peer):
            self._limiter.hit(item, *key)

# SPDX-License-Identifier: Apache-2.0
"""How often signing in may fail: for one name from one address, for one name from anywhere, for one address.

Counted in the memory of one hub process. Only failures count, so that nobody is locked out by working; but an attempt
has its place among them from its beginning, so that many at once may not fail more often than one after the other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from control_plane.addresses import counted
from control_plane.errors import ApiError

NAME_AND_PEER = RateLimitItemPerMinute(5, 5)
NAME = RateLimitItemPerMinute(50, 60)
PEER = RateLimitItemPerMinute(60, 5)


@dataclass
class Attempt:
    """A sign-in that is being checked. `failed`: to be set when it was wrong."""

    failed: bool = False


class Throttle:
    """Counts failures. Safe to use from several threads."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._under_way: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def _windows(self, name: str, peer: str) -> tuple[tuple[RateLimitItem, tuple[str, ...]], ...]:
        name, peer = name.lower()[:128], counted(peer)
        return ((NAME_AND_PEER, ("both", name, peer)), (NAME, ("name", name)), (PEER, ("peer", peer)))

    @contextlib.contextmanager
    def attempt(self, name: str, peer: str) -> Iterator[Attempt]:
        """Around the check of a password.

        Errors: ApiError 429 `TooManyRequests` with `Retry-After` while there were too many failures.
        """
        windows, attempt = self._windows(name, peer), Attempt()
        with self._lock:
            for item, key in windows:
                self._check(item, key)
            self._under_way.update(key for _, key in windows)
        try:
            yield attempt
        finally:
            with self._lock:
                self._under_way -= Counter(key for _, key in windows)
                if attempt.failed:
                    for item, key in windows:
                        self._limiter.hit(item, *key)

    def _check(self, item: RateLimitItem, key: tuple[str, ...]) -> None:
        now = self._limiter.get_window_stats(item, *key)
        if now.remaining > self._under_way[key]:
            return
        # Where those under way alone take the places that are left, they are known in a moment.
        seconds = 1 if now.remaining else max(1, int(now.reset_time - time.time()) + 1)
        raise ApiError(
            429,
            "TooManyRequests",
            "Signing in failed too often; wait some minutes and try again.",
            headers={"Retry-After": str(seconds)},
        )

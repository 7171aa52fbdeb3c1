# SPDX-License-Identifier: Apache-2.0
"""How much one caller may ask of the hub: requests a minute, and how many are worked on at once.

Counted in the memory of one process: requests for each principal or user, tokens for each client id that has proved
itself. Proofs that fail count for the client id and the address that they come from together, so that nobody is kept
out by those who know no more than his client id. A controller that rolls out to 10,000 hosts stays far below. Machines
on their channel are not counted: they wait for one answer at a time.

The threads of machines are those of nobody else (threads.py): each other kind of request has some of its own here, and
all of them together are fewer than there are connections to the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import anyio
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from control_plane import threads
from control_plane.addresses import counted
from control_plane.errors import ApiError

REQUESTS_PER_MINUTE = 12_000
TOKENS_PER_MINUTE = 1_200
AT_ONCE = 10
"""Requests of ARM and `/hawser/v1` worked on at once."""
PAGES_AT_ONCE = 4
HEALTH_AT_ONCE = 2
SIGN_INS_AT_ONCE, SIGN_INS_WAITING = 2, 8
"""Each check of a password holds 64 MiB and a core for a tenth of a second: a crowd at the door must take neither the
machine's memory nor its cores, and who would wait long is told so at once."""

Result = TypeVar("Result")


class Limits:
    """`config`: the section `limits` as it is now. Safe to use from several threads, but for what is on the loop."""

    def __init__(self, config: Callable[[], Mapping[str, Any]]) -> None:
        self._config = config
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._at_door = 0

    @cached_property
    def room(self) -> anyio.CapacityLimiter:
        """For the threads of ARM and `/hawser/v1`. On the loop."""
        return anyio.CapacityLimiter(AT_ONCE)

    @cached_property
    def pages(self) -> anyio.CapacityLimiter:
        """For the threads of pages. On the loop."""
        return anyio.CapacityLimiter(PAGES_AT_ONCE)

    @cached_property
    def health(self) -> anyio.CapacityLimiter:
        """For the threads of what watches the hub. On the loop."""
        return anyio.CapacityLimiter(HEALTH_AT_ONCE)

    @cached_property
    def _door(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(SIGN_INS_AT_ONCE)

    async def sign_in(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, which checks a password; in a thread, when its turn comes.

        Errors: ApiError 503 at once when too many wait already.
        """
        if self._at_door >= SIGN_INS_AT_ONCE + SIGN_INS_WAITING:
            raise ApiError(
                503, "ServiceUnavailable", "Too many people sign in at once; try again.", headers={"Retry-After": "5"}
            )
        self._at_door += 1
        try:
            return await threads.run(work, limiter=self._door)
        finally:
            self._at_door -= 1

    def request(self, caller: str) -> None:
        """Count a request of an authenticated caller.

        Errors: ApiError 429 `TooManyRequests` with `Retry-After`.
        """
        self._count("request", caller, self._config().get("requests_per_minute", REQUESTS_PER_MINUTE))

    def token(self, client: str) -> None:
        """Count a token for a client that has proved who it is. Errors: ApiError 429."""
        self._count("token", client, self._tokens_per_minute)

    def token_attempt(self, client: str, peer: str) -> None:
        """Before a proof is looked at. Errors: ApiError 429 while too many failed for this client from this address."""
        item, key = RateLimitItemPerMinute(self._tokens_per_minute), _failure(client, peer)
        if not self._limiter.test(item, *key):
            raise self._too_many(item, key)

    def token_failed(self, client: str, peer: str) -> None:
        """Count a proof that failed."""
        self._limiter.hit(RateLimitItemPerMinute(self._tokens_per_minute), *_failure(client, peer))

    @property
    def _tokens_per_minute(self) -> int:
        return int(self._config().get("tokens_per_minute", TOKENS_PER_MINUTE))

    def _count(self, what: str, who: str, per_minute: int) -> None:
        item, key = RateLimitItemPerMinute(per_minute), (what, who.lower()[:128])
        if not self._limiter.hit(item, *key):
            raise self._too_many(item, key)

    def _too_many(self, item: RateLimitItem, key: tuple[str, ...]) -> ApiError:
        seconds = max(1, int(self._limiter.get_window_stats(item, *key).reset_time - time.time()) + 1)
        return ApiError(
            429,
            "TooManyRequests",
            f"More than {item.amount} requests in a minute; try again in {seconds} seconds.",
            headers={"Retry-After": str(seconds)},
        )


def _failure(client: str, peer: str) -> tuple[str, str, str]:
    return "failure", client.lower()[:128], counted(peer)

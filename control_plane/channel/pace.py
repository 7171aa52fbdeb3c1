# SPDX-License-Identifier: Apache-2.0
"""How many machines without a name of their own are heard at once: `identity` and `join` (docs/protocol.md section 13).

The capacity is measured: the processor time that this process spends for each of them while they come, with all that
follows (the record, the certificate, the first heartbeat) and all else that it has to do. They may bring it up to a
share of one core, no further, so a busy hub hears fewer. Whoever comes beyond is told when to come again: the herd is
spread over the time that it takes to hear all of it, so that 10,000 copies that wake together come back one after the
other and nobody gets a failure.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from control_plane.addresses import counted
from control_plane.errors import ApiError

SHARE = 0.5
"""Of one core, which is what one process of the hub has for its Python."""
PART = 0.7
"""Of SHARE, for one address and for one machine."""
FIRST_COST = 0.03
"""Seconds; an adoption with all that follows takes about that long."""
LOWEST, HIGHEST = 5.0, 500.0
BURST_SECONDS = 1.0
WINDOW_SECONDS, WINDOW_COUNT, IDLE_SECONDS = 1.0, 3, 5.0
"""A measurement spans at least that long and that many; where nobody comes for IDLE_SECONDS it begins anew."""
LONGEST = 3600
"""Seconds that agents obey (docs/protocol.md section 13)."""
_SMOOTH = 0.3
_KEPT = 10_000


@dataclass(frozen=True)
class Pace:
    """`tokens`: how many may be heard at once; `at`: seconds, when that was so; `due`: until when the herd that was
    sent away is expected back."""

    tokens: float
    at: float
    due: float


def rate(cost: float) -> float:
    """Requests a second, for `cost` seconds of processor time each. Pure."""
    return min(HIGHEST, max(LOWEST, SHARE / max(cost, 1e-6)))


def admit(pace: Pace | None, per_second: float, at: float) -> tuple[Pace, int | None]:
    """The pace after one more request, and None when it is heard, else the seconds after which to come again. Pure.

    The size of the herd is in `due`: everybody who is sent away comes 1 / per_second after the one before.
    """
    burst = per_second * BURST_SECONDS
    if pace is None:
        pace = Pace(burst, at, at)
    tokens = min(burst, pace.tokens + max(0.0, at - pace.at) * per_second)
    if tokens >= 1:
        return replace(pace, tokens=tokens - 1, at=max(at, pace.at)), None
    due = min(max(pace.due, at + 1) + 1 / per_second, at + LONGEST)
    return Pace(tokens, max(at, pace.at), due), max(1, min(LONGEST, round(due - at)))


def too_many(seconds: int) -> ApiError:
    """429; says nothing about any identity."""
    return ApiError(
        429,
        "TooManyRequests",
        f"Many machines ask at once; come again in {seconds} seconds.",
        headers={"Retry-After": str(seconds)},
    )


@dataclass(frozen=True)
class Meter:
    """What one costs. `cost`: seconds of processor time; since `at`, when the process had used `used`, `count` have
    been heard."""

    cost: float
    at: float
    used: float
    count: int = 0


def measure(meter: Meter, at: float, used: float) -> Meter:
    """The meter when one more is heard at `at`, the process having used `used` seconds so far. Pure."""
    begun, passed = Meter(meter.cost, at, used, 1), at - meter.at
    if not meter.count or passed > IDLE_SECONDS:
        return begun
    if meter.count < WINDOW_COUNT or passed < WINDOW_SECONDS:
        return replace(meter, count=meter.count + 1)
    return replace(begun, cost=meter.cost + _SMOOTH * ((used - meter.used) / meter.count - meter.cost))


class Gate:
    """The paces of one process: of all, and a part of it for one address and for one machine, so that neither a flood
    nor the copies of one machine keep the others out: `address` is asked first, then `machine`, and `everybody` last,
    of those alone who have shown a token or an identity. Safe to use from several threads."""

    def __init__(self) -> None:
        self._meter = Meter(FIRST_COST, time.monotonic(), time.process_time())
        self._paces: OrderedDict[tuple[str, str], Pace] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def per_second(self) -> float:
        """What this process hears now."""
        return rate(self._meter.cost)

    def heard(self) -> None:
        """One was let through and is heard now: part of what is measured."""
        with self._lock:
            self._meter = measure(self._meter, time.monotonic(), time.process_time())

    def everybody(self) -> None:
        """Errors: ApiError 429."""
        self._pass(("all", ""), 1.0)

    def address(self, peer: str) -> None:
        """Errors: ApiError 429."""
        self._pass(("address", counted(peer)), PART)

    def machine(self, client_id: str) -> None:
        """Errors: ApiError 429."""
        self._pass(("machine", client_id), PART)

    def _pass(self, key: tuple[str, str], share: float) -> None:
        with self._lock:
            pace, wait = admit(self._paces.get(key), self.per_second * share, time.monotonic())
            self._paces[key] = pace
            self._paces.move_to_end(key)
            while len(self._paces) > _KEPT:
                self._paces.popitem(last=False)
        if wait is not None:
            # Drawn around the turn, so that those who were sent away in one instant do not return in one.
            raise too_many(max(1, min(LONGEST, round(wait * random.uniform(0.9, 1.1)))))  # noqa: S311

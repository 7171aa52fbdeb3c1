# SPDX-License-Identifier: Apache-2.0
"""How long to wait after a failure, and how long to let the hub hold a check-in (docs/protocol.md sections 6 and
13). Pure."""

from __future__ import annotations

FIRST = 1.0
LAST = 300.0
RETRY_AFTER_LIMIT = 3600.0
HOLD_LAST = 300
HOLD_FIRST = 50


def delay(
    failures: int, chance: float, retry_after: float | None = None, *, first: float = FIRST, last: float = LAST
) -> float:
    """Seconds to wait after `failures` failures in a row (from 1): full jitter, `first` doubled up to `last`. `chance`
    is in [0, 1).

    Retry-After is a floor, spread by a tenth so that a fleet does not return at once.
    """
    ceiling: float = min(last, first * 2.0 ** min(failures - 1, 16))
    wait = chance * ceiling
    if retry_after is not None:
        floor = min(max(retry_after, 0.0), RETRY_AFTER_LIMIT)
        return max(floor * (1 + chance / 10), wait)
    return wait


def next_hold(hold: int, cut_short: int, full: bool) -> tuple[int, int]:
    """The next hold in seconds and the count of early ends, after a hold that was `full` (answered) or lost."""
    if full:
        return min(HOLD_LAST, hold + hold // 2), 0
    if cut_short + 1 >= 2:
        return max(HOLD_FIRST, hold // 2), 0
    return hold, cut_short + 1

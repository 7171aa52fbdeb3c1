# SPDX-License-Identifier: Apache-2.0
"""Whether a machine's agent is still supported: versions of the last year are (docs/protocol.md section 8a). Pure.

A version carries no day. The agent reports the day of its release beside its version in the inventory, a constant of
the build and not a reading of its clock; it is judged by the hub's clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

SUPPORTED, ENDED, UNKNOWN = "supported", "ended", "unknown"
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ONE_DAY = timedelta(days=1)


def _day(text: object) -> date | None:
    if not isinstance(text, str) or not _DAY.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _a_year_later(day: date) -> date | None:
    if day.year == date.max.year:
        return None
    return day.replace(year=day.year + 1, day=28 if (day.month, day.day) == (2, 29) else day.day)


def _begin(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def window(released: object, at: float) -> dict[str, str | None]:
    """`{"state", "released", "until"}` of a version released on a day (`YYYY-MM-DD`, UTC), judged at `at` (Unix
    seconds). `state`: `supported` up to the end of the day `until`, then `ended`; `unknown` when there is no such day,
    or it lies more than a day ahead: then the hub's clock is wrong, or the day is."""
    day = _day(released)
    last = _a_year_later(day) if day else None
    if day is None or last is None:
        return {"state": UNKNOWN, "released": None, "until": None}
    if _begin(day) > at + _ONE_DAY.total_seconds():
        state = UNKNOWN
    else:
        state = SUPPORTED if at < _begin(last) + _ONE_DAY.total_seconds() else ENDED
    return {"state": state, "released": day.isoformat(), "until": last.isoformat()}


def of_machine(version: str | None, inventory: Mapping[str, Any], at: float) -> dict[str, str | None]:
    """`window` of the version that a machine runs, from its last inventory. After an upgrade the check-in tells the new
    version before the inventory does: the day of another version says nothing."""
    known = version is not None and inventory.get("agentVersion") == version
    return window(inventory.get("agentReleased") if known else None, at)

# SPDX-License-Identifier: Apache-2.0
"""Whether a version of the agent is still supported: those of the last year are (docs/protocol.md section 8a). Pure.

The hub has its own reading of the same rule; tests/vectors/support.json holds for both."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, NamedTuple

from agent_runtime.version import RELEASED

SUPPORTED, ENDED, UNKNOWN = "supported", "ended", "unknown"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DAY = 86400


class Support(NamedTuple):
    """`state`: supported, ended or unknown; `released` and `until`: days `YYYY-MM-DD`, empty when unknown. The version
    is supported up to the end of `until` (UTC)."""

    state: str
    released: str
    until: str


def window(released: str, now: float) -> Support:
    """Support of a version released on a day, judged at `now` (Unix seconds).

    Unknown when `released` is no day, or lies more than a day after `now`: then the clock is wrong, or the day is.
    """
    try:
        day = dt.date.fromisoformat(released) if _DATE.fullmatch(released) else None
        if day is None:
            return Support(UNKNOWN, "", "")
        last = day.replace(year=day.year + 1, day=28 if (day.month, day.day) == (2, 29) else day.day)
    except ValueError:
        return Support(UNKNOWN, "", "")
    if _midnight(day) > now + _DAY:
        return Support(UNKNOWN, released, last.isoformat())
    return Support(SUPPORTED if now < _midnight(last) + _DAY else ENDED, released, last.isoformat())


def status(now: float) -> dict[str, Any]:
    """What `show` says of this version: members of the `status` verb (docs/protocol.md section 12)."""
    found = window(RELEASED, now)
    return {"agentReleased": found.released, "agentSupportedUntil": found.until, "agentSupport": found.state}


def _midnight(day: dt.date) -> int:
    return (day.toordinal() - dt.date(1970, 1, 1).toordinal()) * _DAY

# SPDX-License-Identifier: Apache-2.0
"""Time as the hub stores it (Unix seconds, integer) and writes it (RFC 3339, UTC, `Z`)."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> int:
    """Unix seconds."""
    return int(time.time())


def rfc3339(seconds: float) -> str:
    """`2026-11-23T10:00:00Z`; fractions are dropped."""
    return datetime.fromtimestamp(int(seconds), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> int | None:
    """Unix seconds of an RFC 3339 time, or None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    try:
        return int(moment.timestamp())
    except (OverflowError, OSError):
        return None

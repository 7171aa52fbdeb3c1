# SPDX-License-Identifier: GPL-3.0-or-later
"""When a machine counts as ready. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time, as the hub writes it (docs/protocol.md, head)."""
    return dt.datetime.fromisoformat(text).timestamp()


def verdict(
    machine: Mapping[str, Any] | None, now: float, heartbeat_age: int, agent_version: str | None = None
) -> str | None:
    """What a machine of the fleet query still lacks, as part of a sentence; None if it is ready.

    `now` is in Unix seconds by the hub's clock, `heartbeat_age` in seconds.
    """
    if machine is None:
        return "the hub does not know it"
    status = machine.get("status")
    if status != "Connected":
        return f"its status is {status}"
    heartbeat = machine.get("lastHeartbeat")
    if not heartbeat:
        return "it has not sent a heartbeat"
    age = now - parse_time(str(heartbeat))
    if age > heartbeat_age:
        return f"its last heartbeat is {int(age)} s old"
    if agent_version and machine.get("agentVersion") != agent_version:
        return f"its agent is {machine.get('agentVersion')} and not {agent_version}"
    return None

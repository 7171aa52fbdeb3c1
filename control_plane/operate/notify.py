# SPDX-License-Identifier: Apache-2.0
"""Notification targets: how they stand, and a test of one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from control_plane import config
from control_plane.clock import rfc3339
from control_plane.errors import OperatorError
from control_plane.fleet import notify, targets
from control_plane.fleet.deliver import DeliveryError, deliver
from control_plane.fleet.targets import Webhook
from control_plane.operate.database import opened


def every(data: Path) -> list[dict[str, Any]]:
    """The targets of config.yaml and what waits for them.

    Errors: OperatorError.
    """
    configured = targets.read(config.load(data))
    with opened(data) as (database, _settings), database.read() as session:
        standing = notify.standing(session)
    nothing = {"queued": 0, "tries": 0, "due": 0, "dropped": 0}
    found = []
    for target in configured:
        state = standing.get(target.name, nothing)
        found.append(
            {
                "name": target.name,
                "way": "webhook" if isinstance(target.way, Webhook) else "email",
                "transitions": sorted(target.words),
                "queued": state["queued"],
                "failures": state["tries"],
                "nextAttempt": rfc3339(state["due"]) if state["due"] else None,
                "dropped": state["dropped"],
            }
        )
    return found


def test(data: Path, name: str) -> str:
    """Send a test to one target now. Returns what it was sent by.

    Errors: OperatorError: no such target, or it did not arrive.
    """
    configured = {target.name: target for target in targets.read(config.load(data))}
    if name not in configured:
        known = ", ".join(sorted(configured)) or "none"
        raise OperatorError(
            f"There is no notification target '{name}' (there are: {known}).", "Name one of config.yaml."
        )
    with opened(data) as (_database, settings):
        url = settings.url
    try:
        asyncio.run(deliver(url, configured[name], (), 0))
    except DeliveryError as error:
        raise OperatorError(f"'{name}' was not told: {error.message}", "See docs/api.md, Notifications.") from error
    return "webhook" if isinstance(configured[name].way, Webhook) else "email"

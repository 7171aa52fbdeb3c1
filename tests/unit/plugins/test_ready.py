# SPDX-License-Identifier: Apache-2.0
"""When a machine counts as ready."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _ready as ready

NOW = ready.parse_time("2026-11-23T10:00:00Z")


def row(**changes: Any) -> dict[str, Any]:
    return {"status": "Connected", "lastHeartbeat": "2026-11-23T09:59:00.5Z", "agentVersion": "1.0.0.1", **changes}


@pytest.mark.parametrize(
    ("machine", "version", "lacking"),
    [
        (row(), None, None),
        (row(), "1.0.0.1", None),
        (row(lastHeartbeat="2026-11-23T11:00:00+01:00"), None, None),
        (row(), "1.0.0.2", "its agent is 1.0.0.1 and not 1.0.0.2"),
        (None, None, "the hub does not know it"),
        (row(status="Disconnected"), None, "its status is Disconnected"),
        (row(lastHeartbeat=None), None, "it has not sent a heartbeat"),
        (row(lastHeartbeat="2026-11-23T09:50:00Z"), None, "its last heartbeat is 600 s old"),
    ],
)
def test_verdict(machine: dict[str, Any] | None, version: str | None, lacking: str | None) -> None:
    assert ready.verdict(machine, NOW, 330, version) == lacking

# SPDX-License-Identifier: Apache-2.0
"""Token keys exchanged under a running hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt

from tests.integration import hub_process
from tests.integration.hub_process import HubProcess
from tests.waiting import until


def _kids(hub: HubProcess) -> list[str]:
    answer = hub.session().get(f"{hub.url}/{hub.tenant_id}/discovery/v2.0/keys", timeout=30)
    return [str(item["kid"]) for item in answer.json()["keys"]]


def _status(hub: HubProcess, token: str) -> int:
    return (
        hub.session()
        .get(
            f"{hub.url}/subscriptions",
            params={"api-version": "2022-12-01"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        .status_code
    )


def test_rotation_under_a_running_hub(tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data").start()
    try:
        owner: dict[str, Any] = hub.principal("owner", "Owner")
        old = hub.token(owner)
        made = hub.json("keys", "rotate", "token", "--now")
        until(lambda: made["kid"] in _kids(hub), seconds=120)
        fresh = hub.token(owner)
        assert jwt.get_unverified_header(fresh)["kid"] == made["kid"]
        assert (_status(hub, old), _status(hub, fresh)) == (200, 200)
        third = hub.json("keys", "rotate", "token", "--revoke-old")
        until(lambda: _kids(hub) == [third["kid"]], seconds=120)
        assert (_status(hub, old), _status(hub, fresh), _status(hub, hub.token(owner))) == (401, 401, 200)
    finally:
        assert hub.stop() == 0
    with hub.start().session() as session:
        assert session.get(f"{hub.url}/healthz", timeout=30).status_code == 200
    assert hub.stop() == 0

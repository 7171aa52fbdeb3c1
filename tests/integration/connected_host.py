# SPDX-License-Identifier: Apache-2.0
"""The agent on a real host of the lab: install the package, connect, look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab import Host
from tests.integration.hub_machine import API
from tests.integration.hub_process import HubProcess


def show(host: Host) -> dict[str, Any]:
    """`azcmagent show --json`."""
    found: dict[str, Any] = json.loads(host.run(["azcmagent", "show", "--json"]).output)
    return found


def install(host: Host, deb: Path) -> None:
    """Install the agent's package over whatever version is there."""
    host.copy(deb, "/root/azcmagent.deb")
    host.run(["apt-get", "install", "--yes", "--allow-downgrades", "/root/azcmagent.deb"])


def connect(host: Host, hub: HubProcess, principal: dict[str, Any], group: str) -> None:
    """Connect with the secret of a principal out of a file."""
    host.write("/root/profile.json", json.dumps(hub.profile("lab")))
    host.run(["azcmagent", "cloud", "add", "/root/profile.json"])
    settings = {
        "service-principal-id": principal["clientId"],
        "service-principal-secret": principal["clientSecret"],
        "tenant-id": hub.tenant_id,
        "subscription-id": hub.subscription_id,
        "resource-group": group,
        "location": "local",
        "cloud": "lab",
    }
    host.write("/root/connect.json", json.dumps(settings), mode=0o600)
    host.run(["azcmagent", "connect", "--config", "/root/connect.json"])


def at_arm(host: Host, hub: HubProcess, principal: dict[str, Any], group: str, method: str = "GET", **body: Any) -> Any:
    """The host's machine, asked for or changed at ARM as a principal. `body`: as for requests."""
    path = f"/subscriptions/{hub.subscription_id}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines"
    return hub.session().request(
        method,
        f"{hub.url}{path}/{host.name}",
        params=API,
        headers={"Authorization": f"Bearer {hub.token(principal)}"},
        timeout=30,
        **body,
    )

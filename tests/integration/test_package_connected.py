# SPDX-License-Identifier: Apache-2.0
"""The agent's package under a connected machine: an upgrade keeps the connection, a reinstallation finds it again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import Host
from tests.conftest import LabHosts
from tests.integration.connected_host import connect, install, show

pytestmark = pytest.mark.hosts


def _heartbeat_after(host: Host, moment: str) -> dict[str, Any]:
    for _ in range(100):
        shown = show(host)
        if shown["status"] == "Connected" and shown["lastHeartbeat"] > moment:
            return shown
        time.sleep(0.2)
    pytest.fail(f"no heartbeat after {moment}: {show(host)}")


@pytest.fixture(scope="module")
def connected(lab_hosts: LabHosts, agent_deb: Path) -> Host:
    host, hub = lab_hosts.hosts[0], lab_hosts.hub
    install(host, agent_deb)
    connect(host, hub, hub.principal("package", "Onboarding"), "packages")
    return host


def test_an_upgrade_keeps_the_connection(connected: Host, build_agent: Callable[[str | None], Path]) -> None:
    before = show(connected)
    time.sleep(1.1)  # heartbeats are shown to the second
    install(connected, build_agent("1.0.0.998"))
    after = _heartbeat_after(connected, before["lastHeartbeat"])
    assert after["agentVersion"] == "1.0.0.998"
    assert {key: after[key] for key in ("vmId", "resourceId")} == {key: before[key] for key in ("vmId", "resourceId")}


def test_a_reinstallation_after_removal_finds_the_connection_again(connected: Host, agent_deb: Path) -> None:
    before = show(connected)
    connected.run(["apt-get", "purge", "--yes", "azcmagent"])
    time.sleep(1.1)
    install(connected, agent_deb)
    after = _heartbeat_after(connected, before["lastHeartbeat"])
    assert after["vmId"] == before["vmId"]

# SPDX-License-Identifier: Apache-2.0
"""The real agent and a hub that was restored from a backup which is older than the agent's connection."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import hub_process
from tests.integration.hub_process import HubProcess
from tests.unit.agent_cli.test_end_to_end import Agent
from tests.waiting import until


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    made = hub_process.make(tmp_path / "data", "--location", "local").start()
    yield made
    made.stop()


@pytest.fixture
def agent(tmp_path: Path, hub: HubProcess) -> Iterator[Agent]:
    machine = Agent(tmp_path / "machine", hub, hub.principal("deployer", "Contributor"))
    machine.start()
    assert machine.run("cloud", "add", "-", stdin=hub.run("cloud-profile").stdout).code == 0
    yield machine
    machine.stop()


def _identity(agent: Agent) -> dict[str, Any]:
    shown: dict[str, Any] = agent.run("--json", "show").json
    return {name: shown[name] for name in ("resourceId", "vmId", "identityState", "identityCertificateExpires")}


def test_a_machine_that_the_backup_does_not_know_is_taken_back(agent: Agent, hub: HubProcess, tmp_path: Path) -> None:
    archive, data = tmp_path / "hub.tar.gz", tmp_path / "restored"
    hub.run("backup", str(archive))
    assert agent.connect("--tags", "env=demo").code == 0
    before = _identity(agent)
    assert before["identityState"] == "connected"
    hub.stop(signal.SIGKILL)

    again = HubProcess(data, hub.url, hub.listen, {**hub.made, "caFile": str(data / "keys" / "ca.crt")})
    again.run("restore", str(archive), *hub_process.database_options())
    again.start()
    try:
        until(lambda: [item["status"] for item in again.json("machines")] == ["Connected"], "it is back")
        assert _identity(agent) == before
        assert agent.shown("status") == "Connected"
        assert again.rows("SELECT conflicts FROM heartbeats") == [(0,)]
        # The identity is whole: it opens the channel, and the resource is its own.
        assert agent.run("--json", "disconnect", "--config", str(agent.secret_file)).json["deleted"] is True
        assert agent.is_clean()
    finally:
        again.stop()

# SPDX-License-Identifier: Apache-2.0
"""The agent and the real hub on clones: the original keeps working, whatever becomes of its twin."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_process import Agent
from tests.integration.hub_process import HubProcess
from tests.integration.test_agent_image_specialise import BUILDER, copied, shown, stop
from tests.integration.test_himds import ARM, arm, eventually


@pytest.fixture(scope="module")
def token(hub: HubProcess) -> str:
    return hub.token(hub.principal("twin-owner", "Owner"))


@pytest.fixture
def name() -> str:
    return f"twin-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def original(tmp_path: Path, hub: HubProcess, token: str, name: str) -> Iterator[Agent]:
    """Connected, and stopped."""
    agent = Agent(tmp_path / "original")
    agent.hardware(**BUILDER)
    agent.start()
    agent.add_cloud(hub)
    done = agent.connect(hub, token, name)
    assert done.returncode == 0, done.stdout
    stop(agent)
    yield agent
    stop(agent)


@pytest.fixture
def twin(original: Agent, tmp_path: Path) -> Iterator[Agent]:
    """A copy of the original on other hardware, not started yet; the original runs."""
    made = copied(original, tmp_path / "twin")
    original.start()
    assert eventually(lambda: shown(original)["status"] == "Connected")
    yield made
    stop(made)


def reason(agent: Agent) -> dict[str, Any]:
    return {key: value for key, value in shown(agent).items() if key.startswith("identity") or "agentError" in key}


def test_a_twin_is_quarantined_and_the_original_keeps_working(
    original: Agent, twin: Agent, hub: HubProcess, token: str, name: str
) -> None:
    twin.start()
    assert eventually(lambda: shown(twin)["identityState"] == "quarantined", 30), (reason(twin), twin.log)
    assert reason(twin)["identityVerdict"] == "clone"
    assert twin.token(ARM).status_code == 503
    assert json.loads(twin.run("specialise", "--json").stdout)["error"]["code"] == "AZCM0044"
    assert original.token(ARM).status_code == 200
    assert original.run("show").returncode == 0
    assert shown(original)["status"] == "Connected"
    assert arm(hub, token, "GET", name).json()["properties"]["status"] == "Connected"


def test_a_machine_whose_board_was_changed_is_the_same(original: Agent, hub: HubProcess) -> None:
    """The firmware's serial differs, its UUID does not, and nobody else holds the identity."""
    original.hardware(**BUILDER, dmi_serial="old")
    original.start()
    assert eventually(lambda: shown(original)["status"] == "Connected")
    stop(original)
    original.hardware(**{**BUILDER, "machine_id": "reinstalled"}, dmi_serial="old")
    original.start()
    assert eventually(lambda: shown(original)["status"] == "Connected", 30), (reason(original), original.log)
    assert original.token(ARM).status_code == 200

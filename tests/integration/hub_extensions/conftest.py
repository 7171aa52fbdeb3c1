# SPDX-License-Identifier: Apache-2.0
"""A hub with a catalogue of packages, its owner, and a machine that plays its part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.extension_machine import ExtensionMachine
from tests.integration.extension_site import Arm, Client, arm_of, name_of, running, sdk
from tests.integration.hub_process import HubProcess


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running(tmp_path_factory.mktemp("hub") / "data") as made:
        yield made


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


@pytest.fixture(scope="module")
def token(hub: HubProcess, owner: dict[str, Any]) -> str:
    return hub.token(owner)


@pytest.fixture(scope="module")
def arm(hub: HubProcess, token: str) -> Arm:
    return arm_of(hub, token)


@pytest.fixture(scope="module")
def client(hub: HubProcess, owner: dict[str, Any]) -> Iterator[Client]:
    with sdk(hub, owner) as made:
        yield made


@pytest.fixture
def machine(hub: HubProcess, token: str, request: pytest.FixtureRequest) -> ExtensionMachine:
    return ExtensionMachine.connected(hub, name_of(request), token)

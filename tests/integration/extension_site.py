# SPDX-License-Identifier: Apache-2.0
"""A hub with a catalogue of extensions, and how tests speak to it: as curl does, and with the unmodified SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.identity import ClientSecretCredential
from azure.mgmt.hybridcompute import HybridComputeManagementClient, models

from tests.integration import hub_process
from tests.integration.agent_process import ENVIRONMENT, Agent
from tests.integration.extension_machine import ExtensionMachine, catalogue_of, package
from tests.integration.hub_machine import API
from tests.integration.hub_process import HubProcess
from tests.waiting import until

Arm = Callable[..., Any]
Client = HybridComputeManagementClient
G = "fleet"
PACKAGES = [
    package("Hawser", "CustomScript", "1.0.2"),
    package("Hawser", "CustomScript", "1.0.3"),
    package("Hawser", "CustomScript", "1.2.0"),
    package("Hawser", "CustomScript", "2.0.0"),
    package("Hawser", "CustomScript", "1.2.0", os="windows"),
    package("Hawser", "HealthProbe", "1.0.0"),
    package("Hawser", "RunCommand", "1.0.0", supportsMultipleExtensions=True),
    package("Hawser", "RunCommand", "1.1.0", supportsMultipleExtensions=True),
]


@contextmanager
def running(data: Path) -> Iterator[HubProcess]:
    """The hub."""
    made = hub_process.make(data).start()
    catalogue_of(made, PACKAGES)
    yield made
    assert made.stop() == 0


@contextmanager
def sdk(hub: HubProcess, owner: dict[str, Any]) -> Iterator[Client]:
    """The SDK's client."""
    credential = ClientSecretCredential(
        hub.tenant_id,
        owner["clientId"],
        owner["clientSecret"],
        authority=hub.url,
        disable_instance_discovery=True,
        connection_verify=hub.ca_file,
    )
    options: Any = {"base_url": hub.url, "connection_verify": hub.ca_file}
    with Client(credential, hub.subscription_id, **options) as made:
        yield made


@contextmanager
def serving(agent: Agent) -> Iterator[int]:
    """extd as a real process on the machine of a himds that runs; its number. Its request for a certificate has been
    made: what protected settings of a machine that is connected now are encrypted to."""
    program = [sys.executable, "-m", "agent_runtime.extensions", "--root", str(agent.root)]
    extd = subprocess.Popen(program, cwd=agent.library, env=ENVIRONMENT)
    log = agent.root / "var/lib/GuestConfig/ext_mgr_logs/gc_ext.log"
    try:
        until(lambda: log.exists() and "connected to himds" in log.read_text())
        yield extd.pid
    finally:
        extd.terminate()
        code = extd.wait(20)
    assert code == 0


def arm_of(hub: HubProcess, token: str, more: Mapping[str, str] | None = None) -> Arm:
    """Requests to ARM as curl would send them. `more`: headers of each of them."""
    session = hub.session()

    def ask(method: str, path: str, body: Any = None, **query: str) -> Any:
        url = path if path.startswith("https://") else f"{hub.url}{path}"
        headers = {"Authorization": f"Bearer {token}", **(more or {})}
        return session.request(method, url, params={**API, **query}, json=body, headers=headers, timeout=30)

    return ask


def script(**changes: Any) -> models.MachineExtension:
    """A wish for our script extension."""
    properties = {
        "publisher": "Hawser",
        "type": "CustomScript",
        "type_handler_version": "1.0.3",
        "settings": {"commandToExecute": "true"},
        **changes,
    }
    return models.MachineExtension(location="local", properties=models.MachineExtensionProperties(**properties))


def wish(**properties: Any) -> dict[str, Any]:
    """The body of a PUT for our script extension."""
    base = {"publisher": "Hawser", "type": "CustomScript", "typeHandlerVersion": "1.0.3"}
    return {"location": "local", "properties": {**base, **properties}}


def code_of(answer: Any) -> tuple[int, str]:
    """Status and error code."""
    return answer.status_code, answer.json()["error"]["code"]


def path_of(machine: ExtensionMachine, name: str = "script") -> str:
    """Id of an extension."""
    return f"{machine.resource_id}/extensions/{name}"


def state_of(arm: Arm, machine: ExtensionMachine, name: str = "script") -> str:
    """provisioningState of an extension."""
    answer = arm("GET", path_of(machine, name))
    return str(answer.json()["properties"]["provisioningState"]) if answer.status_code == 200 else "gone"


def operation_of(arm: Arm, answer: Any) -> dict[str, Any]:
    """Where the operation of an answer stands."""
    told: dict[str, Any] = arm("GET", answer.headers["Azure-AsyncOperation"]).json()
    return told


def name_of(request: pytest.FixtureRequest) -> str:
    """A name for the machine of a test."""
    return str(request.node.name).removeprefix("test_").translate(str.maketrans("[", "-", "]"))[:50].strip("-_")

# SPDX-License-Identifier: Apache-2.0
"""Extensions at the hub, with the unmodified SDK on one side and a machine played over the channel on the other
(docs/protocol.md section 15, identity-and-arm-api.md C.3, C.4, C.7)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from azure.identity import ClientSecretCredential
from azure.mgmt.hybridcompute import HybridComputeManagementClient, models
from jsonschema import Draft7Validator

from tests.integration import hub_process
from tests.integration.extension_machine import ExtensionMachine, catalogue_of, package
from tests.integration.hub_process import REPOSITORY, HubProcess

G = "fleet"
SCHEMA = json.loads((REPOSITORY / "docs/schemas/desired-extensions.schema.json").read_text())
PACKAGES = [
    package("Hawser", "CustomScript", "1.0.2"),
    package("Hawser", "CustomScript", "1.0.3"),
    package("Hawser", "CustomScript", "1.2.0"),
    package("Hawser", "CustomScript", "2.0.0"),
    package("Hawser", "CustomScript", "1.2.0", os="windows"),
    package("Hawser", "HealthProbe", "1.0.0"),
    package("Hawser", "RunCommand", "1.0.0", supports_multiple=True),
    package("Hawser", "RunCommand", "1.1.0", supports_multiple=True),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    made = hub_process.make(tmp_path_factory.mktemp("hub") / "data").start()
    catalogue_of(made, PACKAGES)
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


@pytest.fixture(scope="module")
def client(hub: HubProcess, owner: dict[str, Any]) -> Iterator[HybridComputeManagementClient]:
    credential = ClientSecretCredential(
        hub.tenant_id,
        owner["clientId"],
        owner["clientSecret"],
        authority=hub.url,
        disable_instance_discovery=True,
        connection_verify=hub.ca_file,
    )
    options: Any = {"base_url": hub.url, "connection_verify": hub.ca_file}
    with HybridComputeManagementClient(credential, hub.subscription_id, **options) as made:
        yield made


@pytest.fixture
def machine(hub: HubProcess, owner: dict[str, Any], request: pytest.FixtureRequest) -> ExtensionMachine:
    name = request.node.name.removeprefix("test_").replace("[", "-").replace("]", "")[:50].strip("-_")
    return ExtensionMachine.connected(hub, name, hub.token(owner))


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


def test_put_document_report_and_the_pollers_end(
    client: HybridComputeManagementClient, machine: ExtensionMachine
) -> None:
    poller = client.machine_extensions.begin_create_or_update(G, machine.name, "script", script())
    content = machine.content()
    Draft7Validator(SCHEMA).validate(content)
    (item,) = content["extensions"]
    assert (item["name"], item["version"], item["sequence"]) == ("script", "1.0.3", 0)
    assert item["publicSettings"] == {"commandToExecute": "true"}
    assert item["package"]["path"] == "extensions/Hawser.CustomScript/1.0.3/linux.zip"
    shown = client.machine_extensions.get(G, machine.name, "script")
    assert shown.properties is not None
    assert (shown.properties.provisioning_state, shown.properties.instance_view) == ("Creating", None)
    machine.report_all(state="installing", operation="install")
    machine.report_all(message="done")
    result = poller.result()
    assert result.properties is not None
    assert (result.name, result.properties.provisioning_state) == ("script", "Succeeded")
    shown = client.machine_extensions.get(G, machine.name, "SCRIPT")
    assert shown.properties is not None
    assert shown.properties.instance_view is not None
    assert shown.properties.instance_view.type_handler_version == "1.0.3"
    assert shown.properties.instance_view.status is not None
    assert shown.properties.instance_view.status.message == "done"

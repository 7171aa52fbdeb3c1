# SPDX-License-Identifier: Apache-2.0
"""Every operation of the unmodified azure-mgmt-hybridcompute, called once: what it gives, or the documented refusal
(identity-and-arm-api.md C.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.hybridcompute import HybridComputeManagementClient, models

from tests.integration.hub_process import HubProcess

Client = HybridComputeManagementClient
G, M = "fleet", "sdk-1"


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub()


@pytest.fixture(scope="module")
def client(hub: HubProcess) -> Iterator[Client]:
    owner = hub.principal("owner", "Owner")
    credential = ClientSecretCredential(
        hub.tenant_id,
        owner["clientId"],
        owner["clientSecret"],
        authority=hub.url,
        disable_instance_discovery=True,
        connection_verify=hub.ca_file,
    )
    group = f"{hub.url}/subscriptions/{hub.subscription_id}/resourceGroups/{G}"
    headers = {"Authorization": f"Bearer {hub.token(owner)}"}
    query = {"api-version": "2022-09-01"}
    answer = hub.session().put(group, params=query, json={"location": "local"}, headers=headers, timeout=30)
    assert answer.status_code == 201
    options: Any = {"base_url": hub.url, "connection_verify": hub.ca_file}
    with Client(credential, hub.subscription_id, **options) as made:
        made.machines.create_or_update(G, M, models.Machine(location="local"))
        made.private_link_scopes.create_or_update(G, "scope", models.HybridComputePrivateLinkScope(location="local"))
        yield made


def _refused(call: Callable[[], Any]) -> tuple[int | None, str | None]:
    with pytest.raises(HttpResponseError) as refused:
        call()
    assert refused.value.error is not None
    return refused.value.status_code, refused.value.error.code


def _license() -> models.License:
    details = models.LicenseDetails(state="Activated", target="Windows Server 2012", edition="Standard", type="pCore")
    details.processors = 16
    return models.License(
        location="local", properties=models.LicenseProperties(license_type="ESU", license_details=details)
    )


def test_licenses(hub: HubProcess, client: Client) -> None:
    made = client.licenses.begin_create_or_update(G, "Esu-1", _license()).result()
    assert made.name == "Esu-1"
    assert made.properties is not None
    assert (made.properties.provisioning_state, made.properties.tenant_id) == ("Succeeded", hub.tenant_id)
    assert made.properties.license_details is not None
    assert made.properties.license_details.immutable_id
    assert client.licenses.get(G, "esu-1").id == made.id
    assert [item.name for item in client.licenses.list_by_resource_group(G)] == ["Esu-1"]
    assert [item.name for item in client.licenses.list_by_subscription()] == ["Esu-1"]
    update = models.LicenseUpdate(
        tags={"a": "b"},
        properties=models.LicenseUpdateProperties(
            license_details=models.LicenseUpdatePropertiesLicenseDetails(state="Deactivated")
        ),
    )
    changed = client.licenses.begin_update(G, "Esu-1", update).result()
    assert changed.tags == {"a": "b"}
    assert changed.properties is not None
    assert changed.properties.license_details is not None
    assert changed.properties.license_details.state == "Deactivated"
    assert changed.properties.license_details.processors == 16
    assert client.licenses.begin_validate_license(_license()).result().location == "local"
    client.licenses.begin_delete(G, "Esu-1").result()
    client.licenses.begin_delete(G, "Esu-1").result()
    assert _refused(lambda: client.licenses.get(G, "Esu-1")) == (404, "ResourceNotFound")


def test_license_profiles(client: Client) -> None:
    assert list(client.license_profiles.list(G, M)) == []
    profile = models.LicenseProfile(location="local")
    made = client.license_profiles.begin_create_or_update(G, M, profile).result()
    assert made.id is not None
    assert made.id.endswith(f"/machines/{M}/licenseProfiles/default")
    assert client.license_profiles.get(G, M).name == "default"
    update = models.LicenseProfileUpdate(tags={"a": "b"})
    assert client.license_profiles.begin_update(G, M, update).result().tags == {"a": "b"}
    assert [item.name for item in client.license_profiles.list(G, M)] == ["default"]
    client.license_profiles.begin_delete(G, M).result()
    assert _refused(lambda: client.license_profiles.get(G, M)) == (404, "ResourceNotFound")


def test_gateways_and_settings(hub: HubProcess, client: Client) -> None:
    wish = models.Gateway(location="local", properties=models.GatewayProperties(allowed_features=["*"]))
    made = client.gateways.begin_create_or_update(G, "gw", wish).result()
    assert made.properties is not None
    assert made.properties.gateway_id
    assert client.gateways.get(G, "gw").id == made.id
    assert [item.name for item in client.gateways.list_by_resource_group(G)] == ["gw"]
    assert [item.name for item in client.gateways.list_by_subscription()] == ["gw"]
    assert client.gateways.update(G, "gw", models.GatewayUpdate(tags={"a": "b"})).tags == {"a": "b"}
    place = (G, "Microsoft.HybridCompute", "machines", M, "default")
    settings = models.Settings(
        properties=models.SettingsProperties(
            gateway_properties=models.SettingsGatewayProperties(gateway_resource_id=made.id)
        )
    )
    kept = client.settings.update(*place, settings)
    assert kept.properties is not None
    assert kept.properties.tenant_id == hub.tenant_id
    assert client.settings.get(*place).properties == kept.properties
    assert client.settings.patch(*place, settings).properties == kept.properties
    client.gateways.begin_delete(G, "gw").result()
    assert _refused(lambda: client.gateways.get(G, "gw")) == (404, "ResourceNotFound")


def test_private_link(client: Client) -> None:
    scopes = client.private_link_scopes
    scope = scopes.get(G, "scope")
    assert scope.properties is not None
    assert (scope.properties.public_network_access, scope.properties.provisioning_state) == ("Disabled", "Succeeded")
    again = scopes.create_or_update(G, "scope", models.HybridComputePrivateLinkScope(location="local"))
    assert again.id == scope.id
    assert scopes.update_tags(G, "scope", models.TagsResource(tags={"a": "b"})).tags == {"a": "b"}
    assert "scope" in [item.name for item in scopes.list()]
    assert "scope" in [item.name for item in scopes.list_by_resource_group(G)]
    identifier = scope.properties.private_link_scope_id
    assert identifier is not None
    assert scopes.get_validation_details("local", identifier).id == scope.id
    assert _refused(lambda: scopes.get_validation_details_for_machine(G, M))[0] == 404
    update = models.MachineUpdate(properties=models.MachineUpdateProperties(private_link_scope_resource_id=scope.id))
    client.machines.update(G, M, update)
    assert scopes.get_validation_details_for_machine(G, M).id == scope.id
    assert list(client.private_link_resources.list_by_private_link_scope(G, "scope")) == []
    assert _refused(lambda: client.private_link_resources.get(G, "scope", "x"))[0] == 404
    connections = client.private_endpoint_connections
    assert list(connections.list_by_private_link_scope(G, "scope")) == []
    assert _refused(lambda: connections.get(G, "scope", "x"))[0] == 404
    connection = models.PrivateEndpointConnection()
    assert _refused(lambda: connections.begin_create_or_update(G, "scope", "x", connection).result()) == (
        400,
        "OperationNotSupported",
    )
    connections.begin_delete(G, "scope", "x").result()
    perimeters = client.network_security_perimeter_configurations
    assert list(perimeters.list_by_private_link_scope(G, "scope")) == []
    assert _refused(lambda: perimeters.get_by_private_link_scope(G, "scope", "x"))[0] == 404
    assert _refused(lambda: perimeters.begin_reconcile_for_private_link_scope(G, "scope", "x").result())[0] == 404
    assert _refused(lambda: client.private_link_resources.get(G, "none", "x"))[0] == 404
    client.private_link_scopes.create_or_update(G, "going", models.HybridComputePrivateLinkScope(location="local"))
    scopes.begin_delete(G, "going").result()
    assert "going" not in [item.name for item in scopes.list()]


def test_extensions_and_their_catalogue(client: Client) -> None:
    extension = models.MachineExtension(location="local")
    update = models.MachineExtensionUpdate()
    setup = models.SetupExtensionRequest(extensions=[models.MachineExtensionProperties(publisher="p", type="t")])
    refusals: list[tuple[Callable[[], Any], tuple[int, str]]] = [
        (
            lambda: client.machine_extensions.begin_create_or_update(G, M, "e", extension).result(),
            (400, "InvalidRequestContent"),
        ),
        (lambda: client.machine_extensions.begin_update(G, M, "e", update).result(), (404, "ResourceNotFound")),
        (lambda: client.begin_setup_extensions(G, M, setup).result(), (400, "ExtensionNotFound")),
    ]
    for refusal, told in refusals:
        assert _refused(refusal) == told
    client.begin_upgrade_extensions(G, M, models.MachineExtensionUpgrade()).result()  # it has none
    assert _refused(lambda: client.machine_extensions.get(G, M, "e")) == (404, "ResourceNotFound")
    client.machine_extensions.begin_delete(G, M, "e").result()
    assert list(client.machine_extensions.list(G, M)) == []
    assert list(client.extension_publisher.list("local")) == []
    assert list(client.extension_type.list("local", "p")) == []
    assert list(client.extension_metadata_v2.list("local", "p", "t")) == []
    assert _refused(lambda: client.extension_metadata_v2.get("local", "p", "t", "1.0"))[0] == 404
    assert list(client.extension_metadata.list("local", "p", "t")) == []
    assert _refused(lambda: client.extension_metadata.get("local", "p", "t", "1.0"))[0] == 404


def test_run_commands_and_patches(client: Client) -> None:
    command = models.MachineRunCommand(location="local")
    patches = models.MachineInstallPatchesParameters(maximum_duration=timedelta(hours=1), reboot_setting="Never")
    put = client.machine_run_commands.begin_create_or_update
    assert _refused(lambda: put(G, M, "r", command).result()) == (400, "InvalidRequestContent")
    refusals: list[Callable[[], Any]] = [
        lambda: client.machines.begin_assess_patches(G, M).result(),
        lambda: client.machines.begin_install_patches(G, M, patches).result(),
    ]
    for refusal in refusals:
        assert _refused(refusal) == (400, "OperationNotSupported")
    assert _refused(lambda: client.machine_run_commands.get(G, M, "r")) == (404, "ResourceNotFound")
    client.machine_run_commands.begin_delete(G, M, "r").result()
    assert list(client.machine_run_commands.list(G, M)) == []


def test_every_group_of_the_client_is_called_here(client: Client) -> None:
    """A newer client with a further group must not go unnoticed."""
    groups = {name for name, value in vars(client).items() if type(value).__name__.endswith("Operations")}
    assert groups == {
        "operations",
        "machines",
        "machine_extensions",
        "machine_run_commands",
        "network_profile",
        "licenses",
        "license_profiles",
        "gateways",
        "settings",
        "private_link_scopes",
        "private_link_resources",
        "private_endpoint_connections",
        "network_security_perimeter_configurations",
        "extension_publisher",
        "extension_type",
        "extension_metadata",
        "extension_metadata_v2",
    }

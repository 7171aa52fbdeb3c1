# SPDX-License-Identifier: Apache-2.0
"""Unmodified azure-identity (sync and async) and azure-mgmt-hybridcompute against a real hub process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import jwt
import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.identity import ClientSecretCredential
from azure.identity.aio import ClientSecretCredential as AsyncClientSecretCredential
from azure.mgmt.hybridcompute import HybridComputeManagementClient
from azure.mgmt.hybridcompute.aio import HybridComputeManagementClient as AsyncHybridComputeManagementClient
from azure.mgmt.hybridcompute.models import (
    LocationData,
    Machine,
    MachineProperties,
    MachineUpdate,
    ManagedServiceIdentity,
)

from tests.integration.hub_machine import Machine as AgentMachine
from tests.integration.hub_process import HubProcess


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--tenant-domain", "fleet.example")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


def _credential(hub: HubProcess, principal: dict[str, Any], kind: Any = ClientSecretCredential, **changes: Any) -> Any:
    options = {
        "tenant_id": hub.tenant_id,
        "client_id": principal["clientId"],
        "client_secret": principal["clientSecret"],
        "authority": hub.url,
        "disable_instance_discovery": True,
        "connection_verify": hub.ca_file,
        **changes,
    }
    return kind(**options)


@pytest.fixture(scope="module")
def client(hub: HubProcess, owner: dict[str, Any]) -> Iterator[HybridComputeManagementClient]:
    with HybridComputeManagementClient(
        _credential(hub, owner), hub.subscription_id, base_url=hub.url, connection_verify=hub.ca_file
    ) as made:
        token = hub.token(owner)
        answer = hub.session().put(
            f"{hub.url}/subscriptions/{hub.subscription_id}/resourcegroups/fleet",
            params={"api-version": "2022-09-01"},
            json={"location": "local"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        assert answer.status_code == 201
        yield made


def _claims(hub: HubProcess, token: str, audience: str) -> dict[str, Any]:
    discovery = hub.session().get(f"{hub.url}/{hub.tenant_id}/v2.0/.well-known/openid-configuration", timeout=30)
    keys = jwt.PyJWKSet(hub.session().get(discovery.json()["jwks_uri"], timeout=30).json()["keys"])
    key = keys[jwt.get_unverified_header(token)["kid"]].key
    found: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], audience=audience)
    return found


@pytest.mark.parametrize(
    "resource",
    ["https://management.azure.com", "https://management.azure.com/", "https://vault.azure.net", "own"],
)
def test_tokens_keep_the_audience_and_verify(hub: HubProcess, owner: dict[str, Any], resource: str) -> None:
    resource = hub.url if resource == "own" else resource
    token = _credential(hub, owner).get_token(f"{resource}/.default")
    claims = _claims(hub, token.token, resource)
    assert (claims["appid"], claims["oid"], claims["tid"]) == (owner["clientId"], owner["objectId"], hub.tenant_id)
    assert (claims["idtyp"], claims["ver"], claims["appidacr"]) == ("app", "1.0", "1")
    assert 3600 <= claims["exp"] - claims["iat"] <= 5400
    assert "xms_mirid" not in claims


def test_the_tenant_may_be_named_by_its_domain(hub: HubProcess, owner: dict[str, Any]) -> None:
    assert _credential(hub, owner, tenant_id="FLEET.example").get_token(f"{hub.url}/.default").token


def test_msal_finds_the_token_in_its_cache(hub: HubProcess, owner: dict[str, Any]) -> None:
    credential = _credential(hub, owner)
    assert credential.get_token(f"{hub.url}/.default").token == credential.get_token(f"{hub.url}/.default").token


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_secret": "wrong"}, "AADSTS7000215"),
        ({"client_id": str(uuid4())}, "AADSTS700016"),
        ({"tenant_id": str(uuid4())}, "Unable to get authority configuration"),
    ],
)
def test_refusals_show_their_code(hub: HubProcess, owner: dict[str, Any], changes: dict[str, str], code: str) -> None:
    with pytest.raises((ClientAuthenticationError, ValueError), match=code):
        _credential(hub, owner, **changes).get_token(f"{hub.url}/.default")


def test_an_unknown_resource_is_refused_until_it_is_added(hub: HubProcess, owner: dict[str, Any]) -> None:
    with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
        _credential(hub, owner).get_token("api://shop/.default")
    hub.run("audience", "add", "api://shop")
    assert _claims(hub, _credential(hub, owner).get_token("api://shop/.default").token, "api://shop")
    hub.run("audience", "remove", "api://shop")
    with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
        _credential(hub, owner).get_token("api://shop/.default")


def test_async_credential_and_client(hub: HubProcess, owner: dict[str, Any], client: Any) -> None:
    client.machines.create_or_update("fleet", "async-1", Machine(location="local"))

    async def run() -> list[str]:
        async with (
            _credential(hub, owner, AsyncClientSecretCredential) as credential,
            AsyncHybridComputeManagementClient(
                credential, hub.subscription_id, base_url=hub.url, connection_verify=hub.ca_file
            ) as made,
        ):
            return [str(item.name) async for item in made.machines.list_by_subscription()]

    assert "async-1" in asyncio.run(run())


def test_machine_life(hub: HubProcess, client: HybridComputeManagementClient) -> None:
    vm_id = str(uuid4())
    made = client.machines.create_or_update(
        "fleet",
        "Life-1",
        Machine(
            location="Local",
            identity=ManagedServiceIdentity(type="SystemAssigned"),
            tags={"env": "test"},
            properties=MachineProperties(
                vm_id=vm_id, client_public_key="a2V5", location_data=LocationData(name="cellar")
            ),
        ),
    )
    assert made.name == "Life-1"
    assert made.properties is not None
    assert made.identity is not None
    assert (made.properties.vm_id, made.properties.status) == (vm_id, "AwaitingConnection")
    assert made.identity.tenant_id == hub.tenant_id
    assert made.system_data is not None
    assert made.system_data.created_by_type == "Application"
    found = client.machines.get("FLEET", "life-1", expand="instanceView")
    assert (found.name, found.id, found.resources) == ("Life-1", made.id, [])
    changed = client.machines.update("fleet", "Life-1", MachineUpdate(tags={"env": "prod"}))
    assert changed.tags == {"env": "prod"}
    assert changed.properties is not None
    assert changed.properties.location_data is not None
    assert changed.properties.location_data.name == "cellar"
    again = client.machines.create_or_update("fleet", "Life-1", found)
    assert again.tags == {"env": "test"}
    with pytest.raises(ResourceExistsError) as conflict:
        client.machines.create_or_update(
            "fleet", "Life-1", Machine(location="local", properties=MachineProperties(vm_id=str(uuid4())))
        )
    assert conflict.value.error is not None
    assert conflict.value.error.code == "Conflict"
    assert list(client.machine_extensions.list("fleet", "Life-1")) == []
    assert list(client.machine_run_commands.list("fleet", "Life-1")) == []
    assert client.network_profile.get("fleet", "Life-1").network_interfaces == []
    client.machines.begin_delete("fleet", "Life-1").result()
    client.machines.begin_delete("fleet", "Life-1").result()
    with pytest.raises(ResourceNotFoundError) as gone:
        client.machines.get("fleet", "Life-1")
    assert gone.value.error is not None
    assert gone.value.error.code == "ResourceNotFound"


def test_unknown_location_and_group(client: HybridComputeManagementClient) -> None:
    with pytest.raises(HttpResponseError) as unknown:
        client.machines.create_or_update("fleet", "lost", Machine(location="atlantis"))
    assert unknown.value.error is not None
    assert unknown.value.error.code == "LocationNotAvailableForResourceType"
    assert "local" in str(unknown.value.error.message)
    with pytest.raises(ResourceNotFoundError) as missing:
        client.machines.create_or_update("no-such-group", "lost", Machine(location="local"))
    assert missing.value.error is not None
    assert missing.value.error.code == "ResourceGroupNotFound"


def test_lists_are_paged(hub: HubProcess, client: HybridComputeManagementClient) -> None:
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        client.machines.create_or_update("fleet", name, Machine(location="local"))
    pages = client.machines.list_by_resource_group("fleet", params={"$top": "2"}).by_page()
    sizes, seen = [], []
    for page in pages:
        items = [str(item.name) for item in page]
        sizes.append(len(items))
        seen += items
    assert set(sizes[:-1]) == {2}
    assert set(names) <= set(seen)
    assert len(seen) == len(set(seen))


def test_an_agents_machine_is_seen_connected(
    hub: HubProcess, owner: dict[str, Any], client: HybridComputeManagementClient
) -> None:
    machine = AgentMachine(hub, "real-1").connect(hub.token(owner))
    found = client.machines.get("fleet", "real-1")
    assert found.properties is not None
    assert (found.properties.status, found.properties.agent_version) == ("Connected", "1.0.0.1")
    assert found.properties.vm_id == machine.vm_id
    assert found.identity is not None
    assert found.identity.principal_id == machine.identity["principalId"]


def test_operations_are_listed(client: HybridComputeManagementClient) -> None:
    assert "Microsoft.HybridCompute/machines/read" in [item.name for item in client.operations.list()]


def test_a_reader_is_refused_and_a_revoked_principal_stops_at_once(hub: HubProcess, client: Any) -> None:
    reader = hub.principal("reader", "Reader")
    made = HybridComputeManagementClient(
        _credential(hub, reader), hub.subscription_id, base_url=hub.url, connection_verify=hub.ca_file
    )
    assert list(made.machines.list_by_subscription()) is not None
    with pytest.raises(HttpResponseError) as refused:
        made.machines.create_or_update("fleet", "not-mine", Machine(location="local"))
    assert refused.value.error is not None
    assert (refused.value.status_code, refused.value.error.code) == (403, "AuthorizationFailed")
    hub.run("principal", "revoke", "reader")
    with pytest.raises(ClientAuthenticationError):
        list(made.machines.list_by_subscription())
    with pytest.raises(ClientAuthenticationError, match="AADSTS700016"):
        _credential(hub, reader).get_token(f"{hub.url}/.default")

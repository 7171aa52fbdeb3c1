# SPDX-License-Identifier: Apache-2.0
"""ARM and authority of a real hub, request by request: shapes, codes, headers, limits."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote_plus, urlsplit
from uuid import uuid4

import jwt
import pytest
import requests

from tests.integration.hub_machine import API, Machine
from tests.integration.hub_process import HubProcess

PROVIDER = "providers/Microsoft.HybridCompute"


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "ber1=Berlin 1", "--location", "local", "--san", "localhost")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


class Arm:
    """Requests as one principal."""

    def __init__(self, hub: HubProcess, token: str) -> None:
        self.hub, self.http = hub, hub.session()
        self.http.headers["Authorization"] = f"Bearer {token}"

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("params", API)
        return self.http.request(method, f"{self.hub.url}{path}", timeout=30, **options)


@pytest.fixture(scope="module")
def arm(hub: HubProcess, owner: dict[str, Any]) -> Arm:
    return Arm(hub, hub.token(owner))


@pytest.fixture(scope="module")
def sub(hub: HubProcess) -> str:
    return f"/subscriptions/{hub.subscription_id}"


def _code(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_endpoints_in_every_shape(hub: HubProcess) -> None:
    def ask(version: str) -> Any:
        return hub.session().get(f"{hub.url}/metadata/endpoints", params={"api-version": version}, timeout=30).json()

    assert ask("2015-01-01")["authentication"]["audiences"][0] == f"{hub.url}/"
    assert ask("2019-05-01")[0]["authentication"]["tenant"] == hub.tenant_id
    assert ask("2022-09-01")["resourceManager"] == f"{hub.url}/"
    assert ask("")["error"]["code"] == "MissingApiVersionParameter"


def test_discovery(hub: HubProcess) -> None:
    for tenant in (hub.tenant_id.upper(), "hawser.internal", "Hawser.Internal"):
        v2 = hub.session().get(f"{hub.url}/{tenant}/v2.0/.well-known/openid-configuration", timeout=30).json()
        assert v2["token_endpoint"] == f"{hub.url}/{hub.tenant_id}/oauth2/v2.0/token"
        assert v2["issuer"].startswith(f"{hub.url}/{hub.tenant_id}")
    v1 = hub.session().get(f"{hub.url}/{hub.tenant_id}/.well-known/openid-configuration", timeout=30).json()
    assert v1["token_endpoint"] == f"{hub.url}/{hub.tenant_id}/oauth2/token"
    unknown = hub.session().get(f"{hub.url}/nobody.example/v2.0/.well-known/openid-configuration", timeout=30)
    assert (unknown.status_code, unknown.json()["error"]) == (400, "invalid_tenant")
    assert unknown.json()["error_description"].startswith("AADSTS90002")


def test_instance_discovery_knows_this_authority_alone(hub: HubProcess) -> None:
    url = f"{hub.url}/common/discovery/instance"
    mine = {"api-version": "1.1", "authorization_endpoint": f"{hub.url}/{hub.tenant_id}/oauth2/v2.0/authorize"}
    assert hub.session().get(url, params=mine, timeout=30).json()["metadata"][0]["aliases"] == [
        urlsplit(hub.url).netloc
    ]
    other = hub.session().get(url, params={"authorization_endpoint": "https://evil.example/x"}, timeout=30)
    assert (other.status_code, other.json()["error"]) == (400, "invalid_instance")


@pytest.mark.parametrize(
    ("changes", "status", "error", "number"),
    [
        ({"client_secret": "x"}, 401, "invalid_client", 7000215),
        ({"client_id": "no-guid"}, 400, "unauthorized_client", 700016),
        ({"scope": "https://vault.azure.net"}, 400, "invalid_scope", 1002012),
        ({"scope": "https://unknown.example/.default"}, 400, "invalid_resource", 500011),
        ({"scope": "api://hawser-ticket/.default"}, 400, "invalid_resource", 500011),
        ({"scope": None}, 400, "invalid_request", 900144),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"grant_type": None}, 400, "invalid_request", 900144),
        ({"client_id": None}, 400, "invalid_request", 900144),
        ({"client_secret": None}, 401, "invalid_client", 7000218),
    ],
)
def test_token_refusals(
    hub: HubProcess, owner: dict[str, Any], changes: dict[str, Any], status: int, error: str, number: int
) -> None:
    fields = {
        "grant_type": "client_credentials",
        "client_id": owner["clientId"],
        "client_secret": owner["clientSecret"],
        "scope": f"{hub.url}/.default",
        **changes,
    }
    url = f"{hub.url}/{hub.tenant_id}/oauth2/v2.0/token"
    answer = hub.session().post(url, data={k: v for k, v in fields.items() if v is not None}, timeout=30)
    told = answer.json()
    assert (answer.status_code, told["error"], told["error_codes"]) == (status, error, [number])
    assert told["error_description"].startswith(f"AADSTS{number}: ")
    assert owner["clientSecret"] not in answer.text


def test_v1_endpoint_and_basic_header(hub: HubProcess, owner: dict[str, Any]) -> None:
    pair = f"{quote_plus(owner['clientId'])}:{quote_plus(owner['clientSecret'])}"
    answer = hub.session().post(
        f"{hub.url}/hawser.internal/oauth2/token",
        data={"grant_type": "client_credentials", "resource": "https://management.core.windows.net/"},
        headers={"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()},
        timeout=30,
    )
    told = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert told["resource"] == "https://management.core.windows.net/"
    assert all(isinstance(told[name], str) for name in ("expires_in", "expires_on", "not_before"))
    assert Arm(hub, told["access_token"])("GET", "/subscriptions").status_code == 200


def test_an_expired_secret_has_its_own_code(hub: HubProcess) -> None:
    made = hub.json("principal", "create", "short", "--role", "Reader", "--valid-days", "1")
    assert made["secretExpires"] is not None
    assert hub.token(made)
    hub.execute("UPDATE principal_secrets SET expires = 1 WHERE principal_id = :client", client=made["clientId"])
    with pytest.raises(requests.HTTPError) as refused:
        hub.token(made)
    told = refused.value.response.json()
    assert (told["error"], told["error_codes"]) == ("invalid_client", [7000222])


def test_bearer_refusals(hub: HubProcess, owner: dict[str, Any], arm: Arm) -> None:
    url = f"{hub.url}/subscriptions"
    answer = hub.session().get(url, params=API, timeout=30)
    assert _code(answer) == (401, "AuthenticationFailed")
    assert answer.headers["WWW-Authenticate"].startswith(
        f'Bearer authorization_uri="{hub.url}/{hub.tenant_id}", error='
    )
    vault = hub.token(owner, "https://vault.azure.net")
    claims = jwt.decode(vault, options={"verify_signature": False})
    forged = [
        vault,
        "x.y.z",
        "é",
        jwt.encode({**claims, "aud": hub.url}, "k" * 64, algorithm="HS256"),
        jwt.encode({**claims, "aud": hub.url}, "", algorithm="none"),
    ]
    for token in forged:
        headers = {"Authorization": f"Bearer {token}".encode()}
        answer = hub.session().get(url, params=API, headers=headers, timeout=30)
        assert _code(answer) == (401, "InvalidAuthenticationToken")
        assert "authorization_uri" in answer.headers["WWW-Authenticate"]


def test_headers_and_api_versions(arm: Arm, sub: str) -> None:
    ids = {"x-ms-client-request-id": "abc", "x-ms-return-client-request-id": "true"}
    answer = arm("GET", sub, headers={**ids, "x-ms-correlation-request-id": "6a0a0b0c-0000-4000-8000-000000000001"})
    assert answer.headers["x-ms-client-request-id"] == "abc"
    assert answer.headers["x-ms-correlation-request-id"] == "6a0a0b0c-0000-4000-8000-000000000001"
    assert len(answer.headers["x-ms-request-id"]) == 36
    assert "x-ms-client-request-id" not in arm("GET", sub).headers
    assert _code(arm("GET", sub, params={})) == (400, "MissingApiVersionParameter")
    assert _code(arm("GET", sub, params={"api-version": "latest"})) == (400, "InvalidApiVersionParameter")
    for version in ("2019-12-12", "2026-06-16-preview"):
        assert arm("GET", f"{sub}/{PROVIDER}/machines", params={"api-version": version}).status_code == 200


def test_around_the_machines(hub: HubProcess, arm: Arm, sub: str) -> None:
    (subscription,) = arm("GET", "/Subscriptions").json()["value"]
    assert (subscription["subscriptionId"], subscription["state"]) == (hub.subscription_id, "Enabled")
    assert arm("GET", "/tenants").json()["value"][0]["tenantId"] == hub.tenant_id
    assert {item["name"] for item in arm("GET", f"{sub}/locations").json()["value"]} == {"ber1", "local"}
    provider = arm("GET", f"{sub}/providers/microsoft.hybridcompute").json()
    assert (provider["namespace"], provider["registrationState"]) == ("Microsoft.HybridCompute", "Registered")
    assert "machines" in [item["resourceType"] for item in provider["resourceTypes"]]
    assert arm("POST", f"{sub}/{PROVIDER}/register").json()["registrationState"] == "Registered"
    assert arm("GET", f"{sub}/providers/Microsoft.Compute/virtualMachines").json() == {"value": []}
    assert _code(arm("GET", f"/subscriptions/{uuid4()}")) == (404, "SubscriptionNotFound")
    assert _code(arm("GET", f"{sub}/{PROVIDER}/spaceships")) == (404, "InvalidResourceType")
    assert _code(arm("GET", f"{sub}/providers/Microsoft.Nothing/x")) == (404, "InvalidResourceNamespace")
    assert _code(arm("POST", f"{sub}/{PROVIDER}/machines")) == (405, "MethodNotAllowed")
    assert _code(arm("GET", f"{sub}/nothing")) == (404, "NotFound")


def test_groups(arm: Arm, sub: str) -> None:
    group = f"{sub}/resourceGroups/Team(1)"
    assert arm("HEAD", group).status_code == 404
    assert _code(arm("PUT", group, json={})) == (400, "LocationRequired")
    assert _code(arm("PUT", group, json={"location": "mars"})) == (400, "LocationNotAvailableForResourceGroup")
    made = arm("PUT", group, json={"location": "berlin 1", "tags": {"a": "b"}})
    assert (made.status_code, made.json()["location"]) == (201, "ber1")
    assert arm("PUT", group.lower(), json={"location": "ber1"}).status_code == 200
    shown = arm("GET", group.upper().replace("/SUBSCRIPTIONS", "/subscriptions")).json()
    assert (shown["name"], shown["tags"]) == ("Team(1)", {"a": "b"})
    assert arm("HEAD", group).status_code == 204
    assert arm("PATCH", group, json={"tags": {}}).json()["tags"] == {}
    assert "Team(1)" in [item["name"] for item in arm("GET", f"{sub}/resourcegroups").json()["value"]]
    machine = f"{group}/{PROVIDER}/machines/inside"
    assert arm("PUT", machine, json={"location": "local"}).status_code == 200
    assert arm("DELETE", group).status_code == 202
    assert _code(arm("GET", machine)) == (404, "ResourceGroupNotFound")
    assert _code(arm("PUT", f"{sub}/resourceGroups/dot.", json={"location": "local"})) == (400, "InvalidResourceGroup")


@pytest.fixture(scope="module")
def fleet(arm: Arm, sub: str) -> str:
    assert arm("PUT", f"{sub}/resourceGroups/fleet", json={"location": "local"}).status_code in (200, 201)
    return f"{sub}/resourceGroups/fleet/{PROVIDER}/machines"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "LocationRequired"),
        ({"location": 7}, "InvalidRequestContent"),
        ({"location": "local", "tags": []}, "InvalidRequestContent"),
        ({"location": "local", "tags": {"a": 1}}, "InvalidRequestContent"),
        ({"location": "local", "tags": {"a/b": "x"}}, "InvalidTagNameCharacters"),
        ({"location": "local", "tags": {str(n): "" for n in range(51)}}, "TagsLimitExceeded"),
        ({"location": "local", "properties": {"vmId": "x"}}, "InvalidRequestContent"),
        ({"location": "local", "properties": []}, "InvalidRequestContent"),
        ({"location": "local", "properties": {"locationData": {}}}, "InvalidRequestContent"),
        ({"location": "local", "properties": {"osProfile": "x"}}, "InvalidRequestContent"),
        ({"location": "local", "kind": "Toaster"}, "InvalidRequestContent"),
        ({"location": "local", "identity": {"type": "X"}}, "InvalidRequestContent"),
    ],
)
def test_bad_machine_bodies(arm: Arm, fleet: str, body: dict[str, Any], code: str) -> None:
    assert _code(arm("PUT", f"{fleet}/bad-body", json=body)) == (400, code)
    assert _code(arm("GET", f"{fleet}/bad-body")) == (404, "ResourceNotFound")


def test_bad_names_and_texts(arm: Arm, fleet: str) -> None:
    for name in ("x" * 55, "sp%20ace", "semi;colon", "%00", "uml%C3%A4ut", "a%0Ab", "'; DROP TABLE machines; --"):
        assert _code(arm("PUT", f"{fleet}/{name}", json={"location": "local"})) == (400, "InvalidResourceName")
    for body in (b"{", b"", b"null", b"[" * 200_000, b'"x"', b'{"a": NaN}', b'{"location": "\\ud800"}', b"\xff"):
        assert _code(arm("PUT", f"{fleet}/x", data=body)) == (400, "InvalidRequestContent")
    assert _code(arm("PUT", f"{fleet}/x", data=b"x" * (10 << 20))) == (413, "RequestEntityTooLarge")

    def stream() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    assert _code(arm("PUT", f"{fleet}/x", data=stream())) == (413, "RequestEntityTooLarge")


def test_put_keeps_what_is_not_sent_and_patch_replaces_tags(arm: Arm, fleet: str) -> None:
    path = f"{fleet}/Keep"
    wish = {"location": "local", "tags": {"a": "1"}, "properties": {"locationData": {"name": "x", "city": "y"}}}
    first = arm("PUT", path, json=wish).json()
    again = arm("PUT", path, json={"location": "local"}).json()
    assert again["tags"] == {"a": "1"}
    assert again["properties"]["locationData"] == {"name": "x", "city": "y"}
    assert again["properties"]["vmId"] == first["properties"]["vmId"]
    assert arm("PATCH", path, json={"tags": {"b": "2"}}).json()["tags"] == {"b": "2"}
    assert arm("PATCH", path, json={"properties": {"status": "Connected", "vmId": "x"}}).json()["properties"][
        "status"
    ] == ("AwaitingConnection")
    moved = arm("PUT", path, json={"location": "ber1"})
    assert _code(moved) == (409, "InvalidResourceLocation")
    assert "null" not in arm("GET", path).text
    assert _code(arm("PATCH", f"{fleet}/none", json={"tags": {}})) == (404, "ResourceNotFound")


def test_pages_link_by_the_name_the_client_used(hub: HubProcess, arm: Arm, fleet: str) -> None:
    for number in range(3):
        assert arm("PUT", f"{fleet}/link-{number}", json={"location": "local"}).status_code == 200
    first = arm("GET", fleet, params={**API, "$top": "1"}).json()
    assert first["nextLink"].startswith(f"{hub.url}/subscriptions/")
    second = arm.http.get(first["nextLink"], timeout=30).json()
    assert second["value"][0]["id"] != first["value"][0]["id"]
    port = urlsplit(hub.url).port
    by_name = arm.http.get(f"https://localhost:{port}{fleet}", params={**API, "$top": "1"}, timeout=30).json()
    assert by_name["nextLink"].startswith(f"https://localhost:{port}/")
    foreign = arm("GET", fleet, params={**API, "$top": "1"}, headers={"Host": "evil.example"}).json()
    assert foreign["nextLink"].startswith(f"{hub.url}/")
    for bad in ({"$skiptoken": "AAAA"}, {"$skiptoken": "é"}, {"$top": "0"}, {"$top": "x"}):
        assert _code(arm("GET", fleet, params={**API, **bad})) == (400, "InvalidParameter")


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("Reader", set()),
        ("Onboarding", {"PUT", "DELETE"}),
        ("Resource Administrator", {"PUT", "PATCH", "DELETE"}),
        ("Contributor", {"GROUP", "PUT", "PATCH", "DELETE"}),
    ],
)
def test_roles(hub: HubProcess, arm: Arm, sub: str, fleet: str, role: str, allowed: set[str]) -> None:
    name = role.lower().replace(" ", "-")
    mine = Arm(hub, hub.token(hub.principal(name, role)))
    done = set()
    if mine("PUT", f"{sub}/resourceGroups/of-{name}", json={"location": "local"}).status_code == 201:
        done.add("GROUP")
    path = f"{fleet}/of-{name}"
    if mine("PUT", path, json={"location": "local"}).status_code == 200:
        done.add("PUT")
    if "PUT" not in done:
        assert arm("PUT", path, json={"location": "local"}).status_code == 200
    if mine("PATCH", path, json={"tags": {"a": "b"}}).status_code == 200:
        done.add("PATCH")
    if mine("DELETE", path).status_code == 204:
        done.add("DELETE")
    assert done == allowed
    assert mine("GET", fleet).status_code == 200


def test_onboarding_neither_changes_nor_deletes_what_is_enrolled(
    hub: HubProcess, arm: Arm, owner: dict[str, Any]
) -> None:
    token = hub.token(hub.principal("onboarder", "Onboarding"))
    machine = Machine(hub, "enrolled").connect(token)
    assert machine.put(token).status_code == 200, "repeating it is harmless"
    assert _code(machine.put(token, tags={"new": "tag"})) == (403, "AuthorizationFailed")
    assert _code(Arm(hub, token)("DELETE", machine.resource_id)) == (403, "AuthorizationFailed")
    assert arm("GET", machine.resource_id).json()["tags"] == {}


def _connect(hub: HubProcess) -> ssl.SSLSocket:
    parts = urlsplit(hub.url)
    raw = socket.create_connection((str(parts.hostname), parts.port or 443), timeout=10)
    return ssl.create_default_context(cafile=hub.ca_file).wrap_socket(raw, server_hostname=parts.hostname)


@pytest.mark.parametrize("lead", [b"GET / HTTP/1.1\r\nX: ", b"GET /"])
def test_a_head_without_an_end_is_refused(hub: HubProcess, lead: bytes) -> None:
    answer = b""
    with _connect(hub) as tls:
        tls.sendall(lead)
        with contextlib.suppress(OSError):
            for _ in range(64):
                tls.sendall(b"a" * 4096)
        with contextlib.suppress(OSError):
            answer = tls.recv(4096)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    assert hub.session().get(f"{hub.url}/healthz", timeout=30).json() == {"status": "ok"}


def test_tls_is_modern(hub: HubProcess) -> None:
    with _connect(hub) as tls:
        assert tls.version() in ("TLSv1.2", "TLSv1.3")

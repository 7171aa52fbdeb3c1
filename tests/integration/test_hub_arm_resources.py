# SPDX-License-Identifier: Apache-2.0
"""Lists of everything, batches, tags, locks, operations and the smaller types on a real hub: codes, rights, audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.integration.agent_process import Agent
from tests.integration.hub_machine import API, Machine
from tests.integration.hub_process import HubProcess

PROVIDER = "providers/Microsoft.HybridCompute"
LICENSE = {"location": "local", "properties": {"licenseType": "ESU", "licenseDetails": {"processors": 16}}}
NASTY = {"it's \"; DROP TABLE machines; --": "<script>alert(1)</script>' OR 1=1"}


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local", "--location", "ber1=Berlin 1")


class Arm:
    """Requests as one principal."""

    def __init__(self, hub: HubProcess, role: str, scope: str | None = None) -> None:
        name = f"{role.lower().replace(' ', '-')}-{uuid4().hex[:6]}"
        self.hub, self.http = hub, hub.session()
        options = ("--scope", scope) if scope else ()
        self.principal = hub.json("principal", "create", name, "--role", role, *options)
        self.token = hub.token(self.principal)
        self.http.headers["Authorization"] = f"Bearer {self.token}"

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        options["params"] = {**API, **options.pop("params", {})}
        return self.http.request(method, f"{self.hub.url}{path}", timeout=30, **options)

    def names(self, path: str, **params: str) -> list[str]:
        """Names in a list, over all its pages."""
        answer = self("GET", path, params=params)
        found: list[str] = []
        while True:
            assert answer.status_code == 200, answer.text
            found += [item["name"] for item in answer.json()["value"]]
            if not answer.json().get("nextLink"):
                return found
            answer = self.http.get(answer.json()["nextLink"], timeout=30)


@pytest.fixture(scope="module")
def arm(hub: HubProcess) -> Arm:
    return Arm(hub, "Owner")


@pytest.fixture(scope="module")
def sub(hub: HubProcess) -> str:
    return f"/subscriptions/{hub.subscription_id}"


@pytest.fixture(scope="module")
def group(arm: Arm, sub: str) -> str:
    """A group with machines web00 to web04 and a licence; another group with one machine."""
    for name in ("one", "two"):
        path = f"{sub}/resourceGroups/{name}"
        assert arm("PUT", path, json={"location": "local", "tags": {"group": name}}).status_code == 201
    one, two = f"{sub}/resourceGroups/one", f"{sub}/resourceGroups/two"
    for number in range(5):
        tags = {"env": "prod" if number % 2 else "test", **NASTY}
        body = {"location": "ber1" if number == 4 else "local", "tags": tags}
        assert arm("PUT", f"{one}/{PROVIDER}/machines/web0{number}", json=body).status_code == 200
    assert arm("PUT", f"{two}/{PROVIDER}/machines/db00", json={"location": "local"}).status_code == 200
    assert arm("PUT", f"{one}/{PROVIDER}/licenses/esu", json={**LICENSE, "tags": {"env": "prod"}}).status_code == 200
    return one


def _code(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def _audit(hub: HubProcess) -> list[tuple[str, str, str]]:
    return [(row[0], row[1], row[2]) for row in hub.rows("SELECT action, target, outcome FROM audit ORDER BY id")]


ALL = ["web00", "web01", "web02", "web03", "web04", "db00", "esu"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resourceType eq 'Microsoft.HybridCompute/machines'", ALL[:-1]),
        ("resourceType eq 'microsoft.hybridcompute/licenses'", ["esu"]),
        ("name eq 'WEB01'", ["web01"]),
        ("tagName eq 'env' and tagValue eq 'prod'", ["web01", "web03", "esu"]),
        ("tagname eq 'ENV'", [*ALL[:5], "esu"]),
        ("resourceGroup eq 'two'", ["db00"]),
        ("location eq 'BER1'", ["web04"]),
        ("substringof('b0', name) and location ne 'ber1'", ["web00", "web01", "web02", "web03", "db00"]),
        ("name eq 'web00' or name eq 'esu'", ["web00", "esu"]),
        ("tagValue eq '<script>alert(1)</script>'' OR 1=1'", ALL[:5]),
        ("name eq ''' OR 1=1 --'", []),
        ("name eq '%'", []),
        ("tagName eq 'e_v'", []),
    ],
)
def test_filters(arm: Arm, sub: str, group: str, text: str, expected: list[str]) -> None:
    assert arm.names(f"{sub}/resources", **{"$filter": text}) == expected
    assert arm.names(f"{sub}/resources", **{"$filter": text, "$top": "1"}) == expected


def test_lists_of_everything(arm: Arm, sub: str, group: str) -> None:
    assert arm.names(f"{sub}/resources") == ALL
    assert arm.names(f"{group}/resources", **{"$top": "2"}) == [*ALL[:5], "esu"]
    (found,) = arm("GET", f"{group}/resources", params={"$filter": "name eq 'web01'", "$expand": "createdTime"}).json()[
        "value"
    ]
    assert found["type"] == "Microsoft.HybridCompute/machines"
    assert found["tags"] == {"env": "prod", **NASTY}
    assert found["createdTime"].endswith("Z")
    assert "provisioningState" not in found
    assert arm.names(f"{sub}/resourcegroups", **{"$filter": "tagName eq 'group' and tagValue eq 'two'"}) == ["two"]
    assert arm("HEAD", f"{group}/{PROVIDER}/machines/web01").status_code == 204
    assert arm("HEAD", f"{group}/{PROVIDER}/machines/none").status_code == 404
    assert arm.names(f"{sub}/resources", **{"$top": "999999999"}) == ALL
    for params, code in (
        ({"$top": "9999999999"}, "InvalidParameter"),
        ({"$filter": "name eq '\x00'"}, "InvalidFilterInQueryString"),
        ({"$filter": "colour eq 'red'"}, "InvalidFilterInQueryString"),
        ({"$expand": "secrets"}, "InvalidParameter"),
        ({"$top": "-1"}, "InvalidParameter"),
        ({"$skiptoken": "AAAA"}, "InvalidParameter"),
    ):
        assert _code(arm("GET", f"{sub}/resources", params=params)) == (400, code)
    link = arm("GET", f"{sub}/resources", params={"$top": "1"}).json()["nextLink"]
    foreign = arm("GET", f"{group}/resources", params={"$skiptoken": link.partition("skiptoken=")[2]})
    assert _code(foreign) == (400, "InvalidParameter")
    assert _code(arm("GET", f"{sub}/resourceGroups/none/resources")) == (404, "ResourceGroupNotFound")


def test_lists_show_what_the_caller_may_read(hub: HubProcess, arm: Arm, sub: str, group: str) -> None:
    mine = Arm(hub, "Reader", f"{sub}/resourceGroups/two")
    assert mine.names(f"{sub}/resources") == ["db00"]
    assert mine.names(f"{sub}/{PROVIDER}/licenses") == arm.names(f"{sub}/{PROVIDER}/licenses")[1:]
    assert _code(mine("GET", f"{group}/resources")) == (403, "AuthorizationFailed")
    assert _code(mine("GET", f"{group}/{PROVIDER}/licenses")) == (403, "AuthorizationFailed")
    assert [item["tagName"] for item in mine("GET", f"{sub}/tagNames").json()["value"]] == ["group"]
    machine = Arm(hub, "Reader", f"{group}/{PROVIDER}/machines/web01")
    assert machine.names(f"{sub}/resources") == ["web01"]


def test_names_of_tags(arm: Arm, sub: str, group: str) -> None:
    found = {item["tagName"]: item for item in arm("GET", f"{sub}/tagNames").json()["value"]}
    assert found["env"]["count"]["value"] == 6
    values = {item["tagValue"]: item["count"]["value"] for item in found["env"]["values"]}
    assert values == {"test": 3, "prod": 3}


def test_tags_of_everything(hub: HubProcess, arm: Arm, sub: str, group: str) -> None:
    machine = f"{sub}/resourceGroups/two/{PROVIDER}/machines/db00"
    for scope in (sub, f"{sub}/resourceGroups/two", machine, f"{group}/{PROVIDER}/licenses/esu"):
        path = f"{scope}/providers/Microsoft.Resources/tags/default"
        before = arm("GET", path).json()["properties"]["tags"]
        merged = arm("PATCH", path, json={"operation": "Merge", "properties": {"tags": {"x": "1"}}}).json()
        assert merged["properties"]["tags"] == {**before, "x": "1"}
        gone = arm("PATCH", path, json={"operation": "Delete", "properties": {"tags": {"x": "1"}}}).json()
        assert gone["properties"]["tags"] == before
        whole = arm("PUT", path, json={"properties": {"tags": {"y": "2"}}})
        assert (whole.status_code, whole.json()["properties"]["tags"]) == (200, {"y": "2"})
        assert arm("DELETE", path).status_code == 200
        assert arm("GET", path).json()["properties"]["tags"] == {}
        assert arm("PUT", path, json={"properties": {"tags": before}}).status_code == 200
    path = f"{machine}/providers/Microsoft.Resources/tags/default"
    assert _code(arm("PATCH", path, json={"operation": "Explode"})) == (400, "InvalidRequestContent")
    assert _code(arm("PUT", path, json={"properties": {"tags": {"a/b": "x"}}})) == (400, "InvalidTagNameCharacters")
    full = {f"n{number}": "" for number in range(50)}
    assert arm("PUT", path, json={"properties": {"tags": full}}).status_code == 200
    over = arm("PATCH", path, json={"operation": "Merge", "properties": {"tags": {"one": "more"}}})
    assert _code(over) == (400, "TagsLimitExceeded")
    assert arm("GET", path).json()["properties"]["tags"] == full
    assert arm("DELETE", path).status_code == 200
    assert _code(arm("GET", path.replace("default", "mine"))) == (400, "InvalidTagsName")
    assert _code(arm("GET", path.replace("db00", "db01"))) == (404, "ResourceNotFound")
    administrator = Arm(hub, "Resource Administrator")
    assert administrator("GET", path).status_code == 200
    assert _code(administrator("DELETE", path)) == (403, "AuthorizationFailed")


def test_tags_reach_the_machine(hub: HubProcess, arm: Arm, sub: str) -> None:
    machine = Machine(hub, "tagged").connect(arm.token)
    before = machine.generations["resource"]
    path = f"{machine.resource_id}/providers/Microsoft.Resources/tags/default"
    assert arm("PUT", path, json={"properties": {"tags": {"a": "b"}}}).status_code == 200
    assert machine.checkin().json()["generations"]["resource"] == before + 1
    assert arm("PUT", path, json={"properties": {"tags": {"a": "b"}}}).status_code == 200
    assert machine.checkin().json()["generations"]["resource"] == before + 1


def test_batches(hub: HubProcess, arm: Arm, sub: str, group: str) -> None:
    reader = Arm(hub, "Reader")
    version = "?api-version=2024-07-10"
    web, new = (f"{group}/{PROVIDER}/machines/{name}" for name in ("web01", "batched"))
    wanted = [
        {"httpMethod": "GET", "name": "a", "url": f"{hub.url}{web}{version}"},
        {"httpMethod": "get", "name": "b", "url": f"{web}{version}"},
        {"httpMethod": "GET", "name": "c", "url": web},
        {"httpMethod": "GET", "name": "d", "url": f"https://evil.example{web}{version}"},
        {"httpMethod": "PUT", "name": "e", "url": f"{new}{version}", "content": {"location": "local"}},
        {"httpMethod": "POST", "name": "f", "url": f"/batch{version}"},
        {"httpMethod": "HEAD", "name": "g", "url": f"{group}{version}"},
        {"httpMethod": "DELETE", "name": "h", "url": f"{new}{version}"},
    ]
    answer = reader("POST", "/batch", json={"requests": wanted})
    assert answer.status_code == 200
    told = {item["name"]: item for item in answer.json()["responses"]}
    assert [told[name]["httpStatusCode"] for name in "abcdefgh"] == [200, 200, 400, 400, 403, 400, 204, 403]
    assert told["a"]["content"]["name"] == "web01"
    assert told["c"]["content"]["error"]["code"] == "MissingApiVersionParameter"
    assert told["e"]["content"]["error"]["code"] == "AuthorizationFailed"
    assert told["a"]["headers"]["x-ms-request-id"] != told["b"]["headers"]["x-ms-request-id"]
    assert "content" not in told["g"]
    owned = {item["name"]: item for item in arm("POST", "/batch", json={"requests": wanted}).json()["responses"]}
    assert (owned["e"]["httpStatusCode"], owned["h"]["httpStatusCode"]) == (200, 204)
    assert _code(reader("POST", "/batch", json={"requests": 7})) == (400, "InvalidRequestContent")
    assert _code(reader("GET", "/batch")) == (405, "MethodNotAllowed")
    anonymous = hub.session().post(f"{hub.url}/batch", params=API, json={"requests": []}, timeout=30)
    assert _code(anonymous) == (401, "AuthenticationFailed")
    rows = hub.rows(
        "SELECT action, outcome, code FROM audit WHERE actor = :actor ORDER BY id", actor=reader.principal["clientId"]
    )
    assert rows == [
        ("Microsoft.HybridCompute/machines/create", "Refused", "AuthorizationFailed"),
        ("POST", "Refused", "InvalidRequestUri"),
        ("Microsoft.HybridCompute/machines/delete", "Refused", "AuthorizationFailed"),
        ("POST", "Refused", "InvalidRequestContent"),
    ]


def test_locks(hub: HubProcess, arm: Arm, sub: str) -> None:
    group = f"{sub}/resourceGroups/locked"
    machine = f"{group}/{PROVIDER}/machines/m"
    assert arm("PUT", group, json={"location": "local"}).status_code == 201
    assert arm("PUT", machine, json={"location": "local"}).status_code == 200
    lock = f"{machine}/providers/Microsoft.Authorization/locks/Keep"
    can_not_delete = {"properties": {"level": "CanNotDelete", "notes": "mine"}}
    assert _code(arm("PUT", lock, json={"properties": {"level": "Maybe"}})) == (400, "InvalidRequestContent")
    made = arm("PUT", lock, json=can_not_delete)
    assert (made.status_code, made.json()["properties"]) == (201, can_not_delete["properties"])
    assert arm("PUT", lock.lower(), json=can_not_delete).status_code == 200
    for path in (machine, group):
        assert _code(arm("DELETE", path)) == (409, "ScopeLocked")
    assert arm("PATCH", machine, json={"tags": {"a": "b"}}).status_code == 200
    assert arm("PUT", lock, json={"properties": {"level": "ReadOnly"}}).status_code == 200
    assert _code(arm("PATCH", machine, json={"tags": {}})) == (409, "ScopeLocked")
    tags = f"{machine}/providers/Microsoft.Resources/tags/default"
    assert _code(arm("PUT", tags, json={"properties": {"tags": {}}})) == (409, "ScopeLocked")
    inner = {"httpMethod": "DELETE", "name": "x", "url": f"{machine}?api-version=2024-07-10"}
    (told,) = arm("POST", "/batch", json={"requests": [inner]}).json()["responses"]
    assert told["httpStatusCode"] == 409
    assert arm("GET", machine).json()["tags"] == {"a": "b"}
    contributor = Arm(hub, "Contributor")
    assert _code(contributor("DELETE", lock)) == (403, "AuthorizationFailed")
    assert _code(contributor("DELETE", machine)) == (409, "ScopeLocked")
    stranger = Arm(hub, "Owner", f"{sub}/resourceGroups/two")
    assert _code(stranger("DELETE", machine)) == (403, "AuthorizationFailed")
    assert arm.names(f"{group}/providers/Microsoft.Authorization/locks") == ["Keep"]
    assert arm.names(f"{group}/providers/Microsoft.Authorization/locks", **{"$filter": "atScope()"}) == []
    assert "Keep" in arm.names(f"{sub}/providers/Microsoft.Authorization/locks")
    assert arm("GET", lock).json()["name"] == "Keep"
    assert arm("DELETE", lock).status_code == 200
    assert arm("DELETE", lock).status_code == 204
    assert _code(arm("GET", lock)) == (404, "ResourceNotFound")
    nothing = f"{group}/{PROVIDER}/machines/none/providers/Microsoft.Authorization/locks/x"
    assert _code(arm("PUT", nothing, json=can_not_delete)) == (404, "ResourceNotFound")
    assert arm("DELETE", machine).status_code == 204


def test_a_locked_machine_cannot_disconnect_and_stays_connected(hub: HubProcess, arm: Arm, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "machine").start()
    try:
        agent.add_cloud(hub)
        assert agent.connect(hub, arm.token, "held").returncode == 0
        shown = agent.show()
        lock = f"{shown['resourceId']}/providers/Microsoft.Authorization/locks/hold"
        assert arm("PUT", lock, json={"properties": {"level": "CanNotDelete"}}).status_code == 201
        token = tmp_path / "disconnect.json"
        token.write_text(json.dumps({"access-token": arm.token}))
        token.chmod(0o600)
        refused = agent.run("disconnect", "--config", str(token))
        assert refused.returncode != 0
        assert "remove the lock" in refused.stdout + refused.stderr
        assert agent.show()["status"] == "Connected"
        assert arm("DELETE", lock).status_code == 200
        assert agent.run("disconnect", "--config", str(token)).returncode == 0
        assert arm("GET", shown["resourceId"]).status_code == 404
    finally:
        assert agent.stop() == 0


def _follow(arm: Arm, answer: requests.Response) -> tuple[dict[str, Any], requests.Response]:
    assert answer.headers["Retry-After"] == "1"
    status = arm.http.get(answer.headers["Azure-AsyncOperation"], timeout=30)
    assert (status.status_code, status.json()["status"]) == (200, "Succeeded")
    return status.json(), arm.http.get(answer.headers["Location"], timeout=30)


def test_operations_survive_a_restart_and_belong_to_who_began_them(hub: HubProcess, arm: Arm, sub: str) -> None:
    group = f"{sub}/resourceGroups/going"
    assert arm("PUT", group, json={"location": "local"}).status_code == 201
    for name in ("a", "b"):
        assert arm("PUT", f"{group}/{PROVIDER}/machines/{name}", json={"location": "local"}).status_code == 200
    path = f"{group}/{PROVIDER}/licenses/esu"
    made = arm("PUT", path, json=LICENSE)
    assert made.status_code == 200
    _, result = _follow(arm, made)
    assert (result.status_code, result.json()) == (200, made.json())
    gone = arm("DELETE", group)
    assert gone.status_code == 202
    hub.stop()
    hub.start()
    told, result = _follow(arm, gone)
    assert told["properties"]["resourceId"].endswith("/going")
    assert result.status_code == 204
    assert _code(arm("GET", path)) == (404, "ResourceGroupNotFound")
    assert Arm(hub, "Reader").http.get(gone.headers["Location"], timeout=30).status_code == 204
    stranger = Arm(hub, "Owner", f"{sub}/resourceGroups/two")
    for header in ("Location", "Azure-AsyncOperation"):
        assert _code(stranger.http.get(gone.headers[header], timeout=30)) == (404, "ResourceNotFound")
    status = f"{sub}/{PROVIDER}/locations/local/operationStatus"
    assert _code(arm("GET", f"{status}/{uuid4()}")) == (404, "ResourceNotFound")
    assert _code(arm("GET", f"{status}/x")) == (404, "ResourceNotFound")


def test_every_write_is_audited_once(hub: HubProcess, arm: Arm, sub: str, group: str) -> None:
    machine = f"{sub}/resourceGroups/two/{PROVIDER}/machines/db00"
    scope = f"{group}/{PROVIDER}/privateLinkScopes/audited"
    writes: list[tuple[str, str, Any]] = [
        ("PUT", f"{group}/{PROVIDER}/licenses/audited", LICENSE),
        ("PATCH", f"{group}/{PROVIDER}/licenses/audited", {"tags": {"a": "b"}}),
        ("DELETE", f"{group}/{PROVIDER}/licenses/audited", None),
        ("PUT", scope, {"location": "local"}),
        ("PUT", f"{machine}/licenseProfiles/default", {"location": "local"}),
        ("PUT", f"{machine}/{PROVIDER}/settings/default", {"properties": {}}),
        (
            "PATCH",
            f"{sub}/providers/Microsoft.Resources/tags/default",
            {"operation": "Merge", "properties": {"tags": {}}},
        ),
        ("PUT", f"{scope}/providers/Microsoft.Authorization/locks/l", {"properties": {"level": "ReadOnly"}}),
        ("DELETE", scope, None),
        ("DELETE", f"{scope}/providers/Microsoft.Authorization/locks/l", None),
        ("POST", f"{machine}/assessPatches", None),
        ("PUT", f"{machine}/extensions/e", {"location": "local", "properties": {}}),
        ("DELETE", scope, None),
    ]
    for method, path, body in writes:
        before = len(_audit(hub))
        answer = arm(method, path, json=body)
        (row,) = _audit(hub)[before:]
        assert row[2] == ("Refused" if answer.status_code >= 400 else "Succeeded")
        assert row[1].lower() in path.lower() or path.lower().startswith(row[1].lower())


@pytest.mark.parametrize(
    "name", ["%00", "a%00b", "%F0%9F%9A%A2", "'%20OR%201=1", "%3Cscript%3E", "x" * 300, "%ff", "%25"]
)
def test_odd_names_in_paths_are_refused_and_break_nothing(arm: Arm, sub: str, group: str, name: str) -> None:
    paths = [
        f"{sub}/resourceGroups/{name}",
        f"{sub}/resourceGroups/{name}/resources",
        f"{group}/{PROVIDER}/machines/{name}",
        f"{group}/{PROVIDER}/licenses/{name}",
        f"{group}/{PROVIDER}/machines/{name}/licenseProfiles/default",
        f"{group}/{PROVIDER}/machines/web01/extensions/{name}",
        f"{group}/{PROVIDER}/licenses/{name}/providers/Microsoft.Resources/tags/default",
        f"{group}/providers/Microsoft.Authorization/locks/{name}",
        f"{sub}/{PROVIDER}/locations/{name}/operationStatus/{name}",
        f"/subscriptions/{name}/resources",
        f"/{PROVIDER}/locations/{name}/publishers/{name}/extensionTypes/{name}/versions/{name}",
    ]
    for path in paths:
        assert arm("GET", path).status_code in (400, 404), path
        assert arm("DELETE", path).status_code in (204, 400, 404, 405), path
    for path in (paths[0], paths[2], paths[3], paths[7]):
        body = {"location": "local", "properties": {"level": "CanNotDelete"} if "locks" in path else {}}
        assert arm("PUT", path, json=body).status_code in (200, 201, 400), path
        assert arm("DELETE", path).status_code in (200, 202, 204, 400, 404), path
    assert arm.names(f"{group}/resources")[:2] == ["web00", "web01"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "assessPatches", "OperationNotSupported"),
        ("POST", "installPatches", "OperationNotSupported"),
        ("PUT", "providers/Microsoft.GuestConfiguration/guestConfigurationAssignments/a", "OperationNotSupported"),
    ],
)
def test_what_the_hub_cannot_do_is_said(
    hub: HubProcess, arm: Arm, group: str, method: str, path: str, code: str
) -> None:
    machine = f"{group}/{PROVIDER}/machines/web01"
    answer = arm(method, f"{machine}/{path}", json={"location": "local"})
    assert _code(answer) == (400, code)
    assert "'web01'" in answer.json()["error"]["message"]
    assert _code(arm(method, f"{machine}x/{path}", json={})) == (404, "ResourceNotFound")
    assert _code(Arm(hub, "Reader")(method, f"{machine}/{path}", json={})) == (403, "AuthorizationFailed")


def test_guest_configuration_is_registered_and_empty(arm: Arm, sub: str, group: str) -> None:
    namespace = "providers/Microsoft.GuestConfiguration"
    registered = arm("GET", f"{sub}/{namespace}").json()
    assert registered["registrationState"] == "Registered"
    (kind,) = [item["resourceType"] for item in registered["resourceTypes"]]
    machine = f"{group}/{PROVIDER}/machines/web01"
    for scope in (sub, group, machine):
        assert arm("GET", f"{scope}/{namespace}/{kind}").json() == {"value": []}
    one = f"{machine}/{namespace}/{kind}/baseline"
    for path in (one, f"{one}/reports", f"{one}/reports/1", f"{machine}x/{namespace}/{kind}/baseline"):
        assert _code(arm("GET", path)) == (404, "ResourceNotFound")
    gone = arm("DELETE", one)
    assert (gone.status_code, gone.content) == (200, b""), "its SDK takes no 204"
    assert arm("GET", f"/{namespace}/operations").json() == {"value": []}


def test_smaller_types(arm: Arm, sub: str, group: str) -> None:
    gateway = f"{group}/{PROVIDER}/gateways/gw"
    made = arm("PUT", gateway, json={"location": "Berlin 1", "properties": {"allowedFeatures": ["*"]}})
    assert (made.status_code, made.json()["location"]) == (201, "ber1")
    assert made.json()["properties"]["gatewayId"] == arm("GET", gateway.upper()).json()["properties"]["gatewayId"]
    assert arm("HEAD", gateway).status_code == 204
    again = arm("PUT", gateway, json=made.json())
    assert again.status_code == 200
    assert again.json()["properties"] == made.json()["properties"]
    assert _code(arm("PUT", gateway, json={"location": "local"})) == (409, "InvalidResourceLocation")
    assert _code(arm("PUT", f"{gateway}%20x", json={"location": "local"})) == (400, "InvalidResourceName")
    assert _code(arm("PUT", f"{gateway}2", json={})) == (400, "LocationRequired")
    assert _code(arm("PUT", f"{gateway}2", json={"location": "mars"})) == (400, "LocationNotAvailableForResourceType")
    machine = f"{group}/{PROVIDER}/machines/web01"
    settings = f"{machine}/{PROVIDER}/settings/default"
    wish = {"properties": {"gatewayProperties": {"gatewayResourceId": gateway}}}
    assert arm("PUT", settings, json=wish).status_code == 201
    assert arm("GET", settings).json()["properties"]["gatewayProperties"]["gatewayResourceId"] == gateway
    assert _code(arm("PUT", settings.replace("default", "other"), json=wish)) == (400, "InvalidResourceName")
    assert _code(arm("DELETE", settings)) == (405, "MethodNotAllowed")
    profile = f"{machine}/licenseProfiles/default"
    assert arm("PUT", profile, json={"location": "local"}).status_code == 201
    assert arm.names(f"{machine}/licenseProfiles") == ["default"]
    assert "default" not in arm.names(f"{sub}/resources")
    assert arm("DELETE", gateway).status_code == 204
    assert _code(arm("GET", gateway)) == (404, "ResourceNotFound")


def test_what_hangs_below_a_machine_goes_with_it(arm: Arm, group: str) -> None:
    machine = f"{group}/{PROVIDER}/machines/passing"
    profile = f"{machine}/licenseProfiles/default"
    assert arm("PUT", machine, json={"location": "local"}).status_code == 200
    assert arm("PUT", profile, json={"location": "local"}).status_code == 201
    assert arm("DELETE", machine).status_code == 204
    assert arm("PUT", machine, json={"location": "local"}).status_code == 200
    assert _code(arm("GET", profile)) == (404, "ResourceNotFound")
    assert arm("DELETE", machine).status_code == 204

# SPDX-License-Identifier: Apache-2.0
"""`/hawser/v1` users, role assignments and audit against a real hub process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from jsonschema import Draft7Validator, FormatChecker

from tests.integration import hub_process
from tests.integration.hub_process import HubProcess

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
PASSWORD = "a quiet harbour at noon"


def check(name: str, body: Any) -> None:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft7Validator(schema, format_checker=FormatChecker()).validate(body)


class Api:
    """`/hawser/v1` as one principal."""

    def __init__(self, hub: HubProcess, principal: dict[str, Any]) -> None:
        self.hub, self.principal = hub, principal
        self.http = hub.session()
        self.http.headers["Authorization"] = f"Bearer {hub.token(principal)}"

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("https:") else f"{self.hub.url}/hawser/v1{path}"
        return self.http.request(method, url, timeout=30, **options)


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub()


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> Api:
    return Api(hub, hub.principal("owner", "Owner"))


@pytest.fixture(scope="module")
def group_owner(hub: HubProcess) -> Api:
    scope = f"/subscriptions/{hub.subscription_id}/resourceGroups/fleet"
    return Api(hub, hub.json("principal", "create", "group-owner", "--role", "Owner", "--scope", scope))


def test_a_users_life(owner: Api) -> None:
    made = owner("PUT", "/users/Ada", json={"password": PASSWORD, "email": "ada@example.org"})
    assert made.status_code == 201
    check("user", made.json())
    assert (made.json()["hasPassword"], made.json()["disabled"], "password" in made.json()) == (True, False, False)
    changed = owner("PUT", "/users/ADA", json={"disabled": True})
    assert (changed.status_code, changed.json()["name"], changed.json()["disabled"]) == (200, "Ada", True)
    assert changed.json()["email"] == "ada@example.org"
    assert owner("GET", f"/users/{made.json()['objectId']}").json() == changed.json()
    check("users-page", owner("GET", "/users").json())
    assert [owner("DELETE", "/users/ada").status_code for _ in range(2)] == [200, 204]
    assert owner("GET", "/users/ada").status_code == 404


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("ada", {"password": "short"}, "InvalidRequestContent"),
        ("ada", {"password": 12}, "InvalidRequestContent"),
        ("ada", {"password": "aaaaaaaaaaaaaaaa"}, "InvalidRequestContent"),
        ("ada", {"disabled": "yes"}, "InvalidRequestContent"),
        ("ada", {"email": "<script>"}, "InvalidRequestContent"),
        ("ada", {"admin": True}, "InvalidRequestContent"),
        ("a%20b", {}, "InvalidRequestContent"),
        ("%27%20OR%201%3D1", {}, "InvalidRequestContent"),
        ("11111111-1111-4111-8111-111111111111", {}, "InvalidRequestContent"),
    ],
)
def test_bad_users(owner: Api, name: str, body: dict[str, Any], code: str) -> None:
    before = owner("GET", "/users").json()
    answer = owner("PUT", f"/users/{name}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert owner("GET", "/users").json() == before


def test_role_assignments(hub: HubProcess, owner: Api, group_owner: Api) -> None:
    user = owner("PUT", "/users/grace", json={"password": PASSWORD}).json()
    scope = f"/subscriptions/{hub.subscription_id.upper()}/resourcegroups/fleet"
    name, body = str(uuid4()), {"objectId": user["objectId"], "role": "reader", "scope": scope}
    made = group_owner("PUT", f"/roleAssignments/{name}", json=body)
    assert made.status_code == 201, made.text
    check("role-assignment", made.json())
    assert (made.json()["role"], made.json()["holder"], made.json()["kind"]) == ("Reader", "grace", "user")
    assert made.json()["scope"] == f"/subscriptions/{hub.subscription_id}/resourceGroups/fleet"
    assert group_owner("PUT", f"/roleAssignments/{name}", json=body).status_code == 200
    other = group_owner("PUT", f"/roleAssignments/{name}", json={**body, "role": "Owner"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "RoleAssignmentUpdateNotPermitted")
    again = group_owner("PUT", f"/roleAssignments/{uuid4()}", json=body)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "RoleAssignmentExists")
    shown = group_owner("GET", "/roleAssignments")
    check("role-assignments-page", shown.json())
    assert {item["holder"] for item in shown.json()["value"]} == {"group-owner", "grace"}
    assert {item["holder"] for item in owner("GET", "/roleAssignments").json()["value"]} >= {"owner", "grace"}
    mine = owner("GET", "/roleAssignments", params={"objectId": user["objectId"]}).json()["value"]
    assert [item["name"] for item in mine] == [name]
    assert [group_owner("DELETE", f"/roleAssignments/{name}").status_code for _ in range(2)] == [200, 403]
    assert owner("DELETE", f"/roleAssignments/{name}").status_code == 204


def test_nobody_gives_what_lies_above(hub: HubProcess, group_owner: Api, owner: Api) -> None:
    own = group_owner.principal["objectId"]
    subscription = f"/subscriptions/{hub.subscription_id}"
    for scope in ("/", subscription, f"{subscription}/resourceGroups/fleet2", f"{subscription}/resourceGroups/other"):
        answer = group_owner(
            "PUT", f"/roleAssignments/{uuid4()}", json={"objectId": own, "role": "Owner", "scope": scope}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "AuthorizationFailed"), scope
    contributor = Api(hub, hub.principal("contributor", "Contributor"))
    body = {"objectId": contributor.principal["objectId"], "role": "Owner", "scope": "/"}
    assert contributor("PUT", f"/roleAssignments/{uuid4()}", json=body).status_code == 403
    assert contributor("PUT", "/users/contributor", json={"password": PASSWORD}).status_code == 403
    foreign = next(item for item in owner("GET", "/roleAssignments").json()["value"] if item["holder"] == "owner")
    for caller in (group_owner, contributor):
        assert caller("DELETE", f"/roleAssignments/{foreign['name']}").status_code == 403
    assert group_owner("GET", "/users").status_code == 403


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"role": "God"}, 400, "InvalidRoleDefinition"),
        ({"role": None}, 400, "InvalidRoleDefinition"),
        ({"scope": "everything"}, 400, "InvalidScope"),
        ({"scope": ["/"]}, 400, "InvalidScope"),
        ({"scope": "/subscriptions/11111111-1111-4111-8111-111111111111"}, 404, "SubscriptionNotFound"),
        ({"objectId": "11111111-1111-4111-8111-111111111111"}, 404, "PrincipalNotFound"),
        ({"objectId": "x"}, 400, "InvalidRequestContent"),
        ({"more": 1}, 400, "InvalidRequestContent"),
    ],
)
def test_bad_assignments(owner: Api, change: dict[str, Any], status: int, code: str) -> None:
    body = {"objectId": owner.principal["objectId"], "role": "Reader", "scope": "/", **change}
    answer = owner("PUT", f"/roleAssignments/{uuid4()}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_the_audit_is_read_in_pages_and_filtered(hub: HubProcess, owner: Api, group_owner: Api) -> None:
    for index in range(5):
        owner("PUT", f"/users/paged{index}", json={"password": PASSWORD})
    found: list[dict[str, Any]] = []
    url = "/audit?actor=" + owner.principal["clientId"] + "&action=hawser.hub/users&$top=2"
    while url:
        page = owner("GET", url)
        check("audit-page", page.json())
        found += page.json()["value"]
        url = page.json()["nextLink"]
    assert [item["detail"]["name"] for item in [one for one in found if one["outcome"] == "Succeeded"][:5]] == [
        f"paged{index}" for index in reversed(range(5))
    ]
    assert sorted((item["id"] for item in found), reverse=True) == [item["id"] for item in found]
    refused = owner("GET", "/audit", params={"outcome": "Refused", "actor": group_owner.principal["clientId"]})
    assert {item["code"] for item in refused.json()["value"]} >= {"AuthorizationFailed"}
    at = found[0]["at"]
    assert owner("GET", "/audit", params={"to": "2001-01-01T00:00:00Z"}).json()["value"] == []
    assert found[0]["id"] in [item["id"] for item in owner("GET", "/audit", params={"from": at}).json()["value"]]
    assert PASSWORD not in owner("GET", "/audit").text


@pytest.mark.parametrize("path", ["/users", "/roleAssignments"])
def test_people_and_roles_come_in_pages(owner: Api, path: str) -> None:
    for index in range(3):
        user = owner("PUT", f"/users/page{index}", json={"password": PASSWORD}).json()
        body = {"objectId": user["objectId"], "role": "Reader", "scope": "/"}
        assert owner("PUT", f"/roleAssignments/{uuid4()}", json=body).status_code in (201, 409)
    whole = [item["name"] for item in owner("GET", path).json()["value"]]
    found: list[str] = []
    url = f"{path}?$top=2"
    while url:
        page = owner("GET", url).json()
        assert len(page["value"]) <= 2
        found += [item["name"] for item in page["value"]]
        url = page["nextLink"]
    assert found == whole
    assert len(found) > 3
    other = "/audit" if path == "/users" else "/users"
    token = owner("GET", f"{path}?$top=1").json()["nextLink"].split("skiptoken=")[1]
    assert owner("GET", f"{other}?$skiptoken={token}").status_code == 400


def test_the_audit_of_a_part_shows_that_part(hub: HubProcess, owner: Api, group_owner: Api) -> None:
    scope = f"/subscriptions/{hub.subscription_id}/resourceGroups/fleet"
    shown = group_owner("GET", "/audit").json()["value"]
    assert shown
    assert all(item["target"].lower().startswith(scope.lower()) for item in shown)
    reader = Api(hub, hub.principal("reader", "Reader"))
    assert reader("GET", "/audit").status_code == 403


def test_the_audit_of_one_machine_is_not_that_of_its_neighbours(hub: HubProcess, owner: Api) -> None:
    group = f"/subscriptions/{hub.subscription_id}/resourceGroups/fleet"
    ids = [f"{group}/providers/Microsoft.HybridCompute/machines/{name}" for name in ("rack1", "rack10")]
    for resource_id in ids:
        wish = {"operations": [{"operation": "connect", "resourceId": resource_id}]}
        assert owner("POST", "/tickets", json=wish).status_code == 201
    shown = owner("GET", "/audit", params={"scope": ids[0].upper()}).json()["value"]
    assert {item["target"].lower() for item in shown} == {ids[0].lower()}
    both = owner("GET", "/audit", params={"target": ids[0]}).json()["value"]
    assert {item["target"].lower() for item in both} == {one.lower() for one in ids}


@pytest.mark.parametrize(
    "query", ["$top=0", "$skiptoken=x", "outcome=Maybe", "from=yesterday", "colour=red", "to=1e9", "actor=%00"]
)
def test_bad_audit_queries(owner: Api, query: str) -> None:
    answer = owner("GET", f"/audit?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidParameter")


def test_texts_in_filters_are_texts(owner: Api) -> None:
    for text in ("%", "_", "' OR 1=1 --", "<b>", "\\", "/%"):
        assert owner("GET", "/audit", params={"target": text, "actor": text}).json()["value"] == []


def test_the_command_shows_the_same(hub: HubProcess, owner: Api) -> None:
    owner("PUT", "/users/shown", json={"password": PASSWORD})
    lines = hub.run("audit", "--json", "--action", "hawser.hub/users/write", "-n", "1").stdout.splitlines()
    entry = json.loads(lines[0])
    assert (entry["detail"]["name"], entry["actorType"]) == ("shown", "principal")
    assert owner("GET", "/audit", params={"$top": "1"}).json()["value"] == [entry]
    assert "Hawser.Hub/users/write" in hub.run("audit", "-n", "5").stdout
    for bad in (("--outcome", "x"), ("--from", "x")):
        assert hub.run("audit", *bad, check=False).returncode == 1


def test_role_assignments_of_arm(hub: HubProcess, owner: Api, group_owner: Api) -> None:
    def arm(caller: Api, method: str, path: str, **options: Any) -> requests.Response:
        query = {"api-version": "2022-04-01", **options.pop("params", {})}
        return caller.http.request(method, hub.url + path, params=query, timeout=30, **options)

    subscription = f"/subscriptions/{hub.subscription_id}"
    group = f"{subscription}/resourceGroups/fleet"
    authorization = "providers/Microsoft.Authorization"
    named = {"$filter": "roleName eq 'Azure Connected Machine Onboarding'"}
    (definition,) = arm(owner, "GET", f"{subscription}/{authorization}/roleDefinitions", params=named).json()["value"]
    assert "Microsoft.HybridCompute/machines/read" in definition["properties"]["permissions"][0]["actions"]
    shown = arm(owner, "GET", definition["id"])
    assert shown.json() == definition
    user = owner("PUT", "/users/linus", json={"password": PASSWORD}).json()["objectId"]
    path = f"{group}/{authorization}/roleAssignments/{uuid4()}"
    wish = {"properties": {"roleDefinitionId": definition["id"], "principalId": user, "principalType": "User"}}
    made = arm(group_owner, "PUT", path, json=wish)
    assert made.status_code == 201, made.text
    assert made.json()["properties"]["principalType"] == "User"
    assert arm(group_owner, "PUT", path, json=wish).status_code == 200
    assert arm(group_owner, "GET", path).json() == made.json()
    assert owner("GET", "/users/linus").json()["roles"] == [{"role": "Onboarding", "scope": group}]

    def listed(caller: Api, scope: str, wanted: str = "") -> set[str]:
        answer = arm(
            caller, "GET", f"{scope}/{authorization}/roleAssignments", params={"$filter": wanted} if wanted else {}
        )
        assert answer.status_code == 200, answer.text
        return {item["properties"]["principalId"] for item in answer.json()["value"]}

    own, all_mighty = group_owner.principal["objectId"], owner.principal["objectId"]
    assert listed(group_owner, group) >= {user, own, all_mighty}  # what holds there from above is shown too
    assert listed(group_owner, subscription) == {user, own}
    assert listed(owner, subscription, "atScope()") & {user, own, all_mighty} == {all_mighty}
    assert listed(owner, subscription, f"principalId eq '{user}'") == {user}
    assert listed(owner, subscription, f"atScope() and assignedTo('{user}')") == set()
    assert (
        arm(owner, "GET", f"{group}/{authorization}/roleAssignments", params={"$filter": "1 eq 1"}).status_code == 400
    )
    for change in ({"roleDefinitionId": "x"}, {"principalId": "x"}, {"condition": "true"}):
        body = {"properties": {**wish["properties"], **change}}
        bad = arm(owner, "PUT", f"{group}/{authorization}/roleAssignments/{uuid4()}", json=body)
        assert bad.status_code == 400, bad.text
    assert arm(group_owner, "PUT", path.replace("/fleet/", "/other/"), json=wish).status_code == 403
    assert [arm(group_owner, "DELETE", path).status_code for _ in range(2)] == [200, 204]


def test_the_command_follows(hub: HubProcess, owner: Api) -> None:
    command = hub.command("audit", "--follow", "--json", "-n", "1")
    with subprocess.Popen(command, cwd=hub_process.REPOSITORY, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            json.loads(following.stdout.readline())  # the newest there is
            name = f"followed-{uuid4().hex[:8]}"
            owner("PUT", f"/users/{name}", json={"password": PASSWORD})
            entry = json.loads(following.stdout.readline())
            assert (entry["detail"]["name"], entry["outcome"]) == (name, "Succeeded")
        finally:
            following.terminate()


def test_a_reader_that_goes_away_is_no_error(hub: HubProcess) -> None:
    command = hub.command("audit", "--json", "-n", "1000")
    with subprocess.Popen(
        command, cwd=hub_process.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        reading.stdout.close()
        assert reading.stderr.read() == ""

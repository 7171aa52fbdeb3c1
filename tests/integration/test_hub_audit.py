# SPDX-License-Identifier: Apache-2.0
"""Every write of ARM and of `/hawser/v1` leaves one row in the audit, in its own transaction; refused ones too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import inspect, select, text

from control_plane.api.router import OPERATIONS
from control_plane.arm.roles import Action
from control_plane.arm.router import EXTENDING, ROUTES
from control_plane.clock import now
from control_plane.storage import audit, people, twins
from control_plane.storage.models import Machine, User
from tests.integration import rights_site
from tests.integration.rights_site import OTHER_M, G, M, P, S, Site, concrete

_L = "providers/microsoft.hybridcompute"
_G = "subscriptions/*/resourcegroups/*"
_M = f"{_G}/{_L}/machines/*"
_LOCK, _TAGS = "/providers/microsoft.authorization/locks/*", "/providers/microsoft.resources/tags/*"
_ROLE = "/providers/microsoft.authorization/roleassignments/*"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
_BY_TIME = {"audit", "listening", "fleet_counts", "processes", "heartbeats", "machine_states", "outbox", "outages"}
# Names that the hub gives: where they are found.
_MADE = {"tokens/{name}": "SELECT 'tokens/' || id FROM enrolment_tokens", "{twin}": "SELECT id FROM twins"}
PASSWORD = "a quiet harbour at noon"
ASSIGNMENT = "44444444-4444-4444-8444-444444444444"
_KINDS: dict[str, Any] = {
    "licenses": {"location": "local", "properties": {"licenseType": "ESU", "licenseDetails": {"state": "Deactivated"}}},
    "gateways": {"location": "local", "properties": {"allowedFeatures": ["*"]}},
    "privatelinkscopes": {"location": "local", "properties": {"publicNetworkAccess": "Disabled"}},
}
TAGS = {"properties": {"tags": {"g": "h"}}}

_GUEST = "providers/microsoft.guestconfiguration/guestconfigurationassignments"

# Writes that succeed, in an order in which they can: (method, shape, body). A body None: nothing is sent.
CASES: list[tuple[str, str, Any]] = [
    ("PUT", _G, {"location": "local", "tags": {"c": "d"}}),
    ("PATCH", _G, {"tags": {"a": "b"}}),
    ("PUT", _M, {"location": "local", "tags": {"c": "d"}}),
    ("PATCH", _M, {"tags": {"a": "b"}}),
    ("PUT", f"{_M}/{_L}/settings/*", {"properties": {}}),
    ("PATCH", f"{_M}/{_L}/settings/*", {"properties": {}}),
    ("PUT", f"{_M}/licenseprofiles/*", {"location": "local", "properties": {}}),
    ("PATCH", f"{_M}/licenseprofiles/*", {"tags": {"a": "b"}}),
    ("DELETE", f"{_M}/licenseprofiles/*", None),
    *(
        (method, f"{_G}/{_L}/{kind}/*", body if method == "PUT" else {"tags": {"e": "f"}})
        for kind, body in _KINDS.items()
        for method in ("PUT", "PATCH")
    ),
    *(("DELETE", f"{_G}/{_L}/{kind}/*", None) for kind in _KINDS),
    ("PUT", _TAGS, TAGS),
    ("PATCH", _TAGS, {"operation": "Merge", "properties": {"tags": {"i": "j"}}}),
    ("DELETE", _TAGS, None),
    ("PUT", _LOCK, {"properties": {"level": "CanNotDelete"}}),
    ("DELETE", _LOCK, None),
    ("PUT", "/cleanupRules/{rule}", {"action": "delete", "status": "Expired", "olderThanDays": 30}),
    ("DELETE", "/cleanupRules/{rule}", None),
    ("PUT", _ROLE, {"properties": {"roleDefinitionId": READER, "principalId": ""}}),
    ("DELETE", _ROLE, None),
    ("PUT", _ROLE.lstrip("/"), {"properties": {"roleDefinitionId": READER, "principalId": ""}}),
    ("DELETE", _ROLE.lstrip("/"), None),
    ("POST", "/tickets", {"operations": [{"operation": "update", "resourceId": M}]}),
    ("PUT", "/users/{user}", {"password": PASSWORD}),
    ("DELETE", "/users/{user}", None),
    ("PUT", "/roleAssignments/{name}", {"objectId": "", "role": "Reader", "scope": OTHER_M}),
    ("DELETE", "/roleAssignments/{name}", None),
    ("PUT", "/profiles/{profile}", {"clones": "adopt"}),
    ("POST", "/profiles/{profile}/tokens", {"uses": 2, "days": 1}),
    ("DELETE", "/profiles/{profile}/tokens/{name}", None),
    ("DELETE", "/profiles/{profile}", None),
    ("POST", "/twins/{twin}/decide", {"decision": "release"}),
    ("DELETE", _M, None),
    ("DELETE", _G, None),
]
# Writes that this hub refuses whoever asks, or as long as it is young, and those that only compute.
NEVER = {
    ("POST", "/cleanupRules/{rule}/run"),
    *((method, f"{_M}/{kind}/*") for kind in ("extensions", "runcommands") for method in ("PUT", "PATCH", "DELETE")),
    *(("POST", f"{_M}/{word}") for word in ("upgradeextensions", "addextensions", "assesspatches", "installpatches")),
    *((method, f"{_M}/{_GUEST}/*") for method in ("PUT", "DELETE")),
    ("PUT", f"{_G}/{_L}/privatelinkscopes/*/privateendpointconnections/*"),
    ("DELETE", f"{_G}/{_L}/privatelinkscopes/*/privateendpointconnections/*"),
    ("POST", f"{_G}/{_L}/privatelinkscopes/*/networksecurityperimeterconfigurations/*/reconcile"),
    ("POST", f"subscriptions/*/{_L}/validatelicense"),
}


def test_every_write_has_a_case() -> None:
    writes = {
        (method, shape)
        for table in (ROUTES, EXTENDING)
        for shape, methods in table.items()
        for method in methods
        if method not in ("GET", "HEAD")
    }
    writes |= {(item.method, item.path) for item in OPERATIONS if item.method != "GET"}
    assert writes == {(method, shape) for method, shape, _ in CASES} | NEVER


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with rights_site.running(tmp_path_factory.mktemp("hub") / "data") as made:
        yield made


def _path(site: Site, shape: str) -> str:
    if shape.endswith(_ROLE):
        return G + _ROLE.replace("*", ASSIGNMENT)
    if shape == _ROLE.lstrip("/"):
        return _ROLE.replace("*", ASSIGNMENT)
    if not shape.startswith("/"):
        return concrete(shape)
    if shape in (_LOCK, _TAGS):
        return G + concrete(shape.lstrip("/"))
    for word, query in _MADE.items():
        if word in shape:
            found = _rows(site, query)
            shape = shape.replace(word, str(found[0][0]) if found else "1")
    for word in ("{user}", "{profile}", "{rule}"):
        shape = shape.replace(word, "audited")
    return "/hawser/v1" + shape.replace("{name}", ASSIGNMENT)


def _twin(site: Site) -> None:
    """A holder of a machine's identity that the hub found."""
    with site.hub.database.write() as session:
        machine = session.scalars(select(Machine).limit(1)).one()
        found = twins.Found("heartbeat", "clone", "quarantine", ("machine_id",))
        twins.note(session, machine, twins.Key("0" * 64), found, now())


def _body(site: Site, body: Any) -> Any:
    if body and "objectId" in body:
        return {**body, "objectId": site.nobody.object_id}
    if body and "principalId" in body.get("properties", {}):
        return {"properties": {**body["properties"], "principalId": site.nobody.object_id}}
    return body


def _dump(site: Site) -> dict[str, list[Any]]:
    """Every row of every table, but of the audit and of those that the hub writes by itself as time passes."""
    with site.hub.database.read() as session:
        kept = set(inspect(session.connection()).get_table_names()) - _BY_TIME
    return {name: sorted(_rows(site, f"SELECT * FROM {name}"), key=repr) for name in kept}  # noqa: S608


def _audit(site: Site) -> list[Any]:
    return _rows(site, "SELECT actor, action, target, outcome, code FROM audit ORDER BY id")


def _rows(site: Site, statement: str) -> list[Any]:
    with site.hub.database.read() as session:
        return [tuple(row) for row in session.execute(text(statement))]


_REFUSE = {
    "sqlite": ["CREATE TRIGGER no_room BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END"],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no room''; END'",
        "CREATE TRIGGER no_room BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
}
_ALLOW = {
    "sqlite": ["DROP TRIGGER no_room"],
    "postgresql": ["DROP TRIGGER no_room ON audit", "DROP FUNCTION refuse"],
}


@contextmanager
def _without_an_audit(site: Site) -> Iterator[None]:
    """Nothing can be written into it meanwhile."""

    def execute(statements: dict[str, list[str]]) -> None:
        with site.hub.database.write() as session:
            for statement in statements[session.connection().dialect.name]:
                session.execute(text(statement))

    execute(_REFUSE)
    try:
        yield
    finally:
        execute(_ALLOW)


def test_writes_leave_one_row_each(site: Site) -> None:
    """In three ways: by somebody who may not, while the audit cannot be written, and as it should be."""
    owner, reader = site.tokens["O", "hub"], site.tokens["R", "hub"]
    site.restore()
    _twin(site)
    for method, shape, body in CASES:
        path, sent, told = _path(site, shape), _body(site, body), f"{method} {shape}"
        before, state = _audit(site), _dump(site)
        assert site.ask(reader, method, path, sent).status_code == 403, told
        refused = _audit(site)[len(before) :]
        assert [(row[0], row[3], row[4]) for row in refused] == [
            (site.principals["R", "hub"].id, "Refused", "AuthorizationFailed")
        ], told
        with _without_an_audit(site):
            failed = site.ask(owner, method, path, sent)
        assert failed.status_code >= 500, (told, failed.text)
        assert _dump(site) == state, told
        before = _audit(site)
        answer = site.ask(owner, method, path, sent)
        assert answer.status_code < 300, (told, answer.text)
        rows = _audit(site)[len(before) :]
        beside = rows[:-1] if (method, shape) == ("DELETE", _G) else []
        assert [(row[1], row[2]) for row in beside] == [(Action.MACHINE_DELETE, OTHER_M)] * len(beside)
        rows = rows[len(beside) :]
        assert [(row[0], row[3]) for row in rows] == [(site.principals["O", "hub"].id, "Succeeded")], (told, rows)
        assert refused[0][1] == rows[0][1], told  # found by the same word
        assert _dump(site) != state or shape.endswith("settings/*"), told  # an empty one changes nothing
        assert PASSWORD not in str(rows)


@pytest.mark.parametrize(("method", "shape"), sorted(NEVER))
def test_what_is_never_carried_out_changes_nothing(site: Site, method: str, shape: str) -> None:
    site.restore()
    state, before = _dump(site), _audit(site)
    answer = site.ask(site.tokens["O", "hub"], method, _path(site, shape), {"location": "local"})
    rows = _audit(site)[len(before) :]
    assert len(rows) == (1 if answer.status_code >= 400 else 0), (answer.text, rows)
    assert all(row[3] == "Refused" for row in rows)
    assert _dump(site) == state


def test_refused_writes_are_found_by_their_action(site: Site) -> None:
    """Also those that were refused before their handler had a say, and of a machine that is not there yet."""
    site.restore()
    owner, onboarding = site.tokens["O", "hub"], site.tokens["N", "hub"]
    machine, lock = f"{G}/{P}/machines/none", f"{M}/providers/Microsoft.Authorization/locks/x"
    ticket = {"operations": [{"operation": "delete", "resourceId": M}]}
    cases: list[tuple[str, str, str, Any, str]] = [
        (onboarding, "PUT", machine, {"location": "nowhere"}, Action.MACHINE_CREATE),
        (onboarding, "PUT", M, {"location": "local"}, Action.MACHINE_WRITE),
        (onboarding, "PUT", G, None, Action.GROUP_WRITE),
        (owner, "DELETE", M, None, Action.MACHINE_DELETE),  # locked
        (owner, "PUT", f"{M}/extensions/x", {}, Action.EXTENSION_WRITE),
        (onboarding, "DELETE", f"{M}/extensions/x", None, Action.EXTENSION_DELETE),
        (onboarding, "PUT", f"{M}/runCommands/x", {}, Action.RUN_COMMAND_WRITE),
        (onboarding, "DELETE", f"{M}/runCommands/x", None, Action.RUN_COMMAND_DELETE),
        (onboarding, "POST", f"{M}/upgradeExtensions", {}, Action.EXTENSION_WRITE),
        (onboarding, "POST", "/hawser/v1/tickets", ticket, "tickets/delete"),
        (onboarding, "POST", "/hawser/v1/tickets", {}, "tickets"),
        (owner, "POST", "/batch", None, "POST"),
        (owner, "DELETE", f"{S}/tagNames/x", None, "DELETE"),
    ]
    assert site.ask(owner, "PUT", lock, {"properties": {"level": "CanNotDelete"}}).status_code == 201
    before = _audit(site)
    for token, method, path, body, _ in cases:
        assert site.ask(token, method, path, body).status_code >= 400, path
    assert [(row[1], row[3]) for row in _audit(site)[len(before) :]] == [(case[4], "Refused") for case in cases]
    assert site.ask(owner, "DELETE", lock).status_code == 200


def test_the_machines_of_a_group_that_is_deleted_leave_a_row_each(site: Site) -> None:
    owner = site.tokens["O", "hub"]
    site.restore()
    shown = [site.ask(owner, "GET", path).json() for path in (M, OTHER_M)]
    assert site.ask(owner, "DELETE", G).status_code == 202
    query = {"action": Action.MACHINE_DELETE, "scope": G, "$top": "2"}
    found = site.ask(owner, "GET", "/hawser/v1/audit", **query).json()["value"]
    assert {item["target"]: item["detail"] for item in found} == {
        item["id"]: {"vmId": item["properties"]["vmId"]} for item in shown
    }
    (group,) = site.ask(owner, "GET", "/hawser/v1/audit", **{"$top": "1"}).json()["value"]
    assert (group["action"], group["detail"]) == (Action.GROUP_DELETE, {"machines": 2})
    assert {item["requestId"] for item in found} == {group["requestId"]}


def test_the_audit_names_who_it_knows(site: Site) -> None:
    owner, gone = site.tokens["O", "hub"], "99999999-9999-4999-8999-999999999999"
    principal = site.principals["O", "hub"]
    with site.hub.database.write() as session:
        user = people.create(session, "Ada", None, now())
        for kind, actor in (
            ("principal", principal.id),
            ("ticket", principal.id),
            ("user", "Ada"),
            ("principal", gone),
            ("user", "grace"),
            ("machine", principal.id),
            ("rule", "Ada"),
        ):
            audit.record(session, audit.Actor(kind, actor), "test/names", "/")
    found = site.ask(owner, "GET", "/hawser/v1/audit", action="test/names").json()["value"]
    named = [(item["actorType"], item["actorName"]) for item in reversed(found)]
    assert named == [
        ("principal", "O-hub"),
        ("ticket", "O-hub"),
        ("user", "Ada"),
        ("principal", None),
        ("user", None),
        ("machine", None),
        ("rule", None),
    ]
    with site.hub.database.write() as session:
        people.remove(session, session.get_one(User, user.id))
    found = site.ask(owner, "GET", "/hawser/v1/audit", action="test/names").json()["value"]
    assert [item["actorName"] for item in found if item["actorType"] == "user"] == [None, None]


def test_a_batch_leaves_a_row_for_each_of_its_writes(site: Site) -> None:
    site.restore()
    before = _audit(site)
    requests = [
        {"httpMethod": "PATCH", "url": f"{M}?api-version=2024-07-10", "content": {"tags": {"x": "y"}}},
        {"httpMethod": "PATCH", "url": f"{G}/{P}/machines/none?api-version=2024-07-10", "content": {"tags": {}}},
        {"httpMethod": "GET", "url": f"{S}?api-version=2022-12-01"},
    ]
    answer = site.ask(site.tokens["O", "hub"], "POST", "/batch", {"requests": requests})
    assert [item["httpStatusCode"] for item in answer.json()["responses"]] == [200, 404, 200]
    assert [row[3] for row in _audit(site)[len(before) :]] == ["Succeeded", "Refused"]

# SPDX-License-Identifier: Apache-2.0
"""Every operation of ARM and of `/hawser/v1` against every role at every kind of scope, through the whole application.

The table below is written by hand from agent-surface.md ('Needed rights') and docs/hub.md ('Roles'); it does not read
roles.py. An operation that has no row fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete

from control_plane.api.router import OPERATIONS, find
from control_plane.arm.router import EXTENDING, ROUTES
from control_plane.authority import claims
from control_plane.authority.claims import Subject
from control_plane.call import HubCall
from control_plane.callers import authenticate
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.http import Call
from control_plane.people import sessions
from control_plane.storage import people, principals
from control_plane.storage.models import Principal, RoleAssignment
from tests.integration import rights_site
from tests.integration.rights_site import OTHER_G, OTHER_M, ROLES, SCOPES, URL, G, M, P, S, Site, concrete

# (method, path): roles that may, where, and whether it is a list that shows what the caller may read of it.
# `where` None: whoever is known to the hub.
ANYONE: tuple[str, str | None, bool] = ("OCRNA", None, False)
Row = tuple[str, str | None, bool]
_GUEST = "providers/microsoft.guestconfiguration/guestconfigurationassignments"


def _one(roles: str, where: str) -> Row:
    return roles, where, False


def _list(roles: str, where: str) -> Row:
    return roles, where, True


_L = "providers/microsoft.hybridcompute"
_S, _G = "subscriptions/*", "subscriptions/*/resourcegroups/*"
_M = f"{_G}/{_L}/machines/*"
_PLS = f"{_G}/{_L}/privatelinkscopes/*"
_CATALOGUE = f"{_L}/locations/*/publishers"
LICENSE, GATEWAY, SCOPE = (f"{G}/{P}/{kind}/one" for kind in ("licenses", "gateways", "privateLinkScopes"))

ARM: dict[tuple[str, str], Row] = {
    ("GET", "tenants"): ANYONE,
    ("GET", "subscriptions"): ANYONE,
    ("GET", _S): _list("OCRNA", S),
    ("GET", f"{_S}/locations"): _one("OCRNA", S),
    ("GET", f"{_S}/providers"): _one("OCRNA", S),
    ("GET", f"{_S}/resources"): _list("OCRA", S),
    ("GET", f"{_S}/tagnames"): _list("OCRA", S),
    ("GET", f"{_S}/resourcegroups"): _list("OCRNA", S),
    ("GET", f"{_G}/resources"): _list("OCRA", G),
    ("GET", _G): _one("OCRNA", G),
    ("HEAD", _G): _one("OCRNA", G),
    ("PUT", _G): _one("OC", G),
    ("PATCH", _G): _one("OC", G),
    ("DELETE", _G): _one("OC", G),
    ("GET", f"{_L}/operations"): ANYONE,
    ("GET", "providers/microsoft.guestconfiguration/operations"): ANYONE,
    ("GET", f"{_S}/providers/microsoft.compute/virtualmachines"): _one("OCR", S),
    ("GET", f"{_G}/providers/microsoft.compute/virtualmachines"): _one("OCR", G),
    ("GET", f"{_S}/{_GUEST}"): _one("OCRA", S),
    ("GET", f"{_G}/{_GUEST}"): _one("OCRA", G),
    ("GET", f"{_M}/{_GUEST}"): _one("OCRA", M),
    ("GET", f"{_M}/{_GUEST}/*"): _one("OCRA", M),
    ("PUT", f"{_M}/{_GUEST}/*"): _one("OCA", M),
    ("DELETE", f"{_M}/{_GUEST}/*"): _one("OCA", M),
    ("GET", f"{_M}/{_GUEST}/*/reports"): _one("OCRA", M),
    ("GET", f"{_M}/{_GUEST}/*/reports/*"): _one("OCRA", M),
    ("GET", f"{_S}/{_L}/machines"): _list("OCRNA", S),
    ("GET", f"{_G}/{_L}/machines"): _list("OCRNA", G),
    ("GET", _M): _one("OCRNA", M),
    ("HEAD", _M): _one("OCRNA", M),
    ("PUT", _M): _one("OCA", M),  # of a machine that exists; what Onboarding may is tested below
    ("PATCH", _M): _one("OCA", M),
    ("DELETE", _M): _one("OCA", M),
    ("GET", f"{_M}/networkprofile"): _one("OCRNA", M),
    ("GET", f"{_M}/extensions"): _one("OCRA", M),
    ("GET", f"{_M}/extensions/*"): _one("OCRA", M),
    ("HEAD", f"{_M}/extensions/*"): _one("OCRA", M),
    ("PUT", f"{_M}/extensions/*"): _one("OCA", M),
    ("PATCH", f"{_M}/extensions/*"): _one("OCA", M),
    ("DELETE", f"{_M}/extensions/*"): _one("OCA", M),
    ("POST", f"{_M}/upgradeextensions"): _one("OCA", M),
    ("POST", f"{_M}/addextensions"): _one("OCA", M),
    ("GET", f"{_M}/runcommands"): _one("OCRA", M),
    ("GET", f"{_M}/runcommands/*"): _one("OCRA", M),
    ("PUT", f"{_M}/runcommands/*"): _one("OCA", M),
    ("PATCH", f"{_M}/runcommands/*"): _one("OCA", M),
    ("DELETE", f"{_M}/runcommands/*"): _one("OCA", M),
    ("POST", f"{_M}/assesspatches"): _one("OCA", M),
    ("POST", f"{_M}/installpatches"): _one("OCA", M),
    ("GET", f"{_M}/licenseprofiles"): _list("OCRA", M),
    ("GET", f"{_M}/licenseprofiles/*"): _one("OCRA", M),
    ("HEAD", f"{_M}/licenseprofiles/*"): _one("OCRA", M),
    ("PUT", f"{_M}/licenseprofiles/*"): _one("OCA", M),
    ("PATCH", f"{_M}/licenseprofiles/*"): _one("OCA", M),
    ("DELETE", f"{_M}/licenseprofiles/*"): _one("OCA", M),
    ("GET", f"{_M}/privatelinkscopes/*"): _one("OCRNA", M),
    ("GET", f"{_M}/{_L}/settings/*"): _one("OCRA", M),
    ("HEAD", f"{_M}/{_L}/settings/*"): _one("OCRA", M),
    ("PUT", f"{_M}/{_L}/settings/*"): _one("OCA", M),
    ("PATCH", f"{_M}/{_L}/settings/*"): _one("OCA", M),
    ("POST", f"{_S}/{_L}/validatelicense"): _one("OCA", S),
    ("GET", f"{_S}/{_L}/locations/*/operationstatus/*"): ANYONE,  # only one's own are found; tested with them
    ("GET", f"{_S}/{_L}/locations/*/operationresults/*"): ANYONE,
    ("GET", f"{_S}/{_L}/locations/*/privatelinkscopes/*"): _one("OCRA", S),
    ("GET", f"{_PLS}/privatelinkresources"): _one("OCRA", SCOPE),
    ("GET", f"{_PLS}/privatelinkresources/*"): _one("OCRA", SCOPE),
    ("GET", f"{_PLS}/privateendpointconnections"): _one("OCRA", SCOPE),
    ("GET", f"{_PLS}/privateendpointconnections/*"): _one("OCRA", SCOPE),
    ("PUT", f"{_PLS}/privateendpointconnections/*"): _one("OCA", SCOPE),
    ("DELETE", f"{_PLS}/privateendpointconnections/*"): _one("OCA", SCOPE),
    ("GET", f"{_PLS}/networksecurityperimeterconfigurations"): _one("OCRA", SCOPE),
    ("GET", f"{_PLS}/networksecurityperimeterconfigurations/*"): _one("OCRA", SCOPE),
    ("POST", f"{_PLS}/networksecurityperimeterconfigurations/*/reconcile"): _one("OCA", SCOPE),
    ("GET", _CATALOGUE): ANYONE,
    ("GET", f"{_CATALOGUE}/*/extensiontypes"): ANYONE,
    ("GET", f"{_CATALOGUE}/*/extensiontypes/*/versions"): ANYONE,
    ("GET", f"{_CATALOGUE}/*/extensiontypes/*/versions/*"): ANYONE,
    ("GET", f"{_S}/{_CATALOGUE}/*/extensiontypes/*/versions"): _one("OCRA", S),
    ("GET", f"{_S}/{_CATALOGUE}/*/extensiontypes/*/versions/*"): _one("OCRA", S),
}
for _kind, _target in (("licenses", LICENSE), ("gateways", GATEWAY), ("privatelinkscopes", SCOPE)):
    ARM["GET", f"{_S}/{_L}/{_kind}"] = _list("OCRA", S)
    ARM["GET", f"{_G}/{_L}/{_kind}"] = _list("OCRA", G)
    ARM["GET", f"{_G}/{_L}/{_kind}/*"] = ARM["HEAD", f"{_G}/{_L}/{_kind}/*"] = _one("OCRA", _target)
    for _method in ("PUT", "PATCH", "DELETE"):
        ARM[_method, f"{_G}/{_L}/{_kind}/*"] = _one("OCA", _target)

_ASSIGNMENTS = "/providers/microsoft.authorization/roleassignments"
_DEFINITIONS = "/providers/microsoft.authorization/roledefinitions"
for _end in (_DEFINITIONS, f"{_DEFINITIONS}/*"):
    ARM["GET", _end.lstrip("/")] = ANYONE
ARM["GET", _ASSIGNMENTS.lstrip("/")] = _list("OCR", "/")
ARM["GET", f"{_ASSIGNMENTS}/*".lstrip("/")] = _one("OCR", "/")
ARM["PUT", f"{_ASSIGNMENTS}/*".lstrip("/")] = _one("O", "/")
ARM["DELETE", f"{_ASSIGNMENTS}/*".lstrip("/")] = _one("O", "/")

_LOCKS, _TAGS = "/providers/microsoft.authorization/locks", "/providers/microsoft.resources/tags/*"
# Below any scope: roles that may; *: whoever is known, +: a list that shows what the caller may read.
BELOW: dict[tuple[str, str], str] = {
    ("GET", _DEFINITIONS): "*",
    ("GET", f"{_DEFINITIONS}/*"): "*",
    ("GET", _ASSIGNMENTS): "OCR+",
    ("GET", f"{_ASSIGNMENTS}/*"): "OCR",
    ("PUT", f"{_ASSIGNMENTS}/*"): "O",
    ("DELETE", f"{_ASSIGNMENTS}/*"): "O",
    ("GET", _LOCKS): "OCRA",
    ("GET", f"{_LOCKS}/*"): "OCRA",
    ("PUT", f"{_LOCKS}/*"): "O",
    ("DELETE", f"{_LOCKS}/*"): "O",
    ("GET", _TAGS): "OCRA",
    ("PUT", _TAGS): "OC",
    ("PATCH", _TAGS): "OC",
    ("DELETE", _TAGS): "OC",
}

OWN: dict[tuple[str, str], Row] = {
    ("GET", "/hub"): _one("OCR", "/"),
    ("GET", "/openapi.json"): ANYONE,  # who is not known may read it too
    ("POST", "/tickets"): _one("OCNA", M),
    ("GET", "/machines"): _list("OCRNA", "/"),
    ("GET", "/machines/summary"): _list("OCRNA", "/"),
    ("GET", "/machines/{machine}"): _one("OCRNA", M),
    ("GET", "/events"): _list("OCRA", "/"),
    ("GET", "/events/stream"): _list("OCRA", "/"),
    ("GET", "/history"): _one("OCRA", S),  # counts of a whole subscription
    ("GET", "/cleanupRules"): _one("OCR", "/"),
    ("GET", "/cleanupRules/{rule}"): _one("OCR", "/"),
    ("PUT", "/cleanupRules/{rule}"): _one("OC", "/"),
    ("DELETE", "/cleanupRules/{rule}"): _one("OC", "/"),
    ("POST", "/cleanupRules/{rule}/run"): _one("OC", "/"),
    ("GET", "/twins"): _list("OCRA", "/"),
    ("GET", "/twins/{twin}"): _list("OCRA", "/"),  # of one that is not there
    ("POST", "/twins/{twin}/decide"): _list("OCA", "/"),
    ("GET", "/images"): _list("OCRA", "/"),
    ("GET", "/images/{image}"): _list("OCRA", "/"),
    ("GET", "/profiles"): _one("OCR", "/"),
    ("GET", "/profiles/{profile}"): _one("OCR", "/"),
    ("PUT", "/profiles/{profile}"): _one("O", "/"),
    ("DELETE", "/profiles/{profile}"): _one("O", "/"),
    ("GET", "/profiles/{profile}/tokens"): _one("OCR", "/"),
    ("POST", "/profiles/{profile}/tokens"): _one("O", "/"),
    ("DELETE", "/profiles/{profile}/tokens/{name}"): _one("O", "/"),
    ("GET", "/users"): _one("OC", "/"),
    ("GET", "/users/{user}"): _one("OC", "/"),
    ("PUT", "/users/{user}"): _one("O", "/"),
    ("DELETE", "/users/{user}"): _one("O", "/"),
    ("GET", "/roleAssignments"): _list("OCR", "/"),
    ("PUT", "/roleAssignments/{name}"): _one("O", M),
    ("DELETE", "/roleAssignments/{name}"): _one("O", "/"),  # of one that is not there
    ("GET", "/audit"): _list("OC", "/"),
}

BODY: dict[str, Any] = {"operation": "Merge", "properties": {"tags": {}}}
OWN_BODIES: dict[str, Any] = {
    "/tickets": {"operations": [{"operation": "connect", "resourceId": M}]},
    "/cleanupRules/{rule}": {"action": "x"},
    "/cleanupRules/{rule}/run": {},
    "/twins/{twin}/decide": {"decision": "release"},
    "/profiles/{profile}": {"clones": "x"},
    "/profiles/{profile}/tokens": {},
    "/users/{user}": {"email": "x"},  # refused as such by who may; nothing is made
    "/roleAssignments/{name}": {"objectId": str(uuid4()), "role": "Reader", "scope": M},
}


def _within(scope: str, target: str) -> bool:
    """Independent of roles.within()."""
    ours, theirs = scope.lower().strip("/").split("/"), target.lower().strip("/").split("/")
    return ours == [""] or theirs[: len(ours)] == ours


def _may(row: Row, letter: str, scope: str) -> bool:
    roles, where, is_list = row
    if where is None:
        return True
    return letter in roles and (_within(scope, where) or (is_list and _within(where, scope)))


def test_every_operation_has_a_row() -> None:
    assert {(method, shape) for shape, methods in ROUTES.items() for method in methods} == set(ARM)
    assert {(method, shape) for shape, methods in EXTENDING.items() for method in methods} == set(BELOW)
    assert {(item.method, item.path) for item in OPERATIONS} == set(OWN)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with rights_site.running(tmp_path_factory.mktemp("hub") / "data") as made:
        yield made


def _probe(site: Site, method: str, path: str, body: Any, row: Row) -> None:
    wrong = []
    for (letter, kind), token in site.tokens.items():
        answer = site.ask(token, method, path, body)
        assert answer.status_code < 500, answer.text
        if (answer.status_code not in (401, 403)) != _may(row, letter, SCOPES[kind]):
            wrong.append(f"{ROLES[letter]} at {kind}: {answer.status_code} {answer.text[:200]}")
        if method == "DELETE" and answer.status_code < 300:
            site.restore()
    assert not wrong, "\n".join(wrong)
    refused = site.ask(None, method, path, body)
    if not path.endswith("/openapi.json"):
        assert (refused.status_code, "WWW-Authenticate" in refused.headers) == (401, True)


@pytest.mark.parametrize(("method", "shape"), sorted(ARM))
def test_arm(site: Site, method: str, shape: str) -> None:
    body = BODY if method in ("PUT", "PATCH", "POST") else None
    _probe(site, method, concrete(shape), body, ARM[method, shape])


@pytest.mark.parametrize("scope", [S, G, M])
@pytest.mark.parametrize(("method", "end"), sorted(BELOW))
def test_what_hangs_below_any_scope(site: Site, method: str, end: str, scope: str) -> None:
    body = BODY if method in ("PUT", "PATCH") else None
    roles = BELOW[method, end]
    row = ANYONE if roles == "*" else (roles.rstrip("+"), scope, roles.endswith("+"))
    _probe(site, method, scope + concrete(end.lstrip("/")), body, row)


def test_the_stream(site: Site) -> None:
    """By its handler: a stream has no end to wait for."""
    row, path = OWN["GET", "/events/stream"], "/hawser/v1/events/stream"
    operation, names = find("GET", path)
    for (letter, kind), token in site.tokens.items():
        with site.hub.database.read() as session:
            caller = authenticate(site.hub, session, f"Bearer {token}", now())
        http = Call("GET", path, {}, {}, b"", str(uuid4()), str(uuid4()), URL, "192.0.2.1")
        try:
            operation.handler(HubCall(site.hub, http, caller, names, now()))
            opened = True
        except ApiError as error:
            assert error.status == 403  # noqa: PT017 - refused, or not
            opened = False
        assert opened == _may(row, letter, SCOPES[kind]), (letter, kind)
    assert site.ask(None, "GET", path).status_code == 401


@pytest.mark.parametrize(("method", "path"), sorted(set(OWN) - {("GET", "/events/stream")}))
def test_own_api(site: Site, method: str, path: str) -> None:
    names = {"{machine}": M, "{user}": "nobody-of-this-name", "{name}": str(uuid4()), "{rule}": "old"}
    wanted = path
    for name, value in names.items():
        wanted = wanted.replace(name, value)
    _probe(site, method, f"/hawser/v1{wanted}", OWN_BODIES.get(path) if method != "GET" else None, OWN[method, path])


def _writes() -> list[tuple[str, str]]:
    found = [(method, concrete(shape)) for method, shape in sorted(ARM) if method not in ("GET", "HEAD")]
    found += [(method, S + concrete(end.lstrip("/"))) for method, end in sorted(BELOW) if method != "GET"]
    return found + [(method, f"/hawser/v1{path}") for method, path in sorted(OWN) if method != "GET"]


def test_machines_tokens_open_nothing_of_arm(site: Site) -> None:
    subject = Subject(str(uuid4()), str(uuid4()), M, 1)
    token = site.hub.tokens.issue(subject, URL, claims.CERTIFICATE, now(), 3600)
    for method, path in [*_writes(), ("GET", M), ("GET", G), ("GET", f"{S}/{P}/machines"), ("GET", "/hawser/v1/users")]:
        body = OWN_BODIES.get(path.removeprefix("/hawser/v1"), BODY)
        answer = site.ask(token, method, path, None if method == "GET" else body)
        assert answer.status_code in (400, 403), (method, path, answer.text)
        if answer.status_code == 400:  # a name that cannot be one
            assert path.endswith("/roleAssignments/{name}")
    assert site.ask(token, "GET", "/subscriptions").json()["value"] == []


def _ticket(site: Site, operation: str, who: tuple[str, str] | str, target: str = M) -> str:
    """Of one of the site's principals, or of whoever has the token."""
    body = {"operations": [{"operation": operation, "resourceId": target}]}
    token = who if isinstance(who, str) else site.tokens[who]
    answer = site.ask(token, "POST", "/hawser/v1/tickets", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["accessToken"])


# PUTs that change a machine, without the identity that a connecting one brings.
PUTS: list[dict[str, Any]] = [
    {"location": "local", "tags": {"a": "b"}},
    {"location": "local", "kind": "AWS"},
    {"location": "local", "properties": {"agentUpgrade": {"desiredVersion": "9.9"}}},
    {"location": "local", "properties": {"privateLinkScopeResourceId": SCOPE}},
]


@pytest.mark.parametrize("operation", ["connect", "update", "delete"])
def test_a_ticket_opens_its_one_machine_and_nothing_else(site: Site, operation: str) -> None:
    token = _ticket(site, operation, ("O", "hub"))
    assert site.ask(token, "GET", M).status_code == 200
    for method, path in [("GET", OTHER_M), ("GET", G), ("GET", S), ("PUT", G), ("DELETE", G), ("PATCH", OTHER_M)]:
        assert site.ask(token, method, path, None if method == "GET" else BODY).status_code == 403, (method, path)
    for path in (f"{S}/{P}/machines", f"{S}/resources", f"{M}/extensions", f"{M}/runCommands"):
        assert site.ask(token, "GET", path).status_code == 403, path
    owner = site.tokens["O", "hub"]
    before = site.ask(owner, "GET", M).json()
    for body in PUTS:
        assert site.ask(token, "PUT", M, body).status_code == 403, body
    assert site.ask(owner, "GET", M).json() == before
    assert site.ask(token, "DELETE", M).status_code == (204 if operation == "delete" else 403)
    assert site.ask(token, "PATCH", M, {"tags": {}}).status_code == (200 if operation == "update" else 403)
    for path in ("/hawser/v1/machines", "/hawser/v1/users", "/hawser/v1/audit"):
        assert site.ask(token, "GET", path).status_code == 401, path
    site.restore()


def test_a_ticket_is_not_made_for_more_than_ones_own(site: Site) -> None:
    for who, operation, status in (
        (("N", "hub"), "connect", 201),
        (("N", "hub"), "update", 403),
        (("N", "hub"), "delete", 403),
        (("R", "hub"), "connect", 403),
        (("O", "neighbour group"), "connect", 403),
        (("A", "group"), "delete", 201),
    ):
        body = {"operations": [{"operation": operation, "resourceId": M}]}
        assert site.ask(site.tokens[who], "POST", "/hawser/v1/tickets", body).status_code == status, (who, operation)


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_only_a_connect_ticket_gives_an_identity(site: Site, operation: str) -> None:
    owner, path = site.tokens["O", "hub"], f"{G}/{P}/machines/pre-{uuid4().hex[:8]}"
    assert site.ask(owner, "PUT", path, {"location": "local"}).status_code == 200
    token = _ticket(site, operation, ("O", "hub"), path)
    identity = {"location": "local", "properties": {"vmId": str(uuid4()), "clientPublicKey": "a key"}}
    before = site.ask(owner, "GET", path).json()
    assert site.ask(token, "PUT", path, identity).status_code == 403
    assert site.ask(owner, "GET", path).json() == before
    assert site.ask(_ticket(site, "connect", ("N", "hub"), path), "PUT", path, identity).status_code == 200


@pytest.mark.parametrize("with_ticket", [False, True])
def test_connecting_changes_nothing_that_others_made(site: Site, with_ticket: bool) -> None:
    owner, path = site.tokens["O", "hub"], f"{G}/{P}/machines/pre-{uuid4().hex[:8]}"
    made = {"location": "local", "tags": {"owner": "dba"}, "kind": "HCI"}
    assert site.ask(owner, "PUT", path, made).status_code == 200
    token = _ticket(site, "connect", ("N", "hub"), path) if with_ticket else site.tokens["N", "hub"]
    upgrade, vm_id = {"agentUpgrade": {"desiredVersion": "9.9"}}, str(uuid4())
    wish = {"location": "local", "tags": {"owner": "me"}, "kind": "AWS", "identity": {"type": "None"}}
    assert site.ask(token, "PUT", path, {**wish, "properties": upgrade}).status_code == 403
    wish["properties"] = {**upgrade, "vmId": vm_id, "clientPublicKey": "a key"}
    for _ in range(2):  # a connect that was interrupted goes on
        answer = site.ask(token, "PUT", path, wish)
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert (shown["tags"], shown["kind"], shown["identity"]["type"]) == (made["tags"], "HCI", "SystemAssigned")
        assert (shown["properties"]["vmId"], "agentUpgrade" in shown["properties"]) == (vm_id, False)
    assert site.ask(token, "DELETE", path).status_code == 403
    assert site.ask(owner, "DELETE", path).status_code == 204


def test_a_connect_that_goes_on_with_another_ticket_can_be_undone(site: Site) -> None:
    path = f"{G}/{P}/machines/again-{uuid4().hex[:8]}"
    body = {"location": "local", "tags": {"a": "b"}, "properties": {"vmId": str(uuid4()), "clientPublicKey": "a key"}}
    first, second = (_ticket(site, "connect", ("N", "hub"), path) for _ in range(2))
    assert site.ask(first, "PUT", path, body).status_code == 200
    foreign = _ticket(site, "connect", ("N", "group"), path)
    assert site.ask(foreign, "PUT", path, body).status_code == 200
    for ticket in (foreign, second):
        assert site.ask(ticket, "DELETE", path).status_code == 403
    assert site.ask(second, "PUT", path, {**body, "tags": {"c": "d"}}).json()["tags"] == {"c": "d"}
    assert site.ask(first, "DELETE", path).status_code == 403
    assert site.ask(second, "DELETE", path).status_code == 204


@pytest.mark.parametrize("operation", ["connect", "update", "delete"])
def test_a_ticket_loses_what_its_maker_loses(site: Site, operation: str) -> None:
    site.restore()
    with site.hub.database.write() as session:
        maker = principals.create(session, f"maker-{uuid4()}", "Resource Administrator", G)
    ticket = _ticket(site, operation, site.token(maker))
    assert site.ask(ticket, "GET", M).status_code == 200
    with site.hub.database.write() as session:
        session.execute(delete(RoleAssignment).where(RoleAssignment.object_id == maker.object_id))
        principals.assign(session, maker.object_id, "Reader" if operation == "connect" else "Onboarding", G, now())
    for method, body in (("GET", None), ("PATCH", {"tags": {}}), ("DELETE", None), ("PUT", PUTS[0])):
        assert site.ask(ticket, method, M, body).status_code == 403, method


def test_a_ticket_dies_with_its_makers_rights(site: Site) -> None:
    with site.hub.database.write() as session:
        maker = principals.create(session, f"maker-{uuid4()}", "Owner", "/")
    answer = site.ask(
        site.token(maker), "POST", "/hawser/v1/tickets", {"operations": [{"operation": "update", "resourceId": M}]}
    )
    ticket = answer.json()["accessToken"]
    assert site.ask(ticket, "GET", M).status_code == 200
    with site.hub.database.write() as session:
        session.get_one(Principal, maker.id).revoked = now()
    assert site.ask(ticket, "GET", M).status_code == 401
    assert site.ask(site.token(maker), "GET", M).status_code == 401


def test_onboarding_makes_machines_and_touches_no_other(site: Site) -> None:
    token = site.tokens["N", "group"]
    fresh = f"{G}/{P}/machines/fresh-{uuid4().hex[:8]}"
    body = {"location": "local", "properties": {"vmId": str(uuid4())}}
    assert site.ask(token, "PUT", fresh, body).status_code == 200
    assert site.ask(token, "PUT", fresh, body).status_code == 200
    assert site.ask(token, "PATCH", fresh, {"tags": {"a": "b"}}).status_code == 403
    foreign = site.tokens["N", "subscription"]
    assert site.ask(foreign, "DELETE", fresh).status_code == 403
    assert site.ask(foreign, "PUT", M, {"location": "local", "tags": {"mine": "now"}}).status_code == 403
    assert site.ask(foreign, "PUT", M, {"location": "local", "properties": {"vmId": str(uuid4())}}).status_code == 409
    assert site.ask(token, "DELETE", fresh).status_code == 204  # never connected, and its own
    assert site.ask(token, "PUT", f"{OTHER_G}/{P}/machines/x", body).status_code == 403


def test_lists_show_what_the_scope_holds(site: Site) -> None:
    def names(kind: str, path: str) -> set[str]:
        return {item["name"] for item in site.ask(site.tokens["R", kind], "GET", path).json()["value"]}

    everything = {"web01", "web01x"}
    for kind, groups, machines in (
        ("hub", {"fleet", "fleet-2"}, everything),
        ("subscription", {"fleet", "fleet-2"}, everything),
        ("group", {"fleet"}, everything),
        ("machine", set(), {"web01"}),
        ("neighbour", set(), {"web01x"}),
        ("neighbour group", {"fleet-2"}, set()),
    ):
        assert names(kind, f"{S}/resourcegroups") == groups, kind
        for path in (f"{S}/{P}/machines", "/hawser/v1/machines", f"{S}/resources"):
            assert names(kind, path) & everything == machines, (kind, path)
        assert len(site.ask(site.tokens["R", kind], "GET", "/subscriptions").json()["value"]) == 1
    elsewhere = site.token(site.nobody)
    assert site.ask(elsewhere, "GET", f"{S}/{P}/machines").json()["value"] == []


def test_escalations(site: Site) -> None:
    """What each may give: nobody more than he has."""
    for (letter, kind), principal in site.principals.items():
        for scope in ("/", S, OTHER_G if kind != "neighbour group" else G):
            wish = {"objectId": principal.object_id, "role": "Owner", "scope": scope}
            answer = site.ask(site.tokens[letter, kind], "PUT", f"/hawser/v1/roleAssignments/{uuid4()}", wish)
            has = letter == "O" and _within(SCOPES[kind], scope)
            assert (answer.status_code < 300 or answer.json()["error"]["code"] == "RoleAssignmentExists") == has


def test_a_user_is_what_its_roles_are(site: Site) -> None:
    with site.hub.database.write() as session:
        user = people.create(session, f"u{uuid4().hex}", None, now())
        principals.assign(session, user.id, "Reader", G, now())
    token = sessions.begin(site.hub, user, "192.0.2.1", "oidc")
    person = sessions.of_cookie(site.hub, token)
    assert person is not None
    assert person.caller.assignments == (("Reader", G),)
    assert site.ask(token, "GET", M).status_code == 401  # a session's token is no bearer token


def test_removed_assignments_stop_at_once(site: Site) -> None:
    with site.hub.database.write() as session:
        principal = principals.create(session, f"p{uuid4().hex}", "Reader", "/")
    token, owner = site.token(principal), site.tokens["O", "hub"]
    assert site.ask(token, "GET", M).status_code == 200
    query = {"objectId": principal.object_id}
    found = site.ask(owner, "GET", "/hawser/v1/roleAssignments", None, **query).json()["value"]
    assert site.ask(owner, "DELETE", f"/hawser/v1/roleAssignments/{found[0]['name']}").status_code == 200
    assert site.ask(token, "GET", M).status_code == 403
    assert json.dumps(found[0]["role"]) == '"Reader"'

# SPDX-License-Identifier: Apache-2.0
"""`Microsoft.Authorization`: role assignments and role definitions, as Azure's tools read and write them. The same
assignments as `/hawser/v1/roleAssignments`; ids and names of the roles are those of the built-in roles they stand for.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.orm import Session

from control_plane.api.role_assignments import record
from control_plane.arm import paths, scopes
from control_plane.arm.roles import (
    CONTRIBUTOR,
    HUB,
    ONBOARDING,
    OWNER,
    READER,
    RESOURCE_ADMINISTRATOR,
    ROLES,
    Action,
    within,
)
from control_plane.bodies import guid, is_guid
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, bad_content, not_found
from control_plane.http import Reply
from control_plane.people import assignments
from control_plane.people.assignments import Holder, Wish
from control_plane.storage.models import RoleAssignment

ASSIGNMENTS, DEFINITIONS = "Microsoft.Authorization/roleAssignments", "Microsoft.Authorization/roleDefinitions"

# Role: id and name of the built-in role whose part it plays (agent-surface.md, 'Needed rights').
BUILT_IN: dict[str, tuple[str, str]] = {
    OWNER: ("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "Owner"),
    CONTRIBUTOR: ("b24988ac-6180-42a0-ab88-20f7382dd24c", "Contributor"),
    READER: ("acdd72a7-3385-48ef-bd42-f606fba81ae7", "Reader"),
    ONBOARDING: ("b64e21ea-ac4e-4cdf-9dc9-5b892992bee7", "Azure Connected Machine Onboarding"),
    RESOURCE_ADMINISTRATOR: (
        "cd570a14-e51a-42ad-bac8-bafd67325302",
        "Azure Connected Machine Resource Administrator",
    ),
}
_TYPES = {"principal": "ServicePrincipal", "user": "User"}
_TERM = re.compile(r"(atscope|atscopeandbelow)\(\)|(principalid) eq '([^']*)'|(assignedto)\('([^']*)'\)")
_NAMED = re.compile(r"rolename eq '([^']*)'")


def _scope(call: HubCall) -> str:
    """The scope in the path.

    Errors: ApiError 400 `InvalidScope` for what roles cannot be held at.
    """
    return assignments.scope_of(paths.scope_of(call.http.path) or HUB)


def _below(scope: str, tail: str) -> str:
    return f"{'' if scope == HUB else scope}/providers/{tail}"


def role_of_definition(text: object) -> str:
    """The role that a role definition's id, or its bare GUID, stands for.

    Errors: ApiError 400 `InvalidRoleDefinition`.
    """
    last = text.rpartition("/")[2].lower() if isinstance(text, str) else ""
    for role, (own, _) in BUILT_IN.items():
        if own == last:
            return role
    known = ", ".join(f"{name} ({own})" for own, name in BUILT_IN.values())
    raise ApiError(400, "RoleDefinitionDoesNotExist", f"There is no such role definition; there are: {known}.")


def _definition(scope: str, role: str) -> dict[str, Any]:
    own, name = BUILT_IN[role]
    actions = sorted(action.value for action in ROLES[role])
    return {
        "id": _below(scope, f"{DEFINITIONS}/{own}"),
        "name": own,
        "type": DEFINITIONS,
        "properties": {
            "roleName": name,
            "type": "BuiltInRole",
            "description": f"The role {role} of this hub.",
            "assignableScopes": ["/"],
            "permissions": [{"actions": actions, "notActions": [], "dataActions": [], "notDataActions": []}],
        },
    }


def list_definitions(call: HubCall) -> Reply:
    """GET of the roles; `$filter` by `roleName eq '…'`, by the built-in name or ours."""
    scope = _scope(call)
    found = list(ROLES)
    if named := _NAMED.search(call.query.get("$filter", "").lower()):
        found = [role for role in ROLES if named[1] in (role.lower(), BUILT_IN[role][1].lower())]
    return Reply(200, {"value": [_definition(scope, role) for role in found]})


def get_definition(call: HubCall) -> Reply:
    """GET of one role by its GUID."""
    scope, own = _scope(call), call.names[-1].lower()
    for role in ROLES:
        if BUILT_IN[role][0] == own:
            return Reply(200, _definition(scope, role))
    raise not_found(_below(scope, f"{DEFINITIONS}/{call.names[-1]}"))


def _shown(item: RoleAssignment, holder: Holder | None) -> dict[str, Any]:
    subscription = "/".join(item.scope.split("/")[:3]) if item.scope != HUB else HUB
    at = rfc3339(item.created)
    return {
        "id": _below(item.scope, f"{ASSIGNMENTS}/{item.id}"),
        "name": item.id,
        "type": ASSIGNMENTS,
        "properties": {
            "roleDefinitionId": _below(subscription, f"{DEFINITIONS}/{BUILT_IN[item.role][0]}"),
            "principalId": item.object_id,
            "principalType": _TYPES[holder.kind] if holder else "Unknown",
            "scope": item.scope,
            "condition": None,
            "createdOn": at,
            "updatedOn": at,
            "createdBy": item.created_by,
            "updatedBy": item.created_by,
        },
    }


def _filter(text: str) -> tuple[bool, str | None]:
    """(at the scope and above alone, object id) of a `$filter`.

    Errors: ApiError 400 `InvalidFilter`.
    """
    at_scope, object_id = False, None
    for part in text.split(" and ") if text.strip() else ():
        term = _TERM.fullmatch(part.strip().lower())
        if term is None:
            raise ApiError(
                400, "InvalidFilter", "Role assignments take atScope(), principalId eq 'GUID' and assignedTo('GUID')."
            )
        at_scope = at_scope or term[1] == "atscope"
        object_id = term[3] or term[5] or object_id
    return at_scope, object_id


def list_assignments(call: HubCall) -> Reply:
    """GET of the assignments that hold at the scope: its own and those above, and below it unless `atScope()`."""
    scope = _scope(call)
    at_scope, object_id = _filter(call.query.get("$filter", ""))
    seen = scopes.require(call.caller, Action.ROLE_ASSIGNMENT_READ, scope)
    whole = scopes.shown(seen, scope)  # who may read the scope may know what holds there from above
    with call.hub.database.read() as session:
        found = [
            item
            for item in assignments.visible(session, (HUB,), object_id)
            if (whole and within(item.scope, scope))
            or (not at_scope and within(scope, item.scope) and scopes.shown(seen, item.scope))
        ]
        known = assignments.holders(session, {item.object_id for item in found})
        return Reply(200, {"value": [_shown(item, known.get(item.object_id)) for item in found]})


def _find(call: HubCall, session: Session) -> RoleAssignment | None:
    item = session.get(RoleAssignment, call.names[-1].lower())
    return item if item is not None and item.scope.lower() == _scope(call).lower() else None


def get_assignment(call: HubCall) -> Reply:
    """GET of one, at its own scope."""
    scope = _scope(call)
    call.require(Action.ROLE_ASSIGNMENT_READ, scope)
    with call.hub.database.read() as session:
        item = _find(call, session)
        if item is None:
            raise not_found(_below(scope, f"{ASSIGNMENTS}/{call.names[-1]}"))
        known = assignments.holders(session, {item.object_id})
        return Reply(200, _shown(item, known.get(item.object_id)))


def put_assignment(call: HubCall) -> Reply:
    """PUT: 201 made, 200 when this very one is there."""
    scope, name = _scope(call), call.names[-1].lower()
    call.require(Action.ROLE_ASSIGNMENT_WRITE, scope)
    if not is_guid(name):
        raise ApiError(400, "InvalidRoleAssignmentId", "The name of a role assignment must be a GUID.")
    properties = call.body().get("properties")
    if not isinstance(properties, dict):
        raise bad_content("'properties' must be an object with 'roleDefinitionId' and 'principalId'.", "properties")
    if properties.get("condition"):
        raise bad_content("This hub knows no conditions of role assignments.", "properties.condition")
    wish = Wish(name, guid(properties, "principalId"), role_of_definition(properties.get("roleDefinitionId")), scope)
    with call.hub.database.write() as session:
        made, fresh = assignments.put(session, wish, call.at, call.caller.object_id)
        record(call, session, Action.ROLE_ASSIGNMENT_WRITE, made)
        known = assignments.holders(session, {made.object_id})
        return Reply(201 if fresh else 200, _shown(made, known.get(made.object_id)))


def delete_assignment(call: HubCall) -> Reply:
    """DELETE: 200, and 204 when there is none."""
    call.require(Action.ROLE_ASSIGNMENT_DELETE, _scope(call))
    with call.hub.database.write() as session:
        item = _find(call, session)
        if item is None:
            return Reply(204)
        record(call, session, Action.ROLE_ASSIGNMENT_DELETE, item)
        known = assignments.holders(session, {item.object_id})
        answer = _shown(item, known.get(item.object_id))
        session.delete(item)
        return Reply(200, answer)

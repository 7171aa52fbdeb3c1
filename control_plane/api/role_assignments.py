# SPDX-License-Identifier: Apache-2.0
"""Role assignments (docs/protocol.md section 4b). Rights are asked for at the assignment's own scope, so that nobody
gives what lies above him."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from control_plane.arm import paging, scopes
from control_plane.arm.roles import HUB, Action
from control_plane.bodies import guid, is_guid
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import bad_content
from control_plane.fleet.filters import bad_parameter
from control_plane.http import Reply
from control_plane.people import assignments
from control_plane.people.assignments import Wish
from control_plane.storage.models import RoleAssignment

PARAMETERS = ("objectId", "scope", "$top", "$skiptoken")
_MEMBERS = frozenset({"objectId", "role", "scope"})


def _shown(session: Session, items: Sequence[RoleAssignment]) -> list[dict[str, Any]]:
    known = assignments.holders(session, {item.object_id for item in items})
    return [
        {
            "name": item.id,
            "objectId": item.object_id,
            "holder": known[item.object_id].name if item.object_id in known else None,
            "kind": known[item.object_id].kind if item.object_id in known else None,
            "role": item.role,
            "scope": item.scope,
            "created": rfc3339(item.created),
            "createdBy": item.created_by,
        }
        for item in items
    ]


def list_assignments(call: HubCall) -> Reply:
    """GET /hawser/v1/roleAssignments: those at and below `scope` (default: everything) that the caller may see,
    in pages.

    Errors: ApiError 400, 403.
    """
    container = assignments.scope_of(call.query.get("scope") or HUB)
    object_id = call.query.get("objectid") or None
    if object_id is not None and not is_guid(object_id):
        raise bad_parameter("objectId", "must be a GUID")
    seen = scopes.require(call.caller, Action.ROLE_ASSIGNMENT_READ, container)
    with call.hub.database.read() as session:
        found = assignments.visible(session, seen, object_id)
        within = [item for item in found if scopes.shown((container,), item.scope)]
        page, link = paging.slice_of(call, within, lambda item: f"{item.created:012} {item.id}")
        return Reply(200, {"value": _shown(session, page), "nextLink": link})


def _name(call: HubCall) -> str:
    if not is_guid(call.names[0]):
        raise bad_content("The name of a role assignment must be a GUID.", "name")
    return call.names[0].lower()


def put_assignment(call: HubCall) -> Reply:
    """PUT /hawser/v1/roleAssignments/{name}: 201 made, 200 when this very one is there.

    Errors: ApiError 400, 403, 404, 409.
    """
    name, body = _name(call), call.body()
    unknown = sorted(set(body) - _MEMBERS)
    if unknown:
        raise bad_content(f"There is no member '{unknown[0][:80]}' here.", unknown[0][:80])
    wish = Wish(
        name, guid(body, "objectId"), assignments.role_of(body.get("role")), assignments.scope_of(body.get("scope"))
    )
    call.require(Action.ROLE_ASSIGNMENT_WRITE, wish.scope)
    with call.hub.database.write() as session:
        made, fresh = assignments.put(session, wish, call.at, call.caller.object_id, unknown=404)
        record(call, session, Action.ROLE_ASSIGNMENT_WRITE, made)
        return Reply(201 if fresh else 200, _shown(session, [made])[0])


def delete_assignment(call: HubCall) -> Reply:
    """DELETE /hawser/v1/roleAssignments/{name}: 200, or 204 when there is none that the caller may see.

    Errors: ApiError 400, 403.
    """
    name = _name(call)
    with call.hub.database.write() as session:
        found = session.get(RoleAssignment, name)
        if found is None:
            call.require(Action.ROLE_ASSIGNMENT_DELETE, HUB)
            call.record(session, Action.ROLE_ASSIGNMENT_DELETE, f"/roleAssignments/{name}", {"found": False})
            return Reply(204)
        call.require(Action.ROLE_ASSIGNMENT_DELETE, found.scope)
        record(call, session, Action.ROLE_ASSIGNMENT_DELETE, found)
        answer = _shown(session, [found])[0]
        session.delete(found)
        return Reply(200, answer)


def record(call: HubCall, session: Session, action: Action, item: RoleAssignment) -> None:
    """Audit a change: the target is the scope, so that who reads the audit of a part sees it."""
    call.record(session, action, item.scope, {"role": item.role, "objectId": item.object_id, "name": item.id})

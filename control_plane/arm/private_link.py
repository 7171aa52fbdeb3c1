# SPDX-License-Identifier: Apache-2.0
"""What hangs below private link scopes. The hub keeps the scopes and makes no private endpoints, so that there are no
connections, no link resources and no perimeters below them."""

from __future__ import annotations

from typing import Any

from control_plane.arm import kinds, paths, typed
from control_plane.arm.roles import Action
from control_plane.call import HubCall
from control_plane.errors import ApiError, not_found
from control_plane.http import Reply
from control_plane.storage import machines, resources
from control_plane.storage.resource_models import Resource


def _scope(call: HubCall, action: Action) -> str:
    """The id of the private link scope in the path, which is there.

    Errors: ApiError 403, 404.
    """
    wanted = f"{paths.group_id(*call.names[:2])}/providers/{kinds.PRIVATE_LINK_SCOPE.type}/{call.names[2]}"
    call.require(action, wanted)
    with call.hub.database.read() as session:
        call.group(session)
        found = resources.find(session, wanted)
    if found is None:
        raise not_found(wanted)
    return found.resource_id


def nothing(call: HubCall) -> Reply:
    """GET of a list below a scope."""
    _scope(call, Action.SCOPE_READ)
    return Reply(200, {"value": []})


def absent(call: HubCall) -> Reply:
    """GET, POST, DELETE of one thing below a scope."""
    _scope(call, Action.SCOPE_READ if call.http.method == "GET" else Action.SCOPE_WRITE)
    if call.http.method == "DELETE":
        return Reply(204)
    raise not_found(call.http.path)


def put_connection(call: HubCall) -> Reply:
    """PUT of a private endpoint connection: there is no endpoint to approve."""
    scope = _scope(call, Action.SCOPE_WRITE)
    raise ApiError(
        400, "OperationNotSupported", f"Private endpoints are not part of this hub; '{scope}' can have no connections."
    )


def _details(call: HubCall, row: Resource) -> dict[str, Any]:
    shown = typed.resource_json(kinds.PRIVATE_LINK_SCOPE, row, call.hub.settings.tenant_id)
    access = shown["properties"]["publicNetworkAccess"]
    return {"id": row.resource_id, "publicNetworkAccess": access, "connectionDetails": []}


def details(call: HubCall) -> Reply:
    """GET locations/{l}/privateLinkScopes/{id}: of the scope whose `privateLinkScopeId` this is."""
    prefix, wanted = f"/subscriptions/{call.names[0]}", call.names[2].lower()
    call.require(Action.SCOPE_READ, prefix)
    kind = kinds.PRIVATE_LINK_SCOPE
    with call.hub.database.read() as session:
        found, _ = resources.of_kind(session, kind.key, prefix, (prefix,), 0, None)
    for row in found:
        shown = typed.resource_json(kind, row, call.hub.settings.tenant_id)
        if shown["properties"]["privateLinkScopeId"] == wanted:
            return Reply(200, _details(call, row))
    raise not_found(call.http.path)


def details_of_machine(call: HubCall) -> Reply:
    """GET machines/{m}/privateLinkScopes/current: of the scope that the machine names."""
    target = str(paths.MachineId(*call.names[:3]))
    call.require(Action.MACHINE_READ, target)
    with call.hub.database.read() as session:
        machine = machines.find_machine(session, call.group(session), call.names[2])
        named = machine.properties.get("privateLinkScopeResourceId") if machine else None
        row = resources.find(session, str(named)) if named else None
    if row is None or row.type != kinds.PRIVATE_LINK_SCOPE.key or call.names[3].lower() != "current":
        raise not_found(call.http.path)
    return Reply(200, _details(call, row))

# SPDX-License-Identifier: Apache-2.0
"""GET, PUT, PATCH, DELETE and lists of the types in kinds.py. Writing the same thing twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy.orm import Session

from control_plane.arm import kinds, machine_body, operations, paging, paths, scopes
from control_plane.arm.kinds import Kind
from control_plane.arm.locations import known_location
from control_plane.call import Handler, HubCall
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, bad_content, not_found
from control_plane.http import Reply
from control_plane.storage import machines, resources
from control_plane.storage.models import Machine, ResourceGroup
from control_plane.storage.resource_models import Resource


def _derived(kind: Kind, row: Resource, tenant_id: str) -> dict[str, Any]:
    """Members of `properties` that the hub writes. Ids are derived from the resource's own: the same at every read."""
    own = str(uuid5(NAMESPACE_URL, f"{row.key}#{row.created}"))
    if kind is kinds.LICENSE:
        details = {**row.properties.get("licenseDetails", {}), "immutableId": own}
        return {"tenantId": tenant_id, "licenseDetails": details}
    if kind is kinds.GATEWAY:
        return {"gatewayId": own, "gatewayType": row.properties.get("gatewayType", "Public")}
    if kind is kinds.PRIVATE_LINK_SCOPE:
        return {
            "privateLinkScopeId": own,
            "publicNetworkAccess": row.properties.get("publicNetworkAccess", "Disabled"),
            "privateEndpointConnections": [],
        }
    return {"tenantId": tenant_id} if kind is kinds.SETTINGS else {}


def resource_json(kind: Kind, row: Resource, tenant_id: str) -> dict[str, Any]:
    """The whole resource."""
    shown: dict[str, Any] = {"id": row.resource_id, "name": row.name, "type": kind.type}
    if kind.location:
        shown |= {"location": row.location, "tags": row.tags}
    properties = {**row.properties, **_derived(kind, row, tenant_id)}
    if kind is not kinds.SETTINGS:
        properties["provisioningState"] = "Succeeded"
    return shown | {
        "systemData": {
            "createdBy": row.created_by,
            "createdByType": row.created_by_type,
            "createdAt": rfc3339(row.created),
            "lastModifiedBy": row.modified_by,
            "lastModifiedByType": row.modified_by_type,
            "lastModifiedAt": rfc3339(row.modified),
        },
        "properties": properties,
    }


def _place(call: HubCall, session: Session, kind: Kind) -> tuple[ResourceGroup, Machine | None, str]:
    """The group, the machine that the resource hangs below if it does, and the id up to the type.

    Errors: ApiError 404 for whatever of it is not there.
    """
    group = call.group(session)
    if not kind.below_machine:
        return group, None, f"{paths.group_id(group.subscription_id, group.name)}/providers/{paths.PROVIDER}"
    machine = machines.find_machine(session, group, call.names[2])
    if machine is None:
        raise not_found(str(paths.MachineId(group.subscription_id, group.name, call.names[2])))
    return group, machine, str(paths.MachineId(group.subscription_id, group.name, machine.name))


def _id(kind: Kind, place: str, name: str) -> str:
    last = kind.type.rpartition("/")[2]
    return f"{place}/providers/{kind.type}/{name}" if kind is kinds.SETTINGS else f"{place}/{last}/{name}"


def _where(call: HubCall, kind: Kind) -> str:
    """The id that rights are asked at: the machine's where there is one, else the resource's own."""
    if kind.below_machine:
        return str(paths.MachineId(*call.names[:3]))
    return f"{paths.group_id(*call.names[:2])}/providers/{kind.type}/{call.names[2]}"


def _find(call: HubCall, session: Session, kind: Kind) -> Resource:
    _, _, place = _place(call, session, kind)
    wanted = _id(kind, place, call.names[-1])
    row = resources.find(session, wanted)
    if row is None:
        raise not_found(wanted)
    return row


def getter(kind: Kind) -> Handler:
    """GET of one."""

    def get(call: HubCall) -> Reply:
        call.require(kind.read, _where(call, kind))
        with call.hub.database.read() as session:
            return Reply(200, resource_json(kind, _find(call, session, kind), call.hub.settings.tenant_id))

    return get


def header(kind: Kind) -> Handler:
    """HEAD of one: 204 when it is there."""

    def head(call: HubCall) -> Reply:
        call.require(kind.read, _where(call, kind))
        with call.hub.database.read() as session:
            _find(call, session, kind)
        return Reply(204)

    return head


def lister(kind: Kind) -> Handler:
    """GET of the collection in a subscription, a group or below a machine, in pages."""

    def list_all(call: HubCall) -> Reply:
        after, size = paging.wanted(call)
        with call.hub.database.read() as session:
            container = f"/subscriptions/{call.subscription(session).id}"
            if kind.below_machine:
                _, _, container = _place(call, session, kind)
            elif len(call.names) == 2:
                container = paths.group_id(call.names[0], call.group(session).name)
            seen = scopes.require(call.caller, kind.read, container)
            found, last = resources.of_kind(session, kind.key, container, seen, after, size)
        value = [resource_json(kind, row, call.hub.settings.tenant_id) for row in found]
        return Reply(200, paging.page(call, value, last))

    return list_all


def _check_name(kind: Kind, name: str) -> None:
    if kind.only_name is not None and name.lower() != kind.only_name:
        raise ApiError(400, "InvalidResourceName", f"A resource of type '{kind.type}' has the name '{kind.only_name}'.")
    if not paths.is_machine_name(name):
        raise ApiError(
            400,
            "InvalidResourceName",
            f"The resource name '{name[:80]}' must have 1 to 54 letters, digits, '-', '_' or '.'.",
        )


def _location(session: Session, kind: Kind, given: object, row: Resource | None, machine: Machine | None) -> str:
    """Errors: ApiError 400 without one that is needed, 409 for another one than before."""
    if not kind.location:
        return machine.location if machine else ""
    if given is None or given == "":
        if row is not None:
            return row.location
        raise ApiError(400, "LocationRequired", "The location property is required for this definition.")
    if not isinstance(given, str):
        raise bad_content("'location' must be a text.", "location")
    found = known_location(session, given, kind.type, "LocationNotAvailableForResourceType")
    if row is not None and row.location != found:
        raise ApiError(
            409,
            "InvalidResourceLocation",
            f"The resource '{row.name}' already exists in location '{row.location}'; a resource with the same name "
            f"cannot be created in location '{found}'.",
            target="location",
        )
    return found


def _write(call: HubCall, row: Resource, tags: object, properties: dict[str, Any]) -> None:
    """Take over what was sent."""
    row.properties = machine_body.merged(row.properties, properties)
    if tags is not None:
        row.tags = machine_body.tags(tags)
    row.modified, row.modified_by, row.modified_by_type = call.at, call.caller.client_id, call.caller.audit_type


def _answer(call: HubCall, session: Session, kind: Kind, row: Resource, status: int) -> Reply:
    shown = resource_json(kind, row, call.hub.settings.tenant_id)
    if not kind.long:
        return Reply(status, shown)
    return Reply(status, shown, operations.finished(call, session, kind.write, row.resource_id, row.location, shown))


def putter(kind: Kind) -> Handler:
    """PUT. A member that is not sent stays as it is."""

    def put(call: HubCall) -> Reply:
        call.require(kind.write, _where(call, kind))
        _check_name(kind, call.names[-1])
        body = call.body()
        properties = kinds.properties(kind, body.get("properties"))
        with call.hub.database.write() as session:
            group, machine, place = _place(call, session, kind)
            wanted = _id(kind, place, call.names[-1])
            row = resources.find(session, wanted)
            location = _location(session, kind, body.get("location"), row, machine)
            made = row is None
            if row is None:
                row = Resource(
                    key=wanted.lower(),
                    resource_id=wanted,
                    type=kind.key,
                    name=call.names[-1],
                    subscription_id=group.subscription_id,
                    group_id=group.id,
                    machine_id=machine.id if machine else None,
                    location=location,
                    tags={},
                    properties={},
                    created=call.at,
                    created_by=call.caller.client_id,
                    created_by_type=call.caller.audit_type,
                )
                session.add(row)
            _write(call, row, body.get("tags"), properties)
            call.record(session, kind.write, wanted)
            return _answer(call, session, kind, row, kind.made if made else 200)

    return put


def patcher(kind: Kind) -> Handler:
    """PATCH: tags as a whole, and what of `properties` is sent."""

    def patch(call: HubCall) -> Reply:
        call.require(kind.write, _where(call, kind))
        body = call.body()
        properties = kinds.properties(kind, body.get("properties"), patch=True)
        with call.hub.database.write() as session:
            row = _find(call, session, kind)
            _write(call, row, body.get("tags"), properties)
            call.record(session, kind.write, row.resource_id)
            return _answer(call, session, kind, row, 200)

    return patch


def deleter(kind: Kind) -> Handler:
    """DELETE: 204, also when there is none."""
    action = kind.delete or kind.write

    def delete(call: HubCall) -> Reply:
        call.require(action, _where(call, kind))
        with call.hub.database.write() as session:
            found = resources.target(session, call.http.path)
            row = found.target if found else None
            if not isinstance(row, Resource):
                return Reply(204)
            session.delete(row)
            call.record(session, action, row.resource_id)
        return Reply(204)

    return delete


def methods(kind: Kind) -> dict[str, Handler]:
    """The methods of one resource of this type."""
    found: dict[str, Callable[[HubCall], Reply]] = {
        "GET": getter(kind),
        "HEAD": header(kind),
        "PUT": putter(kind),
        "PATCH": patcher(kind),
    }
    return found | ({"DELETE": deleter(kind)} if kind.delete else {})


def validate_license(call: HubCall) -> Reply:
    """POST validateLicense: the licence as it would be kept; nothing is written."""
    call.require(kinds.LICENSE.write, f"/subscriptions/{call.names[0]}")
    body = call.body()
    properties = kinds.properties(kinds.LICENSE, body.get("properties"))
    with call.hub.database.read() as session:
        location = _location(session, kinds.LICENSE, body.get("location"), None, None)
    return Reply(
        200,
        {
            "type": kinds.LICENSE.type,
            "location": location,
            "tags": machine_body.tags(body.get("tags")),
            "properties": {**properties, "tenantId": call.hub.settings.tenant_id, "provisioningState": "Succeeded"},
        },
    )

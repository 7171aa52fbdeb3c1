# SPDX-License-Identifier: Apache-2.0
"""Resource groups."""

from __future__ import annotations

from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm import machine_body, operations, paging, paths, resource_filter, scopes
from control_plane.arm.locations import known_location
from control_plane.arm.resource_filter import Facts
from control_plane.arm.roles import Action
from control_plane.call import HubCall
from control_plane.errors import ApiError, bad_content
from control_plane.http import Reply
from control_plane.storage import audit, machines, visible
from control_plane.storage.models import Machine, ResourceGroup

_TYPE = "Microsoft.Resources/resourceGroups"


def _json(group: ResourceGroup) -> dict[str, Any]:
    return {
        "id": paths.group_id(group.subscription_id, group.name),
        "name": group.name,
        "type": _TYPE,
        "location": group.location,
        "tags": group.tags,
        "properties": {"provisioningState": "Succeeded"},
    }


def _facts(group: ResourceGroup) -> Facts:
    return Facts(group.name, _TYPE, group.name, group.location, group.tags)


def _scope(call: HubCall) -> str:
    return paths.group_id(call.names[0].lower(), call.names[1])


def new_group(
    session: Session, subscription_id: str, name: str, location: str, at: int, *, ticket_id: str | None = None
) -> ResourceGroup:
    """Add a group; the caller has checked rights and location.

    Errors: ApiError 400 `InvalidResourceGroup` for a name that cannot be one.
    """
    if not paths.is_group_name(name):
        raise ApiError(
            400,
            "InvalidResourceGroup",
            f"The resource group name '{name}' must have 1 to 90 letters, digits, '-', '_', '.', '(' or ')' and must "
            "not end with a dot.",
        )
    group = ResourceGroup(
        subscription_id=subscription_id,
        name=name,
        name_key=name.lower(),
        location=location,
        tags={},
        ticket_id=ticket_id,
        created=at,
    )
    session.add(group)
    session.flush()
    return group


def get_group(call: HubCall) -> Reply:
    """GET; 404 `ResourceGroupNotFound`."""
    call.require(Action.GROUP_READ, _scope(call))
    with call.hub.database.read() as session:
        call.subscription(session)
        return Reply(200, _json(call.group(session)))


def head_group(call: HubCall) -> Reply:
    """HEAD: 204 when it is there, 404 when not."""
    call.require(Action.GROUP_READ, _scope(call))
    with call.hub.database.read() as session:
        call.subscription(session)
        found = machines.find_group(session, call.names[0], call.names[1])
    return Reply(204 if found else 404)


def list_groups(call: HubCall) -> Reply:
    """GET of the collection, with `$filter`, in pages."""
    node = resource_filter.read(call.query.get("$filter"))
    after, size = paging.wanted(call)
    with call.hub.database.read() as session:
        subscription = call.subscription(session)
        seen = scopes.require(call.caller, Action.GROUP_READ, f"/subscriptions/{subscription.id}")
        query = select(ResourceGroup).where(ResourceGroup.subscription_id == subscription.id, ResourceGroup.id > after)
        query = query.where(visible.groups_in(seen))
        every = session.scalars(query.order_by(ResourceGroup.id).execution_options(yield_per=paging.MAX_PAGE))
        asked = (item for item in every if resource_filter.holds(node, _facts(item)))
        found = list(islice(asked, size + 1))
    value = [_json(item) for item in found[:size]]
    return Reply(200, paging.page(call, value, found[size - 1].id if len(found) > size else None))


def put_group(call: HubCall) -> Reply:
    """PUT: 201 made, 200 changed. The location of an existing group stays."""
    body = call.body()
    call.require(Action.GROUP_WRITE, _scope(call))
    given = body.get("location")
    if not isinstance(given, str) or not given:
        raise ApiError(400, "LocationRequired", "The location property is required for this definition.")
    tags = machine_body.tags(body.get("tags"))
    with call.hub.database.write() as session:
        subscription = call.subscription(session)
        location = known_location(session, given, _TYPE, "LocationNotAvailableForResourceGroup")
        group = machines.find_group(session, subscription.id, call.names[1])
        made = group is None
        if group is None:
            group = new_group(session, subscription.id, call.names[1], location, call.at)
        elif group.location != location:
            raise ApiError(
                409,
                "InvalidResourceGroupLocation",
                f"The resource group '{group.name}' is in location '{group.location}', which cannot be changed.",
            )
        if made or "tags" in body:
            group.tags = tags
        call.record(session, Action.GROUP_WRITE, _scope(call))
        return Reply(201 if made else 200, _json(group))


def patch_group(call: HubCall) -> Reply:
    """PATCH of the tags."""
    body = call.body()
    call.require(Action.GROUP_WRITE, _scope(call))
    if "name" in body and str(body["name"]).lower() != call.names[1].lower():
        raise bad_content("A resource group cannot be renamed.", "name")
    with call.hub.database.write() as session:
        call.subscription(session)
        group = call.group(session)
        if body.get("tags") is not None:
            group.tags = machine_body.tags(body["tags"])
        call.record(session, Action.GROUP_WRITE, _scope(call))
        return Reply(200, _json(group))


def delete_group(call: HubCall) -> Reply:
    """DELETE with everything in it: 202, and the operation that its headers name has ended by then."""
    call.require(Action.GROUP_DELETE, _scope(call))
    with call.hub.database.write() as session:
        call.subscription(session)
        group = call.group(session)
        members = session.scalars(select(Machine).where(Machine.group_id == group.id)).all()
        gone = {
            str(paths.MachineId(group.subscription_id, group.name, machine.name)): {"vmId": machine.vm_id}
            for machine in members
        }
        audit.record_all(session, call.actor, Action.MACHINE_DELETE.value, gone, call.http.request_id)
        for machine in members:
            session.delete(machine)
        session.flush()
        session.delete(group)
        call.record(session, Action.GROUP_DELETE, _scope(call), {"machines": len(members)})
        headers = operations.finished(call, session, Action.GROUP_DELETE, _scope(call), group.location)
    for machine in members:
        call.hub.live.dropped(machine.id)
    return Reply(202, None, headers)

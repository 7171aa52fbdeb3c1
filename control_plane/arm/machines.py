# SPDX-License-Identifier: Apache-2.0
"""`Microsoft.HybridCompute/machines`: GET, LIST, PUT, PATCH, DELETE and what hangs below one machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm import groups, machine_body, paging, paths, scopes
from control_plane.arm.locations import known_location
from control_plane.arm.machine_body import Wish
from control_plane.arm.machine_view import MachineRow, machine_json, network_profile
from control_plane.arm.roles import Action, MachineFacts
from control_plane.arm.status import AWAITING
from control_plane.call import HubCall
from control_plane.errors import ApiError, forbidden, not_found
from control_plane.http import Reply
from control_plane.storage import agent_packages, extensions, machines, restored
from control_plane.storage.models import Machine, ResourceGroup
from control_plane.upgrades import wish as upgrades

CREATE_GROUP_HEADER = "hawser-create-group"
FIRST_GENERATIONS = {"resource": 1, "settings": 1, "extensions": 0, "policy": 0, "runcommands": 0, "agent": 0}


def _id(call: HubCall) -> paths.MachineId:
    return paths.MachineId(call.names[0].lower(), call.names[1], call.names[2])


def _find(call: HubCall, session: Session) -> MachineRow:
    call.subscription(session)
    group = call.group(session)
    machine = machines.find_machine(session, group, call.names[2])
    if machine is None:
        raise not_found(str(_id(call)))
    return machines.complete(session, machine, group.name, call.hub.live.pulse)


def _facts(row: MachineRow, at: int) -> MachineFacts:
    return MachineFacts(row.machine.created_by_object, row.machine.ticket_id, row.status(at).word == AWAITING)


def _expand(call: HubCall) -> bool:
    return call.query.get("$expand", "").lower() == "instanceview"


def _all_shown(call: HubCall, session: Session, rows: Sequence[MachineRow]) -> list[dict[str, Any]]:
    """Machines as they are asked for: expanded with their extensions, where the caller may read those."""
    tenant_id = call.hub.settings.tenant_id
    if not _expand(call):
        return [machine_json(row, tenant_id, call.at) for row in rows]
    kept = extensions.of_machines(session, (row.machine.id for row in rows))
    return [
        machine_json(
            row,
            tenant_id,
            call.at,
            kept.get(row.machine.id, []) if call.may(Action.EXTENSION_READ, str(row.id)) else [],
        )
        for row in rows
    ]


def _shown(call: HubCall, session: Session, row: MachineRow) -> dict[str, Any]:
    return _all_shown(call, session, [row])[0]


def get_machine(call: HubCall) -> Reply:
    """GET, with `$expand=instanceView`."""
    call.require(Action.MACHINE_READ, str(_id(call)))
    with call.hub.database.read() as session:
        return Reply(200, _shown(call, session, _find(call, session)))


def head_machine(call: HubCall) -> Reply:
    """HEAD: 204 when it is there."""
    call.require(Action.MACHINE_READ, str(_id(call)))
    with call.hub.database.read() as session:
        _find(call, session)
    return Reply(204)


def list_machines(call: HubCall) -> Reply:
    """GET of the collection in a group or a subscription, in pages."""
    after, size = paging.wanted(call)
    with call.hub.database.read() as session:
        subscription = call.subscription(session)
        group = call.group(session) if len(call.names) > 1 else None
        prefix = f"/subscriptions/{subscription.id}"
        container = paths.group_id(subscription.id, group.name) if group else prefix
        rows, last = machines.page(
            session,
            call.hub.live.pulse,
            scopes=scopes.require(call.caller, Action.MACHINE_READ, container),
            subscription_id=subscription.id,
            group=group,
            after=after,
            size=size,
        )
        value = _all_shown(call, session, rows)
    return Reply(200, paging.page(call, value, last))


def _group_for_put(call: HubCall, session: Session, location: str) -> ResourceGroup:
    """The group; made here when the caller asks for it and may create machines (docs/protocol.md section 4)."""
    group = machines.find_group(session, call.names[0], call.names[1])
    if group is not None:
        return group
    if call.http.headers.get(CREATE_GROUP_HEADER, "").lower() != "true":
        return call.group(session)
    ticket_id = call.caller.grant.ticket_id if call.caller.grant else None
    made = groups.new_group(session, call.names[0].lower(), call.names[1], location, call.at, ticket_id=ticket_id)
    call.record(session, Action.GROUP_WRITE, paths.group_id(made.subscription_id, made.name), {"with": call.names[2]})
    return made


def put_machine(call: HubCall) -> Reply:
    """PUT, always 200. Idempotent for the same `vmId` and key; 409 `Conflict` for another one's name."""
    if not paths.is_machine_name(call.names[2]):
        raise ApiError(
            400,
            "InvalidResourceName",
            f"The resource name '{call.names[2][:80]}' must have 1 to 54 letters, digits, '-', '_' or '.'.",
        )
    target = str(_id(call))
    if not _may_rewrite(call):
        call.require(Action.MACHINE_CREATE, target)
    wish = machine_body.read_put(call.body())
    with call.hub.database.write() as session:
        call.subscription(session)
        group = machines.find_group(session, call.names[0], call.names[1])
        machine = machines.find_machine(session, group, call.names[2]) if group else None
        if group is None or machine is None:
            machine, group = _create(call, session, wish)
        else:
            _check_same(machine, group, wish)
            _rewrite(call, session, machines.complete(session, machine, group.name, call.hub.live.pulse), wish)
        row = machines.complete(session, machine, group.name, call.hub.live.pulse)
        answer = Reply(200, _shown(call, session, row))
        generations = dict(machine.generations)
    call.hub.live.changed(machine.id, generations)
    return answer


def _may_rewrite(call: HubCall) -> bool:
    """True when the caller's PUT may change all that it names. A ticket's may not: `update` is PATCH of tags alone."""
    return call.caller.grant is None and call.may(Action.MACHINE_WRITE, str(_id(call)))


def _create(call: HubCall, session: Session, wish: Wish) -> tuple[Machine, ResourceGroup]:
    if call.caller.grant and _id(call).key in call.caller.grant.spent:
        raise ApiError(403, "TicketSpent", "The ticket was used for an enrolment before; ask for a new one.")
    call.require(Action.MACHINE_CREATE, str(_id(call)))
    if not wish.location:
        raise ApiError(400, "LocationRequired", "The location property is required for this definition.")
    location = known_location(session, wish.location, paths.MACHINE_TYPE, "LocationNotAvailableForResourceType")
    group = _group_for_put(call, session, location)
    caller = call.caller
    machine = Machine(
        subscription_id=group.subscription_id,
        group_id=group.id,
        name=call.names[2],
        name_key=call.names[2].lower(),
        location=location,
        tags=wish.tags or {},
        kind=wish.kind,
        identity_type=wish.identity_type or "SystemAssigned",
        vm_id=wish.vm_id or str(uuid4()),
        vm_id_given=wish.vm_id is not None,
        client_public_key=wish.client_public_key,
        properties=_with_upgrade(session, None, {}, wish),
        client_id=str(uuid4()),
        principal_id=str(uuid4()),
        generations=dict(FIRST_GENERATIONS),
        ticket_id=caller.grant.ticket_id if caller.grant else None,
        created=call.at,
        created_by=caller.client_id,
        created_by_type=caller.audit_type,
        created_by_object=caller.object_id,
        modified=call.at,
        modified_by=caller.client_id,
        modified_by_type=caller.audit_type,
    )
    session.add(machine)
    if upgrades.MEMBER in machine.properties:
        machine.generations = {**machine.generations, "agent": restored.next_generation(machine, "agent")}
    session.flush()
    call.record(session, Action.MACHINE_CREATE, str(_id(call)), {"vmId": machine.vm_id})
    return machine, group


def _check_same(machine: Machine, group: ResourceGroup, wish: Wish) -> None:
    """Errors: ApiError 409: `Conflict` for another vmId or key, `InvalidResourceLocation` for another location."""
    other_id = wish.vm_id is not None and machine.vm_id_given and wish.vm_id != machine.vm_id
    other_key = (
        wish.client_public_key is not None
        and machine.client_public_key is not None
        and wish.client_public_key != machine.client_public_key
    )
    if other_id or other_key:
        raise ApiError(
            409,
            "Conflict",
            f"The name '{machine.name}' is taken in resource group '{group.name}' by a machine with another "
            f"{'vmId' if other_id else 'clientPublicKey'}. Choose another name, or delete that machine first.",
        )
    if wish.location and paths.folded_location(wish.location) != paths.folded_location(machine.location):
        raise ApiError(
            409,
            "InvalidResourceLocation",
            f"The resource '{machine.name}' already exists in location '{machine.location}' in resource group "
            f"'{group.name}'. A resource with the same name cannot be created in location '{wish.location}'. "
            "Please select a new resource name.",
            target="location",
        )


def _rewrite(call: HubCall, session: Session, row: MachineRow, wish: Wish) -> None:
    """PUT on an existing machine. Who may only create gives it the identity that it lacks, or repeats that, and of
    what else is sent: all of it on a machine of his own that never connected, nothing on one that others made, and only
    what is so already once it has connected (docs/protocol.md section 4)."""
    machine, target = row.machine, str(_id(call))
    adopts = (wish.vm_id is not None and not machine.vm_id_given) or (
        wish.client_public_key is not None and machine.client_public_key is None
    )
    if adopts and machine.enrolled is not None:
        raise ApiError(409, "Conflict", f"The machine '{machine.name}' is enrolled; its identity cannot be replaced.")
    facts = _facts(row, call.at)
    own = facts.awaiting and facts.created_by_object == call.caller.object_id
    if not _may_rewrite(call):
        same_identity = wish.vm_id == machine.vm_id and wish.client_public_key == machine.client_public_key
        if not (same_identity or adopts) or (not facts.awaiting and _changes(machine, wish)):
            raise forbidden(
                f"The client '{call.caller.client_id}' may create machines, not change '{machine.name}', which exists."
            )
        wish = wish if own else wish.identity_alone
    if call.caller.grant is not None and own and machine.ticket_id is not None:
        # A connect of the same maker was interrupted, and goes on with another ticket: what it made is this one's.
        machine.ticket_id = call.caller.grant.ticket_id
    if wish.vm_id is not None:
        machine.vm_id, machine.vm_id_given = wish.vm_id, True
    if wish.client_public_key is not None:
        machine.client_public_key = wish.client_public_key
    _apply(call, session, machine, wish)
    call.record(session, Action.MACHINE_WRITE, target, _detail(machine, wish))


def _changes(machine: Machine, wish: Wish) -> bool:
    return (
        (wish.tags is not None and wish.tags != machine.tags)
        or (wish.kind is not None and wish.kind != machine.kind)
        or (wish.identity_type is not None and wish.identity_type != machine.identity_type)
        or machine_body.merged(machine.properties, wish.properties) != machine.properties
    )


def _with_upgrade(session: Session, machine: Machine | None, before: dict[str, Any], wish: Wish) -> dict[str, Any]:
    """Properties after a write, with the version of the agent that is wished.

    Errors: ApiError 400 `AgentVersionNotFound`.
    """
    made, name = machine_body.merged(before, wish.properties), upgrades.MEMBER
    if wish.properties.get(name) is not None:
        running = machine.agent_version if machine is not None else None
        published = agent_packages.versions(session)
        made[name] = upgrades.written(before.get(name), wish.properties[name], made[name], published, running)
    return made


def _detail(machine: Machine, wish: Wish) -> dict[str, Any] | None:
    """What the audit says of a write beside that there was one."""
    found: dict[str, Any] = {} if wish.tags is None else {"tags": wish.tags}
    if upgrades.MEMBER in wish.properties:
        found[upgrades.MEMBER] = machine.properties.get(upgrades.MEMBER)
    return found or None


def _apply(call: HubCall, session: Session, machine: Machine, wish: Wish) -> None:
    """Write what was sent, and raise the generation of each kind of desired state that it changes."""
    properties = _with_upgrade(session, machine, machine.properties, wish)
    raised = dict(machine.generations)
    if wish.tags is not None and wish.tags != machine.tags:
        raised["resource"] += 1
        machine.tags = wish.tags
    if properties.get("privateLinkScopeResourceId") != machine.properties.get("privateLinkScopeResourceId"):
        raised["settings"] += 1
    if properties.get(upgrades.MEMBER) != machine.properties.get(upgrades.MEMBER):
        raised["agent"] = restored.next_generation(machine, "agent")
    machine.properties = properties
    machine.generations = raised
    machine.kind = wish.kind or machine.kind
    machine.identity_type = wish.identity_type or machine.identity_type
    machine.modified = call.at
    machine.modified_by = call.caller.client_id
    machine.modified_by_type = call.caller.audit_type


def patch_machine(call: HubCall) -> Reply:
    """PATCH: `tags` as a whole, members of MachineUpdate; what is not sent stays."""
    target = str(_id(call))
    call.require(Action.MACHINE_WRITE, target)
    wish = machine_body.read_patch(call.body())
    if call.caller.grant is not None and not wish.only_tags:
        raise forbidden("The ticket allows a change of tags alone.")
    with call.hub.database.write() as session:
        row = _find(call, session)
        machine = row.machine
        _apply(call, session, machine, wish)
        call.record(session, Action.MACHINE_WRITE, target, _detail(machine, wish))
        answer = Reply(200, _shown(call, session, row))
        generations = dict(machine.generations)
    call.hub.live.changed(machine.id, generations)
    return answer


def delete_machine(call: HubCall) -> Reply:
    """DELETE with its identity; 204, also when there is none."""
    target = str(_id(call))
    with call.hub.database.write() as session:
        call.subscription(session)
        group = machines.find_group(session, call.names[0], call.names[1])
        machine = machines.find_machine(session, group, call.names[2]) if group else None
        if group is None or machine is None:
            if not call.may(Action.MACHINE_CREATE, target):
                call.require(Action.MACHINE_DELETE, target)
            return Reply(204)
        row = machines.complete(session, machine, group.name, call.hub.live.pulse)
        call.require(Action.MACHINE_DELETE, target, _facts(row, call.at))
        session.delete(machine)
        session.flush()
        call.record(session, Action.MACHINE_DELETE, target, {"vmId": machine.vm_id})
        if call.caller.grant is not None and group.ticket_id == call.caller.grant.ticket_id:
            _drop_empty(call, session, group)
    call.hub.live.dropped(machine.id)
    return Reply(204)


def _drop_empty(call: HubCall, session: Session, group: ResourceGroup) -> None:
    """A connect that failed leaves nothing behind: not the group that its ticket brought into being either."""
    if session.scalars(select(Machine.id).where(Machine.group_id == group.id).limit(1)).first() is None:
        session.delete(group)
        call.record(session, Action.GROUP_DELETE, paths.group_id(group.subscription_id, group.name))


def get_network_profile(call: HubCall) -> Reply:
    """GET networkProfile."""
    call.require(Action.MACHINE_READ, str(_id(call)))
    with call.hub.database.read() as session:
        return Reply(200, network_profile(_find(call, session)))

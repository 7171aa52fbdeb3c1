# SPDX-License-Identifier: Apache-2.0
"""The fleet: lists, counts and one machine (docs/protocol.md section 4a)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane import support
from control_plane.arm import paging, paths, scopes
from control_plane.arm.machine_view import MachineRow, addresses, agent_upgrade
from control_plane.arm.roles import HUB, Action
from control_plane.arm.status import DISCONNECTED_AFTER
from control_plane.bodies import is_guid
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, not_found
from control_plane.extensions.view import summary
from control_plane.fleet import filters, twins
from control_plane.fleet.events import event_json
from control_plane.fleet.filters import FleetFilter
from control_plane.http import Reply
from control_plane.storage import extensions, fleet, history, machines, visible
from control_plane.storage.fleet import Cursor, Moment
from control_plane.storage.models import Credential, Machine, ResourceGroup
from control_plane.storage.twin_models import Origin

LIST_PARAMETERS = (*filters.PARAMETERS, "$orderby", "$top", "$skiptoken", "$count")
SUMMARY_PARAMETERS = filters.PARAMETERS
MAX_VALUES = 200
SHOWN_EVENTS = 50
SHOWN_TWINS = 20
_PAGES_SECONDS = 3600


def fleet_item(row: MachineRow, at: int) -> dict[str, Any]:
    """One machine of the fleet query; null where unknown."""
    inventory = row.reports.get("inventory", {})
    reported = addresses(row)
    peer = row.pulse.address if row.pulse else None
    return {
        "id": str(row.id),
        "name": row.machine.name,
        "resourceGroup": row.group_name,
        "subscriptionId": row.machine.subscription_id,
        "location": row.machine.location,
        "tags": row.machine.tags,
        "status": row.status(at).word,
        "lastHeartbeat": rfc3339(row.pulse.seen) if row.pulse else None,
        "agentVersion": row.machine.agent_version,
        "osType": inventory.get("osType") or row.machine.properties.get("osType"),
        "osName": inventory.get("osName"),
        "osVersion": inventory.get("osVersion"),
        "osSku": inventory.get("osSku"),
        "address": peer or (reported[0] if reported else None),
        "addresses": reported,
        "vmId": row.machine.vm_id,
        "support": support.of_machine(row.machine.agent_version, inventory, at),
    }


def fleet_detail(session: Session, row: MachineRow, at: int) -> dict[str, Any]:
    """Everything that the hub knows of one machine and may show; null where unknown."""
    machine, pulse, state = row.machine, row.pulse, row.status(at)
    expires = session.scalars(
        select(Credential.expires).where(Credential.machine_id == machine.id, Credential.state == "current")
    ).first()
    return {
        **fleet_item(row, at),
        "kind": machine.kind,
        "statusSince": rfc3339(state.since),
        "connectedSince": rfc3339(pulse.connected_since) if pulse else None,
        "conflicts": pulse.conflicts if pulse else 0,
        "created": rfc3339(machine.created),
        "modified": rfc3339(machine.modified),
        "enrolled": rfc3339(machine.enrolled) if machine.enrolled else None,
        "certificateExpires": rfc3339(expires) if expires else None,
        "inventory": row.reports.get("inventory"),
        "configuration": row.reports.get("configuration"),
        "services": row.reports.get("services"),
        "agentUpgrade": agent_upgrade(row) or None,
    }


def readable(call: HubCall, action: Action, wanted: FleetFilter, session: Session) -> tuple[str, ...]:
    """The scopes that a list shows to the caller.

    Errors: ApiError 403 when it may see nothing of what is asked for, 404 for a subscription that is none.
    """
    if wanted.subscription_id is None:
        return scopes.require(call.caller, action, HUB)
    if machines.find_subscription(session, wanted.subscription_id) is None:
        raise ApiError(404, "SubscriptionNotFound", f"The subscription '{wanted.subscription_id}' could not be found.")
    return scopes.require(call.caller, action, f"/subscriptions/{wanted.subscription_id}")


def list_name(call: HubCall, names: Sequence[str]) -> str:
    """What a page's token is bound to: the path and all that decides what the list holds, and in which order."""
    kept = {name.lower() for name in names} - {"$top", "$skiptoken", "$count"}
    return f"{call.http.path}?{urlencode(sorted(pair for pair in call.http.pairs if pair[0] in kept and pair[1]))}"


def _read_cursor(call: HubCall) -> tuple[Cursor | None, int]:
    """Where the page begins, and the moment of the first one, so that no page sees another status than the others."""
    token = call.query.get("$skiptoken")
    if not token:
        return None, call.at
    value, machine_id, at = json.loads(paging.unseal(call.hub.keys.paging_key, list_name(call, LIST_PARAMETERS), token))
    return Cursor(value, machine_id), at if call.at - _PAGES_SECONDS < at <= call.at else call.at


def _moment(call: HubCall, at: int) -> Moment:
    return Moment(at, call.hub.live.fresh(at - DISCONNECTED_AFTER))


def list_machines(call: HubCall) -> Reply:
    """GET /hawser/v1/machines, in pages.

    Errors: ApiError 400, 403, 404.
    """
    query = call.query
    size = paging.page_size(query.get("$top"))
    wanted, order = filters.read(call.http.pairs), filters.order(query.get("$orderby"))
    counted = filters.switch("$count", query.get("$count"))
    after, at = _read_cursor(call)
    moment = _moment(call, at)
    with call.hub.database.read() as session:
        seen = readable(call, Action.MACHINE_READ, wanted, session)
        rows, last = fleet.page(session, call.hub.live.pulse, wanted, seen, moment, order, after, size)
        body: dict[str, Any] = {"value": [fleet_item(row, at) for row in rows], "nextLink": None}
        if counted:
            body["count"] = fleet.count(session, wanted, seen, moment)
    if last is not None:
        text = json.dumps([last.value, last.machine_id, at], separators=(",", ":"))
        skip = paging.seal(call.hub.keys.paging_key, list_name(call, LIST_PARAMETERS), text)
        body["nextLink"] = paging.next_link(call.http.origin, call.http.path, call.http.pairs, skip)
    return Reply(200, body)


def summarise(call: HubCall) -> Reply:
    """GET /hawser/v1/machines/summary: how many machines have which status, system, version, group and location.

    Errors: ApiError 400, 403, 404.
    """
    wanted = filters.read(call.http.pairs)
    with call.hub.database.read() as session:
        seen = readable(call, Action.MACHINE_READ, wanted, session)
        total, found = fleet.summary(session, wanted, seen, _moment(call, call.at))
    return Reply(200, {"total": total, **{name: _largest(counts) for name, counts in found.items()}})


def _largest(counts: dict[str, int]) -> dict[str, Any]:
    """The most frequent values; what is left out is counted in `others`."""
    turn = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "values": [{"value": value or None, "count": number} for value, number in turn[:MAX_VALUES]],
        "others": sum(number for _, number in turn[MAX_VALUES:]),
    }


def find(call: HubCall, session: Session, text: str) -> tuple[Machine, str]:
    """The machine that a resource id or a vmId names, and its group's name.

    Errors: ApiError 400 when it is neither, 403, 404, 409 for a vmId that several machines have.
    """
    query = select(Machine, ResourceGroup.name).join(ResourceGroup, Machine.group_id == ResourceGroup.id)
    if is_guid(text):
        seen = scopes.require(call.caller, Action.MACHINE_READ, HUB)
        query = query.where(Machine.vm_id == text.lower(), visible.machines_in(seen))
    else:
        resource = paths.machine_id("/" + text.lstrip("/"))
        if resource is None or not is_guid(resource.subscription):
            raise ApiError(400, "InvalidResourceId", f"'{text[:200]}' is neither the id of a machine nor a vmId.")
        call.require(Action.MACHINE_READ, str(resource))
        query = query.where(
            Machine.subscription_id == resource.subscription.lower(),
            ResourceGroup.name_key == resource.group.lower(),
            Machine.name_key == resource.name.lower(),
        )
    rows = session.execute(query.limit(2)).all()
    if not rows:
        raise not_found(text)
    if len(rows) > 1:
        raise ApiError(409, "Conflict", f"Several machines have the vmId '{text}'; name one by its resource id.")
    return rows[0][0], rows[0][1]


def get_machine(call: HubCall) -> Reply:
    """GET /hawser/v1/machines/{machine}.

    Errors: ApiError 400, 403, 404, 409.
    """
    with call.hub.database.read() as session:
        machine, group = find(call, session, call.names[0])
        row = machines.complete(session, machine, group, call.hub.live.pulse)
        told = history.newest(session, machine.id, SHOWN_EVENTS) if call.may(Action.EVENT_READ, str(row.id)) else []
        origin = session.get(Origin, machine.id)
        kept = extensions.of_machine(session, machine.id) if call.may(Action.EXTENSION_READ, str(row.id)) else []
        held = twins.of_machine(session, machine.id, SHOWN_TWINS) if call.may(Action.TWIN_READ, str(row.id)) else []
        return Reply(
            200,
            {
                **fleet_detail(session, row, call.at),
                "events": [event_json(item) for item in told],
                "origin": twins.origin_json(origin) if origin is not None else None,
                "twins": held,
                "extensions": [summary(item) for item in kept],
            },
        )

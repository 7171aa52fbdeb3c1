# SPDX-License-Identifier: Apache-2.0
"""`/hawser/v1`: tickets and the fleet query (docs/protocol.md sections 4 and 4a)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from control_plane import callers
from control_plane.arm import paging, paths
from control_plane.arm.machine_view import MachineRow, addresses
from control_plane.arm.roles import TICKET_RIGHTS, Action, Caller, allows, refusal
from control_plane.authority import claims as rules
from control_plane.authority.audiences import TICKET
from control_plane.bodies import CHANNEL_BODY, is_guid, json_object
from control_plane.clock import now, rfc3339
from control_plane.errors import ApiError, bad_content, forbidden
from control_plane.http import Call, json_response, read_call
from control_plane.hub import Hub
from control_plane.storage import audit, machines
from control_plane.storage.models import Ticket

MAX_OPERATIONS = 8


def read_operations(body: dict[str, Any]) -> list[dict[str, str]]:
    """The operations of a ticket request, checked as docs/schemas/tickets.schema.json says.

    Errors: ApiError 400.
    """
    operations = body.get("operations")
    if set(body) != {"operations"} or not isinstance(operations, list) or not 1 <= len(operations) <= MAX_OPERATIONS:
        raise bad_content(f"'operations' must be an array of 1 to {MAX_OPERATIONS}, and the only member.", "operations")
    found = []
    for item in operations:
        if not isinstance(item, dict) or set(item) != {"operation", "resourceId"}:
            raise bad_content("An operation has exactly 'operation' and 'resourceId'.", "operations")
        if item["operation"] not in TICKET_RIGHTS:
            raise bad_content(f"'operation' must be one of {', '.join(TICKET_RIGHTS)}.", "operations")
        text = item["resourceId"]
        resource = paths.machine_id(text) if isinstance(text, str) and len(text) <= 1024 else None
        if resource is None:
            raise bad_content("'resourceId' is not the id of a machine.", "operations")
        found.append({"operation": item["operation"], "resourceId": str(resource)})
    return found


def _check_rights(caller: Caller, operations: list[dict[str, str]]) -> None:
    for item in operations:
        for action in sorted(TICKET_RIGHTS[item["operation"]]):
            if not allows(caller, action, item["resourceId"]):
                raise forbidden(refusal(caller, action, item["resourceId"]))


def make_ticket(hub: Hub, call: Call) -> dict[str, Any]:
    """POST /hawser/v1/tickets.

    Errors: ApiError 400, 401, 403.
    """
    at = now()
    with hub.database.read() as session:
        caller = callers.authenticate(hub, session, call.headers.get("authorization"), at, tickets=False)
        operations = read_operations(json_object(call.body))
        for item in operations:
            subscription = item["resourceId"].split("/")[2]
            if machines.find_subscription(session, subscription) is None:
                raise ApiError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
    actor = audit.Actor(caller.kind, caller.client_id)
    try:
        _check_rights(caller, operations)
    except ApiError as error:
        target = operations[0]["resourceId"]
        audit.refused(hub.database, actor, "tickets", target, error.code, call.request_id)
        raise
    with hub.database.write() as session:
        ticket_id, expires = str(uuid4()), at + rules.TICKET_SECONDS
        session.add(
            Ticket(
                id=ticket_id,
                principal_id=caller.client_id,
                operations=operations,
                created=at,
                expires=expires,
                spent=[],
            )
        )
        for item in operations:
            audit.record(session, actor, f"tickets/{item['operation']}", item["resourceId"], request_id=call.request_id)
    subject = rules.Subject(caller.client_id, caller.object_id)
    claims = rules.access_claims(
        hub.settings.url, hub.settings.tenant_id, subject, TICKET, rules.SECRET, at, rules.TICKET_SECONDS, ticket_id
    )
    token = hub.tokens.sign({**claims, "jti": ticket_id})
    return {
        "accessToken": token,
        "expiresIn": rules.TICKET_SECONDS,
        "expiresOn": rfc3339(expires),
        "ticketId": ticket_id,
    }


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
    }


def fleet(hub: Hub, call: Call) -> dict[str, Any]:
    """GET /hawser/v1/machines, in pages.

    Errors: ApiError 400, 401, 403, 404.
    """
    at, query, key = now(), call.query, hub.keys.paging_key
    size = paging.page_size(query.get("$top"))
    scope = "|".join(
        [call.path, *(f"{name}={query.get(name, '')}" for name in ("subscriptionid", "resourcegroup", "name"))]
    )
    after = paging.read_token(key, scope, query["$skiptoken"]) if query.get("$skiptoken") else 0
    subscription_id = query.get("subscriptionid", "")
    if not is_guid(subscription_id):
        raise bad_content("The query parameter 'subscriptionId' must be a GUID.", "subscriptionId")
    with hub.database.read() as session:
        caller = callers.authenticate(hub, session, call.headers.get("authorization"), at, tickets=False)
        subscription = machines.find_subscription(session, subscription_id)
        if subscription is None:
            raise ApiError(404, "SubscriptionNotFound", f"The subscription '{subscription_id}' could not be found.")
        target = f"/subscriptions/{subscription.id}"
        if not allows(caller, Action.MACHINE_READ, target):
            raise forbidden(refusal(caller, Action.MACHINE_READ, target))
        group = None
        if query.get("resourcegroup"):
            group = machines.find_group(session, subscription.id, query["resourcegroup"])
            if group is None:
                return {"value": [], "nextLink": None}
        rows, last = machines.page(
            session,
            hub.live.pulse,
            subscription_id=subscription.id,
            group=group,
            after=after,
            size=size,
            name=query.get("name") or None,
        )
        value = [fleet_item(row, at) for row in rows]
    link = None
    if last is not None:
        link = paging.next_link(call.origin, call.path, dict(query), paging.token(key, scope, last))
    return {"value": value, "nextLink": link}


async def endpoint(hub: Hub, request: Request) -> Response:
    """Every path of `/hawser/v1`; errors are raised, the edge writes them."""
    settings = hub.settings
    call = await read_call(request, CHANNEL_BODY, settings.url, settings.known_hosts)
    routes = {"/hawser/v1/tickets": ("POST", 201, make_ticket), "/hawser/v1/machines": ("GET", 200, fleet)}
    found = routes.get(call.path.lower().rstrip("/"))
    if found is None:
        raise ApiError(404, "NotFound", "There is nothing at this path.")
    method, status, handler = found
    if request.method != method:
        raise ApiError(405, "MethodNotAllowed", f"This path takes {method}.", headers={"Allow": method})
    answer = await run_in_threadpool(handler, hub, call)
    return json_response(status, answer, {"x-ms-request-id": call.request_id, "Cache-Control": "no-store"})

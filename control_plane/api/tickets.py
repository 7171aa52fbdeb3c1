# SPDX-License-Identifier: Apache-2.0
"""Tickets (docs/protocol.md section 4)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from control_plane.arm import paths
from control_plane.arm.roles import TICKET_RIGHTS, Caller, allows, refusal
from control_plane.authority import claims as rules
from control_plane.authority.audiences import TICKET
from control_plane.bodies import one_of
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, bad_content
from control_plane.http import Reply
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
        operation, text = one_of(item, "operation", TICKET_RIGHTS), item["resourceId"]
        resource = paths.machine_id(text) if isinstance(text, str) and len(text) <= 1024 else None
        if resource is None:
            raise bad_content("'resourceId' is not the id of a machine.", "operations")
        found.append({"operation": operation, "resourceId": str(resource)})
    return found


def recorded(operation: str) -> str:
    """What the audit calls the giving of a ticket."""
    return f"tickets/{operation}"


def _check_rights(caller: Caller, operations: list[dict[str, str]]) -> None:
    for item in operations:
        for action in sorted(TICKET_RIGHTS[item["operation"]]):
            if not allows(caller, action, item["resourceId"]):
                target = item["resourceId"]
                raise refusal(caller, action, target, about=target, recorded=recorded(item["operation"]))


def make_ticket(call: HubCall) -> Reply:
    """POST /hawser/v1/tickets.

    Errors: ApiError 400, 403, 404.
    """
    hub, at, caller = call.hub, call.at, call.caller
    with hub.database.read() as session:
        operations = read_operations(call.body())
        for item in operations:
            subscription = item["resourceId"].split("/")[2]
            if machines.find_subscription(session, subscription) is None:
                raise ApiError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
    _check_rights(caller, operations)
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
            audit.record(
                session,
                call.actor,
                recorded(item["operation"]),
                item["resourceId"],
                request_id=call.http.request_id,
            )
    subject = rules.Subject(caller.client_id, caller.object_id)
    claims = rules.access_claims(
        hub.settings.url, hub.settings.tenant_id, subject, TICKET, rules.SECRET, at, rules.TICKET_SECONDS, ticket_id
    )
    token = hub.tokens.sign({**claims, "jti": ticket_id})
    body = {
        "accessToken": token,
        "expiresIn": rules.TICKET_SECONDS,
        "expiresOn": rfc3339(expires),
        "ticketId": ticket_id,
    }
    return Reply(201, body)

# SPDX-License-Identifier: Apache-2.0
"""The fleet query (docs/protocol.md section 4a)."""

from __future__ import annotations

from typing import Any

from control_plane.arm import paging, scopes
from control_plane.arm.machine_view import MachineRow, addresses
from control_plane.arm.roles import Action
from control_plane.bodies import is_guid
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, bad_content
from control_plane.http import Reply
from control_plane.storage import machines


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


def list_machines(call: HubCall) -> Reply:
    """GET /hawser/v1/machines, in pages.

    Errors: ApiError 400, 403, 404.
    """
    hub, at, query, key = call.hub, call.at, call.query, call.hub.keys.paging_key
    size = paging.page_size(query.get("$top"))
    scope = "|".join(
        [call.http.path, *(f"{name}={query.get(name, '')}" for name in ("subscriptionid", "resourcegroup", "name"))]
    )
    after = paging.read_token(key, scope, query["$skiptoken"]) if query.get("$skiptoken") else 0
    subscription_id = query.get("subscriptionid", "")
    if not is_guid(subscription_id):
        raise bad_content("The query parameter 'subscriptionId' must be a GUID.", "subscriptionId")
    with hub.database.read() as session:
        subscription = machines.find_subscription(session, subscription_id)
        if subscription is None:
            raise ApiError(404, "SubscriptionNotFound", f"The subscription '{subscription_id}' could not be found.")
        seen = scopes.require(call.caller, Action.MACHINE_READ, f"/subscriptions/{subscription.id}")
        group = None
        if query.get("resourcegroup"):
            group = machines.find_group(session, subscription.id, query["resourcegroup"])
            if group is None:
                return Reply(200, {"value": [], "nextLink": None})
        rows, last = machines.page(
            session,
            hub.live.pulse,
            scopes=seen,
            subscription_id=subscription.id,
            group=group,
            after=after,
            size=size,
            name=query.get("name") or None,
        )
        value = [fleet_item(row, at) for row in rows]
    link = None
    if last is not None:
        link = paging.next_link(call.http.origin, call.http.path, dict(query), paging.token(key, scope, last))
    return Reply(200, {"value": value, "nextLink": link})

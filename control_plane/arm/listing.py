# SPDX-License-Identifier: Apache-2.0
"""`S/resources` and `S/G/resources`: all that the caller may read, with `$filter`, `$expand`, `$top`, in pages."""

from __future__ import annotations

from typing import Any

from control_plane.arm import kinds, machine_view, paging, paths, resource_filter, scopes
from control_plane.arm.roles import Action
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import ApiError
from control_plane.http import Reply
from control_plane.storage import resources
from control_plane.storage.resources import Listed

_EXPANDABLE = {name.lower(): name for name in ("createdTime", "changedTime", "provisioningState")}


def expanded(text: str | None) -> frozenset[str]:
    """Members that `$expand` adds, in their own spelling.

    Errors: ApiError 400 `InvalidParameter` naming the ones there are.
    """
    asked = [part.strip().lower() for part in (text or "").split(",") if part.strip()]
    if any(part not in _EXPANDABLE for part in asked):
        raise ApiError(400, "InvalidParameter", f"'$expand' takes {', '.join(_EXPANDABLE.values())} here.")
    return frozenset(_EXPANDABLE[part] for part in asked)


def _json(item: Listed, added: frozenset[str]) -> dict[str, Any]:
    more = {
        "createdTime": rfc3339(item.created),
        "changedTime": rfc3339(item.modified),
        "provisioningState": item.state,
    }
    shown: dict[str, Any] = {
        "id": item.id,
        "name": item.name,
        "type": item.type,
        "location": item.location,
        "tags": item.tags,
        "kind": item.kind,
        "identity": item.identity,
        **{name: more[name] for name in sorted(added)},
    }
    result: dict[str, Any] = machine_view.without_null(shown)
    return result


def list_resources(call: HubCall) -> Reply:
    """GET, in a subscription or a group."""
    node = resource_filter.read(call.query.get("$filter"))
    added = expanded(call.query.get("$expand"))
    after, size = paging.wanted(call)
    with call.hub.database.read() as session:
        subscription = call.subscription(session)
        group = call.group(session) if len(call.names) > 1 else None
        prefix = f"/subscriptions/{subscription.id}"
        container = paths.group_id(subscription.id, group.name) if group else prefix
        found, last = resources.everything(
            session,
            scopes=scopes.require(call.caller, Action.RESOURCE_READ, container),
            subscription_id=subscription.id,
            group=group,
            node=node,
            types=kinds.LISTED,
            tenant_id=call.hub.settings.tenant_id,
            after=after,
            size=size,
        )
    value = [_json(item, added) for item in found]
    return Reply(200, paging.page(call, value, last))

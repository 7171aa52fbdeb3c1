# SPDX-License-Identifier: Apache-2.0
"""The tags API (`SCOPE/providers/Microsoft.Resources/tags/default`) and the list of tag names of a subscription.

PATCH operations as the vendor documents them: Merge adds and changes, Replace sets the whole, Delete removes tags whose
name and value are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from control_plane.arm import kinds, machine_body, paths, scopes
from control_plane.arm.roles import Action
from control_plane.bodies import one_of
from control_plane.call import HubCall
from control_plane.errors import ApiError, bad_content, not_found
from control_plane.http import Reply
from control_plane.storage import resources
from control_plane.storage.models import Machine, Subscription
from control_plane.storage.resource_models import Resource, SubscriptionTags
from control_plane.storage.resources import Found

TYPE = "Microsoft.Resources/tags"
_OPERATIONS = ("Merge", "Replace", "Delete")


def changed(old: Mapping[str, str], operation: str, given: Mapping[str, str]) -> dict[str, str]:
    """Tags after a PATCH. Names are compared without case and keep the spelling of the newest write. Pure."""
    if operation == "Replace":
        return dict(given)
    lower = {name.lower(): value for name, value in given.items()}
    if operation == "Delete":
        return {name: value for name, value in old.items() if lower.get(name.lower()) != value}
    return {name: value for name, value in old.items() if name.lower() not in lower} | dict(given)


def _json(scope: str, tags: Mapping[str, str]) -> dict[str, Any]:
    return {"id": f"{scope}/providers/{TYPE}/default", "name": "default", "type": TYPE, "properties": {"tags": tags}}


def _found(call: HubCall, session: Session, action: Action) -> Found:
    """What the tags belong to.

    Errors: ApiError 400 for another name than `default`, 403, 404.
    """
    scope = paths.scope_of(call.http.path)
    call.require(action, scope)
    if call.names[-1].lower() != "default":
        raise ApiError(400, "InvalidTagsName", "The tags of a resource have the name 'default'.")
    found = resources.target(session, scope)
    if found is None or (isinstance(found.target, Resource) and found.target.type not in kinds.LISTED):
        raise not_found(scope)
    return found


def _read(session: Session, found: Found) -> dict[str, str]:
    if isinstance(found.target, Subscription):
        row = session.get(SubscriptionTags, found.target.id)
        return row.tags if row else {}
    return found.target.tags


def _write(call: HubCall, session: Session, found: Found, tags: dict[str, str]) -> None:
    target = found.target
    if isinstance(target, Subscription):
        session.merge(SubscriptionTags(subscription_id=target.id, tags=tags))
        return
    if isinstance(target, Machine):
        if target.tags != tags:
            target.generations = {**target.generations, "resource": target.generations["resource"] + 1}
        target.modified, target.modified_by = call.at, call.caller.client_id
        target.modified_by_type = call.caller.audit_type
    target.tags = tags


def _change(call: HubCall, action: Action, operation: str, given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Carry it out; the scope and its tags afterwards."""
    with call.hub.database.write() as session:
        found = _found(call, session, action)
        tags = machine_body.tags(changed(_read(session, found), operation, given))
        _write(call, session, found, tags)
        call.record(session, action, found.id, {"operation": operation, "tags": dict(given)})
        target = found.target
        generations = dict(target.generations) if isinstance(target, Machine) else None
    if isinstance(target, Machine) and generations is not None:
        call.hub.live.changed(target.id, generations)
    return found.id, tags


def get_tags(call: HubCall) -> Reply:
    """GET."""
    with call.hub.database.read() as session:
        found = _found(call, session, Action.TAGS_READ)
        return Reply(200, _json(found.id, _read(session, found)))


def _given(body: dict[str, Any]) -> dict[str, str]:
    properties = body.get("properties")
    if not isinstance(properties, dict):
        raise bad_content("'properties' must be an object with 'tags'.", "properties")
    return machine_body.tags(properties.get("tags"))


def put_tags(call: HubCall) -> Reply:
    """PUT: the whole."""
    return Reply(200, _json(*_change(call, Action.TAGS_WRITE, "Replace", _given(call.body()))))


def patch_tags(call: HubCall) -> Reply:
    """PATCH with `operation` Merge, Replace or Delete."""
    body = call.body()
    operation = one_of(body, "operation", _OPERATIONS)
    return Reply(200, _json(*_change(call, Action.TAGS_WRITE, operation, _given(body))))


def delete_tags(call: HubCall) -> Reply:
    """DELETE: no tags any more."""
    _change(call, Action.TAGS_DELETE, "Replace", {})
    return Reply(200)


def list_names(call: HubCall) -> Reply:
    """GET tagNames: names and values of the tags of all resources and groups that the caller may read, with counts."""
    with call.hub.database.read() as session:
        subscription = call.subscription(session)
        prefix = f"/subscriptions/{subscription.id}"
        seen = scopes.require(call.caller, Action.TAGS_READ, prefix)
        found, _ = resources.everything(
            session,
            scopes=seen,
            subscription_id=subscription.id,
            group=None,
            node=None,
            types=kinds.LISTED,
            tenant_id=call.hub.settings.tenant_id,
        )
        tagged = [item.tags for item in found]
        tagged += [group.tags for group in resources.groups(session, subscription.id, seen)]
    names: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for tags in tagged:
        for name, text in tags.items():
            names.setdefault(name.lower(), name)
            counts[name.lower(), text] += 1
    value = [
        _name_json(prefix, name, {v: n for (k, v), n in counts.items() if k == key}) for key, name in names.items()
    ]
    return Reply(200, {"value": value})


def _name_json(prefix: str, name: str, values: Mapping[str, int]) -> dict[str, Any]:
    base = f"{prefix}/tagNames/{name}"
    return {
        "id": base,
        "tagName": name,
        "count": {"type": "Total", "value": sum(values.values())},
        "values": [
            {"id": f"{base}/tagValues/{value}", "tagValue": value, "count": {"type": "Total", "value": number}}
            for value, number in values.items()
        ],
    }

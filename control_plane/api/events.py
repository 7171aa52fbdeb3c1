# SPDX-License-Identifier: Apache-2.0
"""Events of machines and the fleet over time (docs/protocol.md section 4a, docs/api.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from control_plane.api.fleet import list_name
from control_plane.arm import paging, paths, scopes
from control_plane.arm.roles import HUB, Action, Caller, refusal
from control_plane.bodies import is_guid
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.fleet import counts
from control_plane.fleet.events import event_json
from control_plane.fleet.filters import bad_parameter, time_parameter
from control_plane.http import Reply
from control_plane.storage import history, visible
from control_plane.storage.fleet_models import MachineEvent
from control_plane.storage.models import Subscription

FILTERS = ("subscriptionId", "resourceGroup", "machine", "kind")
LIST_PARAMETERS = (*FILTERS, "from", "to", "$top", "$skiptoken")
HISTORY_PARAMETERS = ("subscriptionId", "from", "to", "resolution")
_COLUMNS = (MachineEvent.subscription_id, MachineEvent.group_key, MachineEvent.name_key)


@dataclass(frozen=True)
class EventFilter:
    """An empty member asks for nothing. `machine`: a resource id, or a vmId; all in lower case."""

    subscription_id: str | None = None
    group: str | None = None
    machine: str | None = None
    kinds: tuple[str, ...] = ()

    def takes(self, event: Mapping[str, Any]) -> bool:
        """The same decision as `conditions`, for an event as it is told."""
        resource = paths.machine_id(event["resourceId"])
        if resource is None:
            return False
        return (
            self.subscription_id in (None, resource.subscription.lower())
            and self.group in (None, resource.group.lower())
            and self.machine in (None, resource.key, event["vmId"].lower())
            and (not self.kinds or event["kind"] in self.kinds)
        )

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        found: list[ColumnElement[bool]] = []
        if self.subscription_id:
            found.append(MachineEvent.subscription_id == self.subscription_id)
        if self.group:
            found.append(MachineEvent.group_key == self.group)
        if self.kinds:
            found.append(MachineEvent.kind.in_(self.kinds))
        if self.machine and is_guid(self.machine):
            found.append(MachineEvent.vm_id == self.machine)
        elif self.machine:
            resource = paths.machine_id(self.machine)
            names = (resource.subscription, resource.group, resource.name) if resource else ()
            found += [column == name for column, name in zip(_COLUMNS, names, strict=False)]
        return found


def read_filter(query: Mapping[str, str]) -> EventFilter:
    """The filter of a query whose names are in lower case.

    Errors: ApiError 400 naming the parameter.
    """
    subscription, machine = query.get("subscriptionid"), query.get("machine")
    if subscription and not is_guid(subscription):
        raise bad_parameter("subscriptionId", "must be a GUID")
    if machine and not is_guid(machine):
        resource = paths.machine_id(machine)
        if resource is None or not is_guid(resource.subscription):
            raise bad_parameter("machine", "must be the id of a machine or a vmId")
        machine = resource.key
    kinds = tuple(dict.fromkeys(word.strip() for word in query.get("kind", "").split(",") if word.strip()))
    if not set(kinds) <= set(history.KINDS):
        raise bad_parameter("kind", f"must be of {', '.join(history.KINDS)}")
    return EventFilter(
        subscription.lower() if subscription else None,
        query["resourcegroup"].lower() if query.get("resourcegroup") else None,
        machine.lower() if machine else None,
        kinds,
    )


def readable(caller: Caller, wanted: EventFilter) -> tuple[str, ...]:
    """The scopes whose events the caller may read.

    Errors: ApiError 403 when there are none in what is asked for.
    """
    container = f"/subscriptions/{wanted.subscription_id}" if wanted.subscription_id else HUB
    return scopes.require(caller, Action.EVENT_READ, container)


def after(session: Session, wanted: EventFilter, seen: Sequence[str], last: int, limit: int) -> list[MachineEvent]:
    """Events behind id `last`, the oldest first."""
    query = select(MachineEvent).where(MachineEvent.id > last, visible.within(seen, _COLUMNS), *wanted.conditions())
    return list(session.scalars(query.order_by(MachineEvent.id).limit(limit)))


def list_events(call: HubCall) -> Reply:
    """GET /hawser/v1/events, the newest first, in pages.

    Errors: ApiError 400, 403.
    """
    query, key = call.query, call.hub.keys.paging_key
    size, wanted = paging.page_size(query.get("$top")), read_filter(query)
    begin, end = time_parameter("from", query.get("from")), time_parameter("to", query.get("to"))
    name = list_name(call, LIST_PARAMETERS)
    skip = query.get("$skiptoken")
    before = paging.read_token(key, name, skip) if skip else None
    rows = select(MachineEvent).where(visible.within(readable(call.caller, wanted), _COLUMNS), *wanted.conditions())
    if begin is not None:
        rows = rows.where(MachineEvent.at >= begin)
    if end is not None:
        rows = rows.where(MachineEvent.at < end)
    if before is not None:
        rows = rows.where(MachineEvent.id < before)
    with call.hub.database.read() as session:
        found = list(session.scalars(rows.order_by(MachineEvent.id.desc()).limit(size + 1)))
    link = None
    if len(found) > size:
        token = paging.token(key, name, found[size - 1].id)
        link = paging.next_link(call.http.origin, call.http.path, call.http.pairs, token)
    return Reply(200, {"value": [event_json(row) for row in found[:size]], "nextLink": link})


def _subscriptions(call: HubCall, session: Session, wanted: str | None) -> list[str]:
    """Subscriptions that the caller may read as a whole; counts know nothing smaller.

    Errors: ApiError 403 when there is none.
    """
    seen = scopes.readable(call.caller, Action.EVENT_READ)
    found = [item for item in session.scalars(select(Subscription.id)) if scopes.shown(seen, f"/subscriptions/{item}")]
    if wanted:
        found = [item for item in found if item == wanted.lower()]
    if not found:
        raise refusal(call.caller, Action.EVENT_READ, f"/subscriptions/{wanted}" if wanted else HUB)
    return found


def read_history(call: HubCall) -> Reply:
    """GET /hawser/v1/history: how many machines had which status, over time.

    Errors: ApiError 400, 403.
    """
    query = call.query
    subscription = query.get("subscriptionid")
    if subscription and not is_guid(subscription):
        raise bad_parameter("subscriptionId", "must be a GUID")
    end = time_parameter("to", query.get("to"))
    end = call.at + 1 if end is None else end
    begin = time_parameter("from", query.get("from"))
    begin = max(0, end - 86400) if begin is None else begin
    asked = query.get("resolution")
    if asked and asked not in map(str, counts.SPANS):
        raise bad_parameter("resolution", "must be 300, 3600 or 86400 seconds")
    span = int(asked) if asked else counts.resolution(end - max(begin, 0))
    with call.hub.database.read() as session:
        wanted = _subscriptions(call, session, subscription)
        found = counts.read(session, wanted, begin, end, span) if begin < end else []
    if len(found) > counts.MAX_POINTS:
        raise bad_parameter("resolution", f"gives more than {counts.MAX_POINTS} points; take a coarser one")
    value = [
        {"at": rfc3339(point.at), "seconds": point.seconds, **dict(zip(counts.WORDS, point.counts, strict=True))}
        for point in found
    ]
    return Reply(200, {"resolution": span, "value": value})

# SPDX-License-Identifier: Apache-2.0
"""Twins as people see and decide them, by the API, the page and the command line alike (docs/protocol.md 14)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from control_plane.arm.paths import MachineId
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, bad_content
from control_plane.storage import audit, visible
from control_plane.storage import twins as rows
from control_plane.storage.models import Machine, ResourceGroup
from control_plane.storage.twin_models import Origin, Twin

DECISIONS = ("release", "adopt", "reject")
DECIDE = "twins/decide"
Row = tuple[Twin, Machine, str]


def _query() -> Select[Twin, Machine, str]:
    return (
        select(Twin, Machine, ResourceGroup.name)
        .join(Machine, Machine.id == Twin.machine_id)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
    )


def shown(row: Row) -> dict[str, Any]:
    """A twin as JSON."""
    twin, machine, group = row
    return {
        "id": twin.id,
        "resourceId": str(MachineId(machine.subscription_id, group, machine.name)),
        "name": machine.name,
        "vmId": machine.vm_id,
        "verdict": twin.verdict,
        "outcome": twin.outcome,
        "state": twin.state,
        "decision": twin.decision,
        "differs": twin.differs,
        "found": twin.found,
        "address": twin.address or None,
        "hostname": twin.hostname,
        "imageId": twin.image_id,
        "asked": twin.asked,
        "first": rfc3339(twin.first),
        "last": rfc3339(twin.last),
        "became": twin.became,
        "history": twin.history,
    }


def page(
    session: Session, scopes: Iterable[str], states: Sequence[str], before: int | None, size: int
) -> tuple[list[Row], int | None]:
    """Twins of machines within `scopes`, the newest first, below id `before`; and the last id if more follow."""
    query = _query().where(visible.machines_in(scopes)).order_by(Twin.id.desc()).limit(size + 1)
    if states:
        query = query.where(Twin.state.in_(states))
    if before is not None:
        query = query.where(Twin.id < before)
    found = [(twin, machine, group) for twin, machine, group in session.execute(query)]
    return found[:size], found[size - 1][0].id if len(found) > size else None


def of_machine(session: Session, machine_id: int, limit: int) -> list[dict[str, Any]]:
    """The last twins of one machine, the newest first."""
    query = _query().where(Twin.machine_id == machine_id).order_by(Twin.last.desc(), Twin.id.desc()).limit(limit)
    return [shown((twin, machine, group)) for twin, machine, group in session.execute(query)]


def find(session: Session, twin_id: int) -> Row:
    """Errors: ApiError 404."""
    found = session.execute(_query().where(Twin.id == twin_id)).one_or_none()
    if found is None:
        raise ApiError(404, "ResourceNotFound", f"There is no twin {twin_id}.")
    return found[0], found[1], found[2]


def decide(session: Session, row: Row, decision: str, actor: audit.Actor, at: int) -> dict[str, Any]:
    """An operator's word about a twin. It is told to the twin when it next asks. `release`: it is the machine, and may
    go on as it; `adopt`: it becomes a machine of its own; `reject`: it stays parked.

    Errors: ApiError 400, 409 when it is settled already.
    """
    if decision not in DECISIONS:
        raise bad_content(f"'decision' must be one of {', '.join(DECISIONS)}.", "decision")
    twin, machine, _ = row
    if twin.state in rows.SETTLED:
        raise ApiError(409, "Conflict", f"Twin {twin.id} is settled: it is {twin.state}.")
    if decision == "adopt" and not twin.digest:
        raise ApiError(409, "Conflict", f"Twin {twin.id} stands for every holder of the identity; release one of them.")
    twin.decision, twin.last = decision, at
    twin.state = {"release": rows.RELEASED, "reject": rows.REJECTED}.get(decision, rows.OPEN)
    rows.add_history(twin, at, decision, by=actor.name)
    rows.tell(session, machine, twin, at, actor, DECIDE)
    return shown(row)


def images(session: Session, scopes: Iterable[str]) -> list[dict[str, Any]]:
    """Images that machines within `scopes` come from, by name."""
    query = (
        select(Origin.image_id, Origin.how, func.count(), func.min(Origin.at), func.max(Origin.at))
        .join(Machine, Machine.id == Origin.machine_id)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .where(Origin.image_id.is_not(None), visible.machines_in(scopes))
        .group_by(Origin.image_id, Origin.how)
        .order_by(Origin.image_id)
    )
    found: dict[str, dict[str, Any]] = {}
    for image, how, number, first, last in session.execute(query):
        assert image is not None  # noqa: S101 - by the query
        item = found.setdefault(image, {"imageId": image, "machines": 0, "joined": 0, "adopted": 0, "connected": 0})
        item["machines"] += number
        item[how] += number
        item["first"] = min(item.get("first", rfc3339(first)), rfc3339(first))
        item["last"] = max(item.get("last", rfc3339(last)), rfc3339(last))
    return list(found.values())


def descendants(session: Session, scopes: Iterable[str], image: str) -> list[dict[str, Any]]:
    """The machines within `scopes` that come from an image, in the order of their coming."""
    query = (
        select(Origin, Machine, ResourceGroup.name)
        .join(Machine, Machine.id == Origin.machine_id)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .where(Origin.image_id == image, visible.machines_in(scopes))
        .order_by(Origin.at, Machine.id)
    )
    return [{**origin_json(origin), **_named(machine, group)} for origin, machine, group in session.execute(query)]


def _named(machine: Machine, group: str) -> dict[str, Any]:
    return {
        "resourceId": str(MachineId(machine.subscription_id, group, machine.name)),
        "name": machine.name,
        "vmId": machine.vm_id,
    }


def origin_json(origin: Origin) -> dict[str, Any]:
    """Where a machine comes from."""
    return {
        "imageId": origin.image_id,
        "profile": origin.profile,
        "how": origin.how,
        "parent": origin.parent,
        "at": rfc3339(origin.at),
    }

# SPDX-License-Identifier: Apache-2.0
"""Reading machines, groups and subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from control_plane.arm.machine_view import MachineRow
from control_plane.arm.paths import machine_id
from control_plane.storage import visible
from control_plane.storage.models import Heartbeat, Location, Machine, Report, ResourceGroup, Subscription
from control_plane.storage.pulse import Pulse, from_row

PulseOf = Callable[[int], Pulse | None]


def find_subscription(session: Session, subscription_id: str) -> Subscription | None:
    """By GUID, without case."""
    return session.get(Subscription, subscription_id.lower())


def find_group(session: Session, subscription_id: str, name: str) -> ResourceGroup | None:
    """By name, without case."""
    return session.scalars(
        select(ResourceGroup).where(
            ResourceGroup.subscription_id == subscription_id.lower(), ResourceGroup.name_key == name.lower()
        )
    ).one_or_none()


def find_machine(session: Session, group: ResourceGroup, name: str) -> Machine | None:
    """By name, without case."""
    return session.scalars(
        select(Machine).where(Machine.group_id == group.id, Machine.name_key == name.lower())
    ).one_or_none()


def locations(session: Session) -> list[Location]:
    """Every known location, by name."""
    return list(session.scalars(select(Location).order_by(Location.name)))


def pulse_of(session: Session, machine_id: int, live: PulseOf) -> Pulse | None:
    """The newest heartbeat: from memory, else from the database."""
    found = live(machine_id)
    if found is not None:
        return found
    row = session.get(Heartbeat, machine_id)
    return from_row(row) if row else None


def was_heard(session: Session, resource_id: str, live: PulseOf) -> bool:
    """Whether a machine of this id is there and has had a heartbeat."""
    resource = machine_id(resource_id)
    group = find_group(session, resource.subscription, resource.group) if resource else None
    machine = find_machine(session, group, resource.name) if resource and group else None
    return machine is not None and pulse_of(session, machine.id, live) is not None


def complete(session: Session, machine: Machine, group_name: str, live: PulseOf) -> MachineRow:
    """One machine with its heartbeat and reports."""
    reports = session.scalars(select(Report).where(Report.machine_id == machine.id))
    return MachineRow(
        machine, group_name, pulse_of(session, machine.id, live), {item.kind: item.data for item in reports}
    )


def _rows(session: Session, query: Select[Machine, str], live: PulseOf) -> list[MachineRow]:
    found = session.execute(query).all()
    ids = [machine.id for machine, _ in found]
    beats = {item.machine_id: item for item in session.scalars(select(Heartbeat).where(Heartbeat.machine_id.in_(ids)))}
    reports: dict[int, dict[str, dict[str, Any]]] = {}
    for item in session.scalars(select(Report).where(Report.machine_id.in_(ids))):
        reports.setdefault(item.machine_id, {})[item.kind] = item.data
    rows = []
    for machine, group_name in found:
        pulse = live(machine.id)
        if pulse is None and machine.id in beats:
            pulse = from_row(beats[machine.id])
        rows.append(MachineRow(machine, group_name, pulse, reports.get(machine.id, {})))
    return rows


def page(
    session: Session,
    live: PulseOf,
    *,
    scopes: Iterable[str],
    subscription_id: str | None,
    group: ResourceGroup | None,
    after: int,
    size: int,
    name: str | None = None,
) -> tuple[Sequence[MachineRow], int | None]:
    """Machines within `scopes` in the order of their creation, from the one after id `after`; and the last id if more
    follow."""
    query = (
        select(Machine, ResourceGroup.name)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .where(Machine.id > after, visible.machines_in(scopes))
        .order_by(Machine.id)
        .limit(size + 1)
    )
    if subscription_id is not None:
        query = query.where(Machine.subscription_id == subscription_id.lower())
    if group is not None:
        query = query.where(Machine.group_id == group.id)
    if name is not None:
        query = query.where(Machine.name_key == name.lower())
    rows = _rows(session, query, live)
    if len(rows) > size:
        return rows[:size], rows[size - 1].machine.id
    return rows, None

# SPDX-License-Identifier: Apache-2.0
"""The fleet query: filters, order and pages as SQL, the same on SQLite and PostgreSQL. One statement reads a page with
its heartbeats and inventories.

The hub's hot rows reach the database within half a second; machines whose heartbeat has not been written yet are
passed in as `fresh`, and count as connected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    String,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import GenericFunction

from control_plane import support
from control_plane.arm.machine_view import MachineRow
from control_plane.arm.status import DISCONNECTED_AFTER, EXPIRED_AFTER
from control_plane.fleet.filters import STATUSES, FleetFilter, Order, support_days
from control_plane.storage import derived, visible
from control_plane.storage.machines import PulseOf
from control_plane.storage.models import Heartbeat, Machine, Report, ResourceGroup
from control_plane.storage.pulse import from_row

DIMENSIONS = ("status", "osType", "agentVersion", "resourceGroup", "location")


class position(GenericFunction[int]):  # noqa: N801 - the name of an SQL function
    """Where a text begins in another, from 1; 0 when it does not. No character in it means anything else, unlike LIKE,
    and case counts on every database."""

    type = Integer()
    inherit_cache = True
    name = "hawser_position"


@compiles(position)
def _instr(element: Any, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(position, "postgresql")
def _strpos(element: Any, compiler: Any, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)})"


def _holds(column: Any, text: str) -> ColumnElement[bool]:
    found: ColumnElement[bool] = position(column, literal(text, String)) > 0
    return found


@dataclass(frozen=True)
class Moment:
    """When a list is read. `at`: Unix seconds, the same for all of its pages; `fresh`: see the module."""

    at: int
    fresh: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cursor:
    """The last row of a page: its value of what the list is ordered by, and its id."""

    value: str | int
    machine_id: int


def status_rank(moment: Moment) -> ColumnElement[int]:
    """Index in STATUSES (arm/status.py says the same of one machine)."""
    rules = [
        (Heartbeat.seen.is_(None), 0),
        (Heartbeat.seen < moment.at - EXPIRED_AFTER, 3),
        (Heartbeat.seen < moment.at - DISCONNECTED_AFTER, 2),
    ]
    if moment.fresh:
        rules.insert(0, (Machine.id.in_(moment.fresh), 1))
    return case(*((condition, literal(rank)) for condition, rank in rules), else_=literal(1))


def _seen(moment: Moment) -> ColumnElement[int]:
    stored = func.coalesce(Heartbeat.seen, 0)
    return case((Machine.id.in_(moment.fresh), literal(moment.at)), else_=stored) if moment.fresh else stored


def _search(text: str) -> ColumnElement[bool]:
    columns = [Machine.name_key, Machine.facts_key, func.coalesce(Heartbeat.address, "")]
    if "/" in text:  # part of an id; without one every machine would be found by the word 'machines'
        columns.append(
            literal("/subscriptions/")
            + Machine.subscription_id
            + "/resourcegroups/"
            + ResourceGroup.name_key
            + "/providers/microsoft.hybridcompute/machines/"
            + Machine.name_key
        )
    return or_(*(_holds(column, text) for column in columns))


def _support(words: Sequence[str], at: int) -> ColumnElement[bool]:
    first, last = support_days(at)
    day = Machine.released
    rules = {
        support.SUPPORTED: and_(day >= first, day <= last),
        support.ENDED: and_(day != "", day < first),
        support.UNKNOWN: or_(day == "", day > last),
    }
    return or_(*(rules[word] for word in words))


def conditions(wanted: FleetFilter, scopes: Sequence[str], moment: Moment) -> list[ColumnElement[bool]]:
    """The WHERE of a filter; for statements over `joined`."""
    found = [visible.machines_in(scopes)]
    if wanted.subscription_id:
        found.append(Machine.subscription_id == wanted.subscription_id)
    if wanted.name:
        found.append(Machine.name_key == wanted.name)
    if wanted.statuses:
        found.append(status_rank(moment).in_([STATUSES.index(word) for word in wanted.statuses]))
    for name, value in wanted.tags:
        line = "\n" + derived.tag_line(name, value) if value is not None else derived.tag_name(name)
        found.append(_holds(Machine.tags_key, line))
    for column, values in (
        (ResourceGroup.name_key, wanted.groups),
        (Machine.os_type, wanted.os_types),
        (Machine.location, wanted.locations),
        (Machine.agent_version, wanted.versions),
    ):
        if values:
            found.append(column.in_(values))
    if wanted.support:
        found.append(_support(wanted.support, moment.at))
    if wanted.search:
        found.append(_search(wanted.search))
    if wanted.seen_before is not None:
        found.append(and_(_seen(moment) > 0, _seen(moment) < wanted.seen_before))
    if wanted.seen_after is not None:
        found.append(_seen(moment) > wanted.seen_after)
    return found


def joined(query: Any) -> Any:
    """Machines with group and heartbeat."""
    return (
        query.select_from(Machine)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .outerjoin(Heartbeat, Heartbeat.machine_id == Machine.id)
    )


def _key(order: Order, moment: Moment) -> Any:
    return {
        "name": Machine.name_key,
        "status": status_rank(moment),
        "lastHeartbeat": func.coalesce(Heartbeat.seen, 0),
        "agentVersion": Machine.version_key,
        "location": Machine.location,
    }[order.by]


def _newest(row: Heartbeat | None, live: PulseOf, machine_id: int) -> Any:
    stored = from_row(row) if row else None
    held = live(machine_id)
    return held if held and (stored is None or held.seen >= stored.seen) else stored


def page(
    session: Session,
    live: PulseOf,
    wanted: FleetFilter,
    scopes: Sequence[str],
    moment: Moment,
    order: Order,
    after: Cursor | None,
    size: int,
) -> tuple[list[MachineRow], Cursor | None]:
    """At most `size` machines behind `after`, and the cursor of the last if more follow. Reports: inventory alone."""
    key = _key(order, moment).label("sort_key")
    ids = joined(select(Machine.id.label("machine_id"), key)).where(*conditions(wanted, scopes, moment))
    if after is not None:
        here, there = tuple_(_key(order, moment), Machine.id), tuple_(literal(after.value), literal(after.machine_id))
        ids = ids.where(here < there if order.descending else here > there)
    turn = (key.desc(), Machine.id.desc()) if order.descending else (key, Machine.id)
    found = ids.order_by(*turn).limit(size + 1).subquery()
    outer = (found.c.sort_key.desc(), found.c.machine_id.desc()) if order.descending else tuple(found.c)[::-1]
    query = (
        select(Machine, ResourceGroup.name, Heartbeat, Report.data, found.c.sort_key)
        .join(found, found.c.machine_id == Machine.id)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .outerjoin(Heartbeat, Heartbeat.machine_id == Machine.id)
        .outerjoin(Report, and_(Report.machine_id == Machine.id, Report.kind == "inventory"))
        .order_by(*outer)
    )
    rows = session.execute(query).all()
    made = [
        MachineRow(machine, group, _newest(beat, live, machine.id), {"inventory": data} if data else {})
        for machine, group, beat, data, _ in rows[:size]
    ]
    last = Cursor(rows[size - 1].sort_key, rows[size - 1][0].id) if len(rows) > size else None
    return made, last


def count(session: Session, wanted: FleetFilter, scopes: Sequence[str], moment: Moment) -> int:
    """How many machines a filter finds."""
    query = joined(select(func.count())).where(*conditions(wanted, scopes, moment))
    return int(session.scalar(query) or 0)


def summary(
    session: Session, wanted: FleetFilter, scopes: Sequence[str], moment: Moment
) -> tuple[int, dict[str, dict[str, int]]]:
    """The number of machines, and for each of DIMENSIONS how many have which value; unknown is the empty text."""
    columns = (
        status_rank(moment).label("status_rank"),
        Machine.os_type,
        func.coalesce(Machine.agent_version, "").label("version"),
        ResourceGroup.name,
        Machine.location,
    )
    query = joined(select(*columns, func.count())).where(*conditions(wanted, scopes, moment)).group_by(*columns)
    total, found = 0, {name: dict[str, int]() for name in DIMENSIONS}
    for rank, *others, number in session.execute(query):
        total += number
        for name, value in zip(DIMENSIONS, (STATUSES[rank], *others), strict=True):
            found[name][value] = found[name].get(value, 0) + number
    return total, found

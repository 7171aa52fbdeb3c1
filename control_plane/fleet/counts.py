# SPDX-License-Identifier: Apache-2.0
"""The fleet over time: thinning of what is kept, and the rows of a chart. Five minutes are kept for two days, hours for
sixty, days for ever: about 2,400 rows a subscription in the first year, 365 in each further one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from control_plane.storage.fleet_models import FleetCount, MachineEvent, Outage

SPANS = (300, 3600, 86400)
KEPT = {300: 2 * 86400, 3600: 60 * 86400}
WORDS = ("connected", "disconnected", "expired", "awaiting")
MAX_POINTS = 5000
EVENTS_KEPT = 90 * 86400
EVENTS_OF_ONE = 200
OUTAGES_KEPT = 4000 * 86400
_COLUMNS = tuple(getattr(FleetCount, word) for word in WORDS)


@dataclass(frozen=True)
class Point:
    """`at`: Unix seconds of its beginning; `seconds`: how long it stands for; `counts`: in the order of WORDS."""

    at: int
    seconds: int
    counts: tuple[int, ...]


def resolution(seconds: int) -> int:
    """The span that suits a chart over so many seconds."""
    return 300 if seconds <= KEPT[300] else 3600 if seconds <= KEPT[3600] else 86400


def points(rows: Iterable[tuple[int, int, Sequence[int]]], span: int) -> list[Point]:
    """Rows (at, span, counts) of several subscriptions as one series. What was sampled more finely than `span` is
    averaged; what was only kept more coarsely stays so. Pure."""
    whole: dict[tuple[int, int], list[int]] = {}
    for at, width, counts in rows:
        total = whole.setdefault((at, width), [0] * len(WORDS))
        for index, number in enumerate(counts):
            total[index] += number
    series: dict[tuple[int, int], list[list[int]]] = {}
    for (at, width), counts in whole.items():
        wide = max(width, span)
        series.setdefault((at - at % wide, wide), []).append(list(counts))
    return [
        Point(at, width, tuple(round(sum(column) / len(parts)) for column in zip(*parts, strict=True)))
        for (at, width), parts in sorted(series.items())
    ]


def read(session: Session, subscriptions: Sequence[str], begin: int, end: int, span: int) -> list[Point]:
    """The series of these subscriptions from `begin` to before `end`."""
    query = select(FleetCount.at, FleetCount.span, *_COLUMNS).where(
        FleetCount.subscription_id.in_(subscriptions),
        FleetCount.at >= begin - begin % span,
        FleetCount.at < end,
    )
    return points(((at, width, counts) for at, width, *counts in session.execute(query)), span)


def thin(session: Session, at: int) -> None:
    """Fold what is old into longer spans. Doing it twice changes nothing."""
    for span, wide in pairwise(SPANS):
        limit = at - KEPT[span]
        limit -= limit % wide
        begin = FleetCount.at - FleetCount.at % wide
        query = (
            select(begin.label("begin"), FleetCount.subscription_id, *(func.avg(column) for column in _COLUMNS))
            .where(FleetCount.span == span, FleetCount.at < limit)
            .group_by(begin, FleetCount.subscription_id)
        )
        for first, subscription, *means in session.execute(query).all():
            if session.get(FleetCount, (wide, first, subscription)) is None:
                values: dict[str, Any] = {word: round(mean) for word, mean in zip(WORDS, means, strict=True)}
                session.add(FleetCount(span=wide, at=first, subscription_id=subscription, **values))
        session.execute(delete(FleetCount).where(FleetCount.span == span, FleetCount.at < limit))


def forget(session: Session, at: int, since: int) -> None:
    """Remove events that are too old or, of machines that had one since `since`, too many."""
    session.execute(delete(MachineEvent).where(MachineEvent.at < at - EVENTS_KEPT))
    session.execute(delete(Outage).where(Outage.ended < at - OUTAGES_KEPT))
    busy = (
        select(MachineEvent.machine_id)
        .where(MachineEvent.machine_id.in_(select(MachineEvent.machine_id).where(MachineEvent.at >= since)))
        .group_by(MachineEvent.machine_id)
        .having(func.count() > EVENTS_OF_ONE)
    )
    for machine_id in session.scalars(busy).all():
        kept = (
            select(MachineEvent.id)
            .where(MachineEvent.machine_id == machine_id)
            .order_by(MachineEvent.id.desc())
            .offset(EVENTS_OF_ONE - 1)
            .limit(1)
            .scalar_subquery()
        )
        session.execute(
            delete(MachineEvent)
            .where(MachineEvent.machine_id == machine_id, MachineEvent.id < kept)
            .execution_options(synchronize_session=False)
        )

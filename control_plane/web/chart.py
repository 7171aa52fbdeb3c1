# SPDX-License-Identifier: Apache-2.0
"""The fleet over time as areas that lie on each other: numbers in, coordinates out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from control_plane.clock import parse_rfc3339

WIDTH, HEIGHT = 960.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 30.0
NAMES = ("connected", "disconnected", "expired", "awaiting")
_NICE = (1, 2, 5)


@dataclass(frozen=True)
class Area:
    """`name`: of NAMES; `path`: of SVG, several pieces where nothing was counted in between."""

    name: str
    path: str


@dataclass(frozen=True)
class Tick:
    """A line of the grid: where, and what stands beside it."""

    place: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Everything that the template draws, in the units of its view box."""

    areas: tuple[Area, ...]
    columns: tuple[Tick, ...]
    rows: tuple[Tick, ...]


def nice(top: int) -> int:
    """The distance of the lines, so that three to six of them reach `top`: 1, 2 or 5 and noughts."""
    power = 1
    while True:
        for digit in _NICE:
            if top <= 5 * digit * power:
                return digit * power
        power *= 10


def _pieces(points: Sequence[tuple[int, int, tuple[int, ...]]]) -> list[list[tuple[int, int, tuple[int, ...]]]]:
    """Points that follow each other without a gap."""
    pieces: list[list[tuple[int, int, tuple[int, ...]]]] = []
    for point in points:
        if pieces and point[0] <= pieces[-1][-1][0] + 2 * max(pieces[-1][-1][1], point[1]):
            pieces[-1].append(point)
        else:
            pieces.append([point])
    return pieces


def _columns(begin: int, end: int) -> tuple[Tick, ...]:
    span = end - begin
    step = 14400 if span <= 2 * 86400 else 86400 if span <= 14 * 86400 else 14 * 86400
    form = "%H:%M" if step < 86400 else "%d %b"
    found = []
    at = begin - begin % step + step
    while at < end:
        place = LEFT + (WIDTH - LEFT - RIGHT) * (at - begin) / span
        if LEFT + 20 <= place <= WIDTH - RIGHT - 20:
            found.append(Tick(round(place, 1), datetime.fromtimestamp(at, UTC).strftime(form)))
        at += step
    return tuple(found)


def draw(rows: Sequence[Mapping[str, Any]], begin: int, end: int) -> Chart:
    """`rows`: the `value` of GET /hawser/v1/history. `begin`, `end`: Unix seconds of both edges."""
    points = [
        (at, int(row["seconds"]), tuple(int(row[name]) for name in NAMES))
        for row in rows
        if (at := parse_rfc3339(row["at"])) is not None
    ]
    top = max((sum(counts) for _, _, counts in points), default=0) or 1
    step = nice(top)
    high = step * -(-top // step)

    def across(at: float) -> float:
        inside = min(max(at, begin), end)
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (inside - begin) / (end - begin), 1)

    def up(number: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * number / high, 1)

    areas = []
    for index, name in enumerate(NAMES):
        drawn = []
        for piece in _pieces(points):
            # A point stands for all of its seconds: the last one is drawn to its end, so that one alone is seen.
            edges = [(across(at), counts) for at, _, counts in piece]
            edges.append((across(piece[-1][0] + piece[-1][1]), piece[-1][2]))
            upper = [f"{x} {up(sum(counts[: index + 1]))}" for x, counts in edges]
            lower = [f"{x} {up(sum(counts[:index]))}" for x, counts in reversed(edges)]
            if any(counts[index] for _, counts in edges):
                drawn.append(f"M{'L'.join([*upper, *lower])}Z")
        areas.append(Area(name, "".join(drawn)))
    lines = tuple(Tick(up(number), str(number)) for number in range(0, high + 1, step))
    return Chart(tuple(areas), _columns(begin, end), lines)

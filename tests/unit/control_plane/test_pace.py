# SPDX-License-Identifier: Apache-2.0
"""How a herd is spread over time (docs/golden-images.md, 'A whole herd')."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.channel.pace import (
    BURST_SECONDS,
    FIRST_COST,
    HIGHEST,
    LONGEST,
    LOWEST,
    PART,
    Gate,
    Meter,
    Pace,
    admit,
    measure,
    rate,
)
from control_plane.errors import ApiError

SPEEDS = st.floats(min_value=LOWEST, max_value=HIGHEST)
GAPS = st.lists(st.floats(min_value=0, max_value=30), min_size=1, max_size=200)


@given(per_second=SPEEDS, gaps=GAPS)
def test_never_more_are_heard_than_the_pace_allows(per_second: float, gaps: list[float]) -> None:
    now: Pace | None = None
    at = heard = 0.0
    for gap in gaps:
        at += gap
        now, wait = admit(now, per_second, at)
        heard += wait is None
        assert wait is None or 1 <= wait <= LONGEST
        assert heard <= per_second * (BURST_SECONDS + at - gaps[0]) + 1


@given(per_second=SPEEDS, steps=st.lists(st.floats(min_value=-5, max_value=5), max_size=50))
def test_a_clock_that_goes_back_gives_nobody_a_turn_of_somebody_else(per_second: float, steps: list[float]) -> None:
    now, at = Pace(0.0, 100.0, 100.0), 100.0
    for step in steps:
        at += step
        now, _ = admit(now, per_second, at)
        assert 0 <= now.tokens <= per_second * BURST_SECONDS
        assert now.at >= 100.0


def herd(count: int, per_second: float) -> tuple[float, Counter[int]]:
    """Everybody asks in the same second and comes again when told: the second in which the last is heard, and how often
    each of them asked."""
    dice = random.Random(count)
    due = [(dice.random(), number, 1) for number in range(count)]
    heapq.heapify(due)
    now: Pace | None = None
    tries, last = Counter[int](), 0.0
    while due:
        at, number, asked = heapq.heappop(due)
        now, wait = admit(now, per_second, at)
        if wait is None:
            tries[asked] += 1
            last = at
        else:
            # As agents do it: no sooner than told, and a tenth later at most.
            heapq.heappush(due, (at + wait * dice.uniform(1.0, 1.1), number, asked + 1))
    return last, tries


@pytest.mark.parametrize("count", [1, 2, 100, 10_000])
def test_a_herd_is_heard_in_the_time_that_it_takes_and_nobody_asks_for_ever(count: int) -> None:
    last, tries = herd(count, 25.0)
    assert sum(tries.values()) == count
    assert last <= 1.3 * count / 25.0 + 10
    asked = sum(times * number for times, number in tries.items())
    assert asked <= 3 * count, tries


def metered(meter: Meter, seconds: float, cost: float, every: float, others: float = 0.0) -> Meter:
    """For `seconds` somebody is heard `every` so often and costs `cost`; all else takes `others` of the core."""
    at, used = meter.at, meter.used
    for _ in range(int(seconds / every)):
        meter = measure(meter, at, used)
        at, used = at + every, used + cost + others * every
    return meter


@pytest.mark.parametrize("cost", [0.002, 0.01, 0.05])
def test_the_capacity_is_what_one_costs_with_all_that_follows(cost: float) -> None:
    found = metered(Meter(FIRST_COST, 0.0, 0.0), 60, cost, 0.1)
    assert found.cost == pytest.approx(cost, rel=0.05)


def test_a_busy_hub_hears_fewer() -> None:
    idle = metered(Meter(FIRST_COST, 0.0, 0.0), 60, 0.01, 0.1)
    busy = metered(Meter(FIRST_COST, 0.0, 0.0), 60, 0.01, 0.1, others=0.3)
    assert rate(busy.cost) < rate(idle.cost) / 3


def test_what_happens_while_nobody_comes_is_not_counted() -> None:
    meter = metered(Meter(FIRST_COST, 0.0, 0.0), 60, 0.01, 0.1)
    later = measure(meter, meter.at + 3600, meter.used + 1800)
    assert later.cost == meter.cost
    assert metered(later, 3, 0.01, 0.1).cost == pytest.approx(0.01, rel=0.05)


def test_the_pace_has_bounds() -> None:
    assert rate(0.0) == HIGHEST
    assert rate(1e9) == LOWEST


def test_one_address_and_one_machine_leave_a_part_to_others() -> None:
    gate = Gate()
    for _ in range(int(gate.per_second * BURST_SECONDS * PART)):
        gate.machine("a")

    def flood() -> None:
        for _ in range(20):
            gate.machine("a")

    with pytest.raises(ApiError) as refused:
        flood()
    assert (refused.value.status, refused.value.code) == (429, "TooManyRequests")
    assert int(refused.value.headers["Retry-After"]) >= 1
    gate.machine("b")
    gate.everybody()


def test_an_ipv6_site_is_one_address() -> None:
    gate = Gate()

    def flood() -> None:
        for number in range(40):
            gate.address(f"2001:db8::{number:x}")

    with pytest.raises(ApiError):
        flood()
    gate.address("2001:db8:0:1::1")


def test_a_flood_of_names_is_not_kept() -> None:
    gate = Gate()
    for number in range(12_000):
        gate.machine(str(number))
    assert len(gate._paces) <= 10_000

# SPDX-License-Identifier: Apache-2.0
"""When a change of status is announced: tables and properties of the pure part, and what history keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane import support
from control_plane.arm.status import CONNECTED, DISCONNECTED, DISCONNECTED_AFTER, EXPIRED, EXPIRED_AFTER, status
from control_plane.errors import ApiError
from control_plane.fleet import counts, filters
from control_plane.fleet.transitions import GAP, Beats, Heard, announced, deadline, listening
from control_plane.storage import derived

DAY = 86400
LONG = Heard(0, 0)


def at_rest(seen: int) -> Beats:
    return Beats(seen, seen - 100, 0)


@pytest.mark.parametrize(
    ("seen", "heard", "at", "word", "since"),
    [
        (10_000, Heard(1, 0), 10_900, CONNECTED, 9_900),
        (10_000, Heard(1, 0), 10_901, DISCONNECTED, 10_900),
        # the hub was down from 10_100 to 20_000: silence counts from 20_000
        (10_000, Heard(20_000, 10_100), 20_001, CONNECTED, 9_900),
        (10_000, Heard(20_000, 10_100), 20_900, CONNECTED, 9_900),
        (10_000, Heard(20_000, 10_100), 20_901, DISCONNECTED, 20_900),
        # it had been lost before the hub stopped
        (10_000, Heard(20_000, 15_000), 20_001, DISCONNECTED, 10_900),
        # nothing is known of before: everybody gets the chance to be heard
        (10_000, Heard(90 * DAY, 0), 90 * DAY + 1, CONNECTED, 9_900),
        (10_000, Heard(90 * DAY, 0), 90 * DAY + 901, EXPIRED, 90 * DAY + 900),
        (10_000, Heard(1, 0), 10_000 + EXPIRED_AFTER + 1, EXPIRED, 10_000 + EXPIRED_AFTER),
    ],
)
def test_what_is_announced(seen: int, heard: Heard, at: int, word: str, since: int) -> None:
    found = announced(at_rest(seen), heard, at)
    assert (found.word, found.since) == (word, since)


@pytest.mark.parametrize(
    ("before", "at", "heard", "outage"),
    [
        (None, 1000, Heard(1000, 0), None),
        ((1000, 5000, 0), 5000 + GAP, Heard(1000, 0), None),
        ((1000, 5000, 0), 9000, Heard(9000, 5000), (5000, 9000)),
        # the run before was too short to hear everybody: deaf since the one before it
        ((4500, 5000, 300), 9000, Heard(9000, 300), (5000, 9000)),
        ((1000, 99_000, 0), 9000, Heard(9000, 0), None),
    ],
)
def test_listening(before: tuple[int, int, int] | None, at: int, heard: Heard, outage: tuple[int, int] | None) -> None:
    assert listening(before, at) == (heard, outage)


times = st.integers(1, 200 * DAY)


@given(seen=times, began=times, gap=st.integers(0, 100 * DAY), later=st.integers(0, 100 * DAY))
def test_nobody_is_announced_lost_before_the_hub_could_hear(seen: int, began: int, gap: int, later: int) -> None:
    """Whatever the outage: who was not lost before it is not announced within the time it takes to be heard."""
    heard = Heard(began + gap, began)
    at = max(heard.since, seen) + later
    found = announced(at_rest(seen), heard, at)
    if seen + DISCONNECTED_AFTER >= began and at <= heard.since + DISCONNECTED_AFTER:
        assert found.word == CONNECTED
    if found.word != CONNECTED:
        assert status(seen, seen, 0, at).word == found.word
        assert found.since <= at


@given(seen=times, began=times, gap=st.integers(0, 100 * DAY), later=st.integers(0, 100 * DAY))
def test_no_change_comes_before_its_deadline(seen: int, began: int, gap: int, later: int) -> None:
    heard = Heard(began + gap, began)
    at = max(heard.since, seen) + later
    word = announced(at_rest(seen), heard, at).word
    due = deadline(at_rest(seen), heard, word)
    if due is None:
        assert word == EXPIRED
        return
    assert due > at or word == CONNECTED
    if due > at:
        assert announced(at_rest(seen), heard, due - 1).word == word
    assert announced(at_rest(seen), heard, max(due, at)).word != word


def test_points_are_sums_of_subscriptions_and_means_of_time() -> None:
    rows = [(0, 300, (10, 0, 0, 0)), (0, 300, (5, 1, 0, 0)), (300, 300, (13, 3, 0, 0)), (3600, 3600, (7, 7, 7, 7))]
    assert counts.points(rows, 3600) == [
        counts.Point(0, 3600, (14, 2, 0, 0)),
        counts.Point(3600, 3600, (7, 7, 7, 7)),
    ]
    assert [point.at for point in counts.points(rows, 300)] == [0, 300, 3600]


@pytest.mark.parametrize(
    ("older", "newer"), [("1.9.0", "1.10.0"), ("1.0.0.1", "1.0.0.12"), ("", "0.1"), ("1.0", "1.0.1")]
)
def test_versions_compare_as_texts(older: str, newer: str) -> None:
    assert derived.version_key(older) < derived.version_key(newer)


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=20), max_size=6), st.text(), st.text())
def test_tags_are_found_exactly(tags: dict[str, str], name: str, value: str) -> None:
    """No text of a tag looks like another tag."""
    key = derived.tags_key(tags)
    folded = {(known.lower(), text) for known, text in tags.items()}
    assert ("\n" + derived.tag_line(name, value) in key) == ((name.lower(), value) in folded)
    assert (derived.tag_name(name) in key) == (name.lower() in {known for known, _ in folded})


@given(st.lists(st.tuples(st.sampled_from([*map(str.lower, filters.PARAMETERS), "other"]), st.text(max_size=30))))
def test_any_query_is_read_or_refused_by_name(pairs: list[tuple[str, str]]) -> None:
    refused: ApiError | None = None
    try:
        filters.read(pairs)
    except ApiError as error:
        refused = error
    assert refused is None or (refused.status, refused.target in filters.PARAMETERS) == (400, True)


@given(st.integers(0, 4_000_000_000), st.integers(-800, 800))
def test_support_is_filtered_as_it_is_shown(at: int, distance: int) -> None:
    day = (datetime.fromtimestamp(at, UTC).date() + timedelta(days=distance)).isoformat()
    first, last = filters.support_days(at)
    word = support.ENDED if day < first else support.SUPPORTED if day <= last else support.UNKNOWN
    assert support.window(day, at)["state"] == word

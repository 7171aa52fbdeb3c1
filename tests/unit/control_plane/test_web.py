# SPDX-License-Identifier: Apache-2.0
"""What the page says and draws, and the contrast of its colours, without a hub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.clock import rfc3339
from control_plane.errors import ApiError
from control_plane.web import assets, chart, fleet_page, machine_page, visit, words

STYLE = (Path(words.__file__).parent / "static" / "style.css").read_text()
SCRIPT = (Path(words.__file__).parent / "static" / "page.js").read_text()
TEXTS = ("text", "muted", "accent", "connected", "disconnected", "expired", "awaiting", "danger")
# Foreground, background, least contrast: 4.5 for text, 3 for edges of fields and marks (WCAG 2.2, 1.4.3 and 1.4.11).
PAIRS = [
    *((name, ground, 4.5) for name in TEXTS for ground in ("ground", "surface")),
    *((name, "raised", 4.5) for name in (*TEXTS[:3], *TEXTS[3:7])),
    ("on-accent", "accent", 4.5),
    ("on-danger", "danger", 4.5),
    ("on-deck", "deck", 4.5),
    ("deck-muted", "deck", 4.5),
    ("edge", "surface", 3.0),
    ("focus", "ground", 3.0),
    ("focus", "surface", 3.0),
]


def colours(selector: str) -> dict[str, str]:
    block = STYLE[STYLE.index(selector) + len(selector) :].split("}")[0]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))


THEMES = {
    "light": colours(":root {"),
    "dark": colours(':root[data-theme="dark"] {'),
}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back", "least"), PAIRS)
def test_every_pair_of_colours_has_contrast(theme: str, front: str, back: str, least: float) -> None:
    found = THEMES[theme]
    assert contrast(found[front], found[back]) >= least, (front, back)


def test_both_ways_to_the_dark_theme_give_the_same_colours() -> None:
    assert colours(':root:not([data-theme="light"]) {') == THEMES["dark"]
    assert set(THEMES["dark"]) == set(THEMES["light"])


def test_no_colour_is_written_outside_of_the_variables() -> None:
    rules = STYLE[STYLE.index("*, ::before") :].split("@media print")[0]
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(", re.sub(r"#[a-z]+\b(?= [{>*])", "", rules)) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-30, "just now"),
        (4, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (86400, "1 d ago"),
        (59 * 86400, "59 d ago"),
        (60 * 86400, "2 months ago"),
    ],
)
def test_times_are_told_in_words(seconds: int, text: str) -> None:
    assert words.ago(seconds) == text


def test_the_script_takes_the_same_steps_as_the_server() -> None:
    steps = re.search(r"steps = \[(.*?)\];", SCRIPT)
    assert steps is not None
    found = re.findall(r"\[(\w+), (\d+), \"(\w+)\"\]", steps[1])
    wanted = [(str(limit or "Infinity"), str(unit), name) for limit, unit, name in words._STEPS]
    assert found == wanted


def test_a_time_that_is_none_is_text_all_the_same() -> None:
    assert words.when('"><script>', 0) == '<span class="none">never</span>'
    assert "2026-11-23 10:00:00 UTC" in words.when("2026-11-23T10:00:00Z", 1795427999)


@pytest.mark.parametrize(
    ("name", "found", "text"),
    [
        ("totalPhysicalMemoryInBytes", 64 * 2**30, "64 GiB"),
        ("x", [], "none"),
        ("x", None, "none"),
        ("x", True, "yes"),
        ("x", "false", "no"),
        ("x", [{"name": "Xeon", "numberOfCores": 16}] * 2, "2x Xeon, number of cores 16"),
        ("x", {"maxSizeInBytes": 2048}, "size 2 KiB"),
        ("x", 1, "1"),
        ("x", 0, "0"),
    ],
)
def test_facts_have_units(name: str, found: object, text: str) -> None:
    assert words.fact(name, found) == text


def test_an_address_becomes_a_query_and_an_address_again() -> None:
    pairs = [
        ("status", "Connected"),
        ("status", "Expired"),
        ("tag", "a=b"),
        ("tag", "c"),
        ("search", " x "),
        ("q", "1"),
    ]
    asked = fleet_page.read([*pairs, ("sort", "-lastHeartbeat"), ("after", "T")])
    assert asked.chosen == (("status", "Connected,Expired"), ("tag", "a=b"), ("tag", "c"), ("search", "x"))
    assert asked.address() == "/fleet?status=Connected%2CExpired&tag=a%3Db&tag=c&search=x&sort=-lastHeartbeat"
    assert (asked.after, fleet_page.read([]).address()) == ("T", "/fleet")
    with pytest.raises(ApiError, match="sorted by"):
        fleet_page.read([("sort", "name; DROP TABLE machines")])


@given(st.dictionaries(st.integers(0, 3600), st.tuples(*[st.integers(0, 20000)] * 4), max_size=40))
def test_every_chart_stays_within_its_frame(counts: dict[int, tuple[int, int, int, int]]) -> None:
    rows = [
        {"at": rfc3339(at * 60), "seconds": 60, **dict(zip(chart.NAMES, numbers, strict=True))}
        for at, numbers in sorted(counts.items())
    ]
    drawn = chart.draw(rows, 0, 3600 * 60)
    assert [area.name for area in drawn.areas] == list(chart.NAMES)
    for area in drawn.areas:
        for x, y in re.findall(r"([\d.]+) ([\d.]+)", area.path):
            assert chart.LEFT <= float(x) <= chart.WIDTH - chart.RIGHT
            assert chart.TOP - 0.1 <= float(y) <= chart.HEIGHT - chart.BOTTOM + 0.1
    assert 2 <= len(drawn.rows) <= 7


def test_a_chart_breaks_where_nothing_was_counted() -> None:
    rows = [{"at": rfc3339(at), "seconds": 300, **dict.fromkeys(chart.NAMES, 1)} for at in (0, 300, 6000, 6300)]
    assert [area.path.count("M") for area in chart.draw(rows, 0, 86400).areas] == [2, 2, 2, 2]


@pytest.mark.parametrize(("top", "step"), [(1, 1), (5, 1), (6, 2), (25, 5), (26, 10), (60, 20), (10000, 2000)])
def test_lines_of_a_chart_are_round_numbers(top: int, step: int) -> None:
    assert chart.nice(top) == step


@given(st.text(max_size=80))
def test_a_masked_text_comes_back_and_never_looks_the_same(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    assert visit.unmasked(visit.masked(text)) == text
    if len(text) > 8:
        assert visit.masked(text) != visit.masked(text)


@given(st.text(max_size=80))
def test_what_was_not_masked_does_no_harm(text: str) -> None:
    assert isinstance(visit.unmasked(text), str)


def test_tags_of_a_form() -> None:
    fields = {"name-0": " env ", "value-0": "prod", "name-1": "", "value-1": "", "name-2": "empty", "csrf": "x"}
    assert machine_page.tags_of(fields) == {"env": "prod", "empty": ""}
    with pytest.raises(ApiError, match="given twice"):
        machine_page.tags_of({"name-0": "env", "name-1": "ENV"})
    with pytest.raises(ApiError, match="has no name"):
        machine_page.tags_of({"value-0": "x"})


@pytest.mark.parametrize(
    ("header", "wanted"),
    [("gzip, deflate", True), ("br;q=1.0, GZIP;q=0.5", True), ("gzip;q=0", False), ("", False), ("gzipped", False)],
)
def test_packing_is_agreed_on(header: str, wanted: bool) -> None:
    assert assets.takes_gzip(header) is wanted


def test_static_files_are_named_by_their_content() -> None:
    path = assets.path_of("page.js")
    served = assets.serve(path, "")
    assert served.body == SCRIPT.encode()
    assert "immutable" in served.headers["cache-control"]
    for wrong in ("/static/page.js", "/static/../page.py", "/static/"):
        with pytest.raises(ApiError):
            assets.serve(wrong, "")

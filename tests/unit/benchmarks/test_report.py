# SPDX-License-Identifier: Apache-2.0
"""The page of figures: bars judged, what was missed or left out named."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run
from benchmarks.checkin_load import percentiles
from benchmarks.report import NOT_MEASURED, TITLES, Part, Row, completed, document, not_reached

ROOT = Path(__file__).resolve().parents[3]
AT = "2026-11-23T10:00:00+00:00"
MACHINE = {"cpu": "C", "cores": 2, "memory_gib": 4, "system": "S", "kernel": "K", "python": "3.11"}


def found(*parts: Part, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "machine": MACHINE,
        "parts": [{**part.as_dict(), "machine": MACHINE} for part in parts],
        "left_out": list(left_out),
    }


@pytest.mark.parametrize(
    ("figure", "limit", "met"),
    [(5, 5, True), (5.1, 5, False), (2000, -2000, True), (1999, -2000, False), (1, None, None), (0, 0, True)],
)
def test_a_bar_is_a_most_or_a_least(figure: float, limit: float | None, met: bool | None) -> None:
    assert Row("w", figure, "s", "b", limit).met is met


def test_what_was_missed_failed_or_left_out_is_named_first() -> None:
    slow = Part("checkins", AT, 3, [Row("rate", 1999, "a second", "≥ 2000", -2000), Row("p99", 4, "ms", "< 50", 50)])
    broken = Part("held", AT, 1, [], "RuntimeError: no")
    told = found(slow, broken, left_out=("idle",))
    assert not_reached(told) == [
        "rate: 1999 a second, the bar is ≥ 2000",
        "Hub: held connections, changes, cold start: could not be measured",
        "Agent: idle services: not measured",
    ]
    page = document(told)
    assert page.index("## Not reached") < page.index("- rate: 1999") < page.index("## Hub: check-ins")
    assert "| p99 | 4 ms | < 50 | met |" in page
    assert "Could not be measured: RuntimeError: no" in page
    assert not slow.met
    assert not broken.met


def test_when_all_is_well_the_page_says_so() -> None:
    part = Part("queries", AT, 3, [Row("slowest", 0.5, "s", "< 1", 1), Row("median", 0.1, "s", "", None)])
    assert part.met
    assert "Every bar was met." in document(found(part))


def test_the_page_says_what_is_of_the_long_run_and_what_is_not() -> None:
    page = document(found(Part("idle", AT, 600, [])))
    assert "`make bench-long`" in page
    assert "**No figures of such a run are published**" in page
    told = found(Part("checkins", AT, 36, []), Part("idle", AT, 3600, []))
    told["parts"][1]["long"] = True
    page = document(told)
    assert "Of such a run are: Agent: idle services." in page
    assert "published" not in page


def test_the_page_names_the_commit_of_what_has_one() -> None:
    told = found(Part("checkins", AT, 36, []), Part("idle", AT, 600, []))
    told["parts"][0]["commit"] = "1a2b3c4-dirty"
    page = document(told)
    assert f"Taken in 36 s, until {AT}, of commit 1a2b3c4-dirty." in page
    assert f"Taken in 600 s, until {AT}." in page


def test_a_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ROOT", tmp_path)
    assert run.commit() == ""
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    file = tmp_path / "file"
    file.write_text("a")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "x"), ("tag", "v1")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    head = ["git", "-C", str(tmp_path), "rev-parse", "--short", "HEAD"]
    short = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    assert run.commit() == short
    file.write_text("b")
    assert run.commit() == f"{short}-dirty"


def test_the_page_says_what_nothing_measures() -> None:
    page = document(found(Part("checkins", AT, 36, [])))
    assert page.index("## Not reached") < page.index("## Not measured here") < page.index("## Hub: check-ins")
    assert all(f"- {line}\n" in page for line in NOT_MEASURED)


def test_the_published_page_is_that_of_the_published_figures() -> None:
    assert (ROOT / "docs" / "benchmarks.md").read_text() == document(
        json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_bytes())
    )


def test_every_part_has_a_title_and_every_title_a_part() -> None:
    assert set(TITLES) == set(run.NAMES)


def test_a_run_of_some_parts_keeps_the_others_with_their_machines() -> None:
    order = ["checkins", "held", "idle"]
    former = found(Part("held", AT, 9, []), Part("checkins", AT, 9, []))
    now = found(Part("checkins", "2027-01-01T00:00:00+00:00", 2, []))
    told = completed(now, former, order)
    assert [(part["name"], part["seconds"]) for part in told["parts"]] == [("checkins", 2), ("held", 9)]
    assert told["left_out"] == ["idle"]
    page = document(told)
    assert "Taken on C, 2 cores, 4 GiB, S, Linux K, Python 3.11." in page
    other = MACHINE | {"cores": 64}
    bare = {key: value for key, value in former["parts"][0].items() if key != "machine"}
    elsewhere = completed(now, {"machine": other, "parts": [bare], "left_out": []}, order)
    assert [(part["name"], part["machine"]["cores"]) for part in elsewhere["parts"]] == [("checkins", 2), ("held", 64)]
    page = document(elsewhere)
    assert "Each part names the machine that it was taken on." in page
    assert f"Taken in 9 s, until {AT}, on C, 64 cores, 4 GiB" in page
    assert completed(now, None, order)["left_out"] == ["held", "idle"]


def test_percentiles() -> None:
    assert percentiles([]) == {}
    assert percentiles([number / 1000 for number in range(1, 101)]) == {
        "p50_ms": 51,
        "p95_ms": 96,
        "p99_ms": 100,
        "max_ms": 100,
    }

# SPDX-License-Identifier: Apache-2.0
"""What handlers say of themselves, statuses and heartbeats, and what becomes of it: entries, reports, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.extensions import heartbeat, plan, reports, results, status
from agent_runtime.extensions import store as files
from control_plane import bodies
from control_plane.extensions import shapes
from tests.unit.agent_services.courier import CHECKOUT


@pytest.mark.parametrize(
    ("body", "state", "code"),
    [
        ([{"status": {"status": "success"}}, {"status": None}], "succeeded", 0),
        ([{"version": "1.0", "status": {"status": "Success", "code": "4"}}], "succeeded", 4),
        ([{"status": {"status": "warning", "code": 2.0, "formattedMessage": None}}], "transitioning", 2),
        ([{"status": {"status": "success", "substatus": [None, {"status": "Warning"}]}}], "succeeded", 0),
        ([{"status": {"status": "success", "substatus": [{"status": "odd"}]}}], "failed", 1012),
        ([{"status": {"status": "success", "substatus": {}}}], "failed", 1012),
        ([{"status": {"status": "success", "formattedMessage": {"message": "x"}}}], "failed", 1012),
        ([{"status": {"status": "success", "code": "x"}}], "failed", 1012),
        ([{"status": {"status": "success", "code": 2**63}}], "failed", 1012),
        ([{"status": {"status": "success", "code": str(2**63)}}], "failed", 1012),
        ([{"status": {"status": 1}}], "failed", 1012),
        ([{"status": {}}], "failed", 1012),
        ([], "failed", 1012),
        ([None], "failed", 1012),
        ({"status": {}}, "failed", 1012),
    ],
)
def test_statuses(body: Any, state: str, code: int) -> None:
    found = status.verdict(json.dumps(body).encode())
    assert (found.state, found.code) == (state, code)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["status", "code", "formattedMessage", "lang", "message", "substatus", "x"]),
                        inner, max_size=4), max_leaves=12))  # fmt: skip
def test_no_status_breaks_the_reader(value: Any) -> None:
    for body in (value, [{"status": value}]):
        found = status.verdict(json.dumps(body).encode())
        assert found.state in ("succeeded", "failed", "transitioning")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from("a\x00\ud83dä"), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from("ab\x00\udc00"), max_size=2), inner)
    ),
    max_leaves=9,
)
ODD = st.integers().map(str) | st.sampled_from([2**63, -(2**63), 2**70, str(2**63), "x" * 70_000, "ä" * 40_000]) | JSON


@given(st.dictionaries(st.sampled_from(["name", "operation", "code", "lang", "message", "more\x00"]), ODD), st.data())
def test_the_hub_takes_whatever_a_handler_says(told: dict[str, Any], data: st.DataObject) -> None:
    message = {"lang": "en", "message": "", **{name: item for name, item in told.items() if isinstance(item, str)}}
    body = {**told, "status": "success", "formattedMessage": message}
    body["substatus"] = [{**data.draw(st.dictionaries(st.sampled_from(["name", "code", "x"]), ODD)), "status": "error"}]
    verdict = status.verdict(json.dumps([{"status": body}]).encode())
    beat = {"status": "Ready", "code": told.get("code"), "message": told.get("message")}
    health = heartbeat.health(json.dumps([{"heartbeat": beat}]).encode(), 0.0)
    assert health is not None
    record = {**plan.blank("P", "t"), "version": "1.0", "extensions": {"n": {"sequence": 0}}}
    entry = results.judged(results.blank("n", "P", "t", "1.0", 0, 0.0), record, "n", verdict, 0.0)
    report = reports.assemble(1, [results.with_handler(entry, health, 0.0)])
    taken = bodies.json_object(json.dumps({"data": report}).encode())["data"]
    shapes.check(taken, Path(CHECKOUT) / "docs/schemas/report-extensions.schema.json")


def test_long_statuses_come_within_their_limit() -> None:
    long: dict[str, Any] = {
        "status": "success",
        "code": 0,
        "foreign": "z" * 200000,
        "substatus": [{"status": "error", "name": "n" * 9999}],
    }
    long["substatus"] *= 40
    made = status.verdict(json.dumps([{"status": long}]).encode()).status or {}
    assert status.size(made) <= status.LIMIT
    assert made["substatus"]
    assert "foreign" not in made


@pytest.mark.parametrize("depth", [40, 480, 900])
def test_what_nobody_knows_in_a_status_may_be_of_any_depth(depth: int) -> None:
    deep = "[" * depth + "]" * depth
    part = f'{{"name": {deep}, "status": "success", "x": {deep}, "formattedMessage": {{"message": {deep}}}}}'
    told = f'"status": "success", "operation": {deep}, "x": {deep}, "substatus": [{part}]'
    found = status.verdict(f'[{{"status": {{{told}}}}}]'.encode())
    parts = [{"status": "success", "code": 0, "formattedMessage": {}}]
    assert found == ("succeeded", 0, "", {"status": "success", "code": 0, "substatus": parts})
    found = status.verdict(f'[{{"status": {{"status": "success", "substatus": [{{"status": {deep}}}]}}}}]'.encode())
    assert (found.state, found.code) == ("failed", 1012)


def test_a_report_of_many_comes_within_its_limit() -> None:
    entry = results.blank("n", "P", "t", "1.0", 0, 0.0)
    told = {"status": "success", "formattedMessage": {"lang": "en", "message": "m" * 90000}}
    full = {**entry, "message": "x" * 4000, "status": told}
    made = reports.assemble(3, [{**full, "name": f"n{number}"} for number in range(256)])
    assert status.size(made) <= reports.LIMIT
    assert len(made["extensions"]) == 256
    assert "by" not in made["extensions"][0]


@pytest.mark.parametrize("part", [{"name": "m" * 2000}, {"name": "\u1234" * 2000}, {}], ids=["long", "wide", "many"])
def test_what_is_kept_of_many_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: dict[str, Any]
) -> None:
    monkeypatch.setattr(files, "LIMIT", 1024 * 1024)
    told = {"status": "error", "code": 0, **part}
    told["substatus"] = [{"status": "error", "code": 0, **part}] * (10 if part else 1000)
    store = files.Store(str(tmp_path))
    for number in range(100):
        store.results[f"n{number}"] = {**results.blank("n", "P", "t", "1.0", number, 0.0), "status": told}
    store.save()
    again = files.Store(str(tmp_path))
    assert again.open() == ""
    assert sorted(found["sequence"] for found in again.results.values()) == list(range(100))
    assert all((found["status"] or told)["status"] == "error" for found in again.results.values())
    assert store.results["n0"]["status"] == told


@pytest.mark.parametrize(
    ("content", "age", "is_new", "status_word"),
    [
        (b'[{"version": 1.0, "heartbeat": {"status": "ready", "formattedMessage": {"message": "m"}}}]', 5, 0, "Ready"),
        (b'\xef\xbb\xbf[{"HEARTBEAT": {"STATUS": "NotReady", "Message": "m"}}]', 5, 0, "NotReady"),
        (b"[]", 5, 0, "NotReady"),
        (b"{", 5, 0, "NotReady"),
        (None, 0, 0, "NotReady"),
        (b'[{"heartbeat": {"status": "Ready"}}]', 601, 0, "Unresponsive"),
        (b'[{"heartbeat": {"status": "Ready"}}]', 601, 1, "Unresponsive"),
        (b'[{"heartbeat": {"status": "Ready"}}]', 120, 0, None),
        (b'[{"heartbeat": {"status": "Ready"}}]', 120, 1, "Ready"),
        (b'[{"heartbeat": {"status": "Ready"}}]', 599, 1, "Ready"),
    ],
)  # fmt: skip
def test_heartbeats(content: bytes | None, age: float, is_new: int, status_word: str | None) -> None:
    found = heartbeat.health(content, age, bool(is_new))
    assert (found and found.status) == status_word


@pytest.mark.parametrize(
    ("before", "now", "is_told"),
    [
        (("installing", 0), ("installing", 0), False),
        (("installing", 0), ("succeeded", 0), True),
        (("failed", 9), ("failed", 9), False),
        (("succeeded", 0), ("removing", 0), False),
        (("removing", 0), ("removing", 1010), True),
        (("removing", 1010), ("removing", 1010), False),
        (("removing", 0), None, True),
        # The hub takes the last of the reports that come together.
        (("removing", 1010), None, False),
    ],
)
def test_what_is_reported_at_once(before: tuple[str, int], now: tuple[str, int] | None, is_told: bool) -> None:
    def report(told: tuple[str, int] | None) -> dict[str, Any]:
        head = {"name": "one", "version": "1.0", "sequence": 0}
        return {"extensions": [] if told is None else [{**head, "state": told[0], "code": told[1]}]}

    assert reports.ends(report(before), report(now)) is is_told

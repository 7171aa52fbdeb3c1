# SPDX-License-Identifier: Apache-2.0
"""What is decided and said of run commands, over plain data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.extensions import reports, runcommands, status, texts
from agent_runtime.extensions.runner import LOST_CODE

NAMES = st.sampled_from(["a", "B", "b2"])
KEPT = st.dictionaries(NAMES, st.tuples(st.integers(0, 2), st.sampled_from(["Pending", "Running", "Succeeded"])))


def item(name: str, sequence: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "sequence": sequence, "script": "true", "parameters": [], **more}


def wishes(*items: Any) -> dict[str, runcommands.Wish]:
    return runcommands.read({"runCommands": list(items)})


def entry(name: str, sequence: int, state: str = "Pending") -> runcommands.Entry:
    (wish,) = wishes(item(name, sequence)).values()
    return {**runcommands.blank(wish, 0), "executionState": state}


@given(KEPT, st.dictionaries(NAMES, st.integers(0, 2)))
def test_after_a_decision_every_wish_has_its_entry_and_nothing_else_is_there(
    kept: dict[str, tuple[int, str]], wished: dict[str, int]
) -> None:
    entries = {name.lower(): entry(name, *told) for name, told in kept.items()}
    listed = wishes(*(item(name, sequence) for name, sequence in wished.items()))
    decision = runcommands.decide(entries, listed)
    after = {ident: known for ident, known in entries.items() if ident not in decision.stop}
    for wish in decision.take:
        assert wish.ident not in after, "nothing is taken up beside what it takes the place of"
        after[wish.ident] = runcommands.blank(wish, 0)
    assert {ident: known["sequence"] for ident, known in after.items()} == {
        name.lower(): sequence for name, sequence in wished.items()
    }
    assert runcommands.decide(after, listed) == runcommands.Decision([], [], []), "a sequence is taken up once"
    for ident, known in entries.items():
        if ident in listed and listed[ident].sequence == known["sequence"]:
            assert after[ident] is known


@pytest.mark.parametrize(
    ("kept", "wished", "stops", "takes", "lost"),
    [
        ((3, "a", "Succeeded"), (3, "a"), False, False, False),
        ((3, "a", "Succeeded"), (4, "a"), True, True, False),
        # The hub was restored from a backup: what it tells was run before.
        ((5, "a", "Succeeded"), (3, "a"), False, False, False),
        ((5, "a", "Running"), (3, "a"), False, False, False),
        ((5, "a", "Pending"), (3, "a"), False, False, True),
        # Another command of the name, whatever its number.
        ((5, "a", "Succeeded"), (3, "b"), True, True, False),
        ((0, "a", "Succeeded"), (0, "b"), True, True, False),
        # Before documents said whose sequences they are.
        ((0, "", "Succeeded"), (0, "a"), False, False, False),
        ((5, "", "Succeeded"), (3, "a"), True, True, False),
    ],
)
def test_a_sequence_is_compared_within_one_incarnation(
    kept: tuple[int, str, str], wished: tuple[int, str], stops: bool, takes: bool, lost: bool
) -> None:
    known = {**entry("run", kept[0], kept[2]), "incarnation": kept[1]}
    listed = wishes(item("run", wished[0], incarnation=wished[1]))
    decision = runcommands.decide({"run": known}, listed)
    assert [bool(part) for part in decision] == [stops, takes, lost]


@given(st.lists(st.sampled_from(["Pending", "Running", "Failed"]), max_size=12), st.sets(st.integers(0, 11)))
def test_only_what_waits_begins_and_a_few_at_once(states: list[str], busy: set[int]) -> None:
    entries = {f"c{number}": entry(f"c{number}", 0, state) for number, state in enumerate(states)}
    taken = {f"c{number}" for number in busy}
    found = runcommands.waiting(entries, taken)
    assert all(entries[ident]["executionState"] == "Pending" and ident not in taken for ident in found)
    assert not found or len(found) + len(taken) <= runcommands.AT_ONCE
    left = [ident for ident, known in entries.items() if known["executionState"] == "Pending" and ident not in taken]
    assert found == left[: len(found)]
    assert len(found) == len(left) or len(found) + len(taken) >= runcommands.AT_ONCE


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "no list"),
        ({"runCommands": {}}, "no list"),
        ({"runCommands": [item(str(number)) for number in range(65)]}, "at most 64"),
        ({"runCommands": [item("a"), item("A")]}, "two commands"),
        ({"runCommands": [7]}, "proper name"),
        ({"runCommands": [item("../a")]}, "proper name"),
        ({"runCommands": [item("a", -1)]}, "proper name"),
        ({"runCommands": [{**item("a"), "sequence": True}]}, "proper name"),
    ],
)
def test_a_document_of_another_form_is_not_carried_out(content: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        runcommands.read(content)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"script": None}, "one of script and scriptUri"),
        ({"scriptUri": "https://h/s"}, "one of script and scriptUri"),
        ({"script": 7}, "one of script and scriptUri"),
        ({"script": None, "scriptUri": "http://h/s"}, "no https"),
        ({"script": None, "scriptUri": "file:///etc/shadow"}, "no https"),
        ({"script": "\ud800"}, "UTF-8"),
        ({"errorBlobUri": "https://b/c"}, "does not upload"),
        ({"parameters": {}}, ""),
        ({"parameters": [7]}, "another form"),
        ({"parameters": [{"name": "a", "value": 7}]}, "another form"),
        ({"script": None, "scriptUri": "HTTPS://h/s"}, ""),
        ({"parameters": [{"name": None, "value": "x"}]}, ""),
    ],
)
def test_what_cannot_be_carried_out_is_known_before(more: dict[str, Any], told: str) -> None:
    (wish,) = wishes(item("a", **more)).values()
    assert told in wish.fault
    assert bool(told) is bool(wish.fault)


@pytest.mark.parametrize("name", ["a b", "1a", "a=b", "ä", "UID", "a\n"])
def test_names_that_are_no_variables(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be an environment variable"):
        runcommands.given([(name, "x")])


@pytest.mark.parametrize(
    "value", ["\0", "\ud800", "x" * runcommands.VALUE_LIMIT, "ä" * (runcommands.VALUE_LIMIT // 2 + 1)]
)
@pytest.mark.parametrize("name", ["", "NAME"])
def test_values_that_no_program_takes(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="cannot be given to a program") as told:
        runcommands.given([(name, value)])
    assert value[:9] not in str(told.value)


def test_named_ones_are_variables_and_others_arguments_in_order() -> None:
    found = runcommands.given([("", "1"), ("A", "public"), ("", "2"), ("A", "protected"), ("", "")])
    assert found == ({"A": "protected"}, ("1", "2", ""))


@pytest.mark.parametrize(
    ("code", "state", "told"),
    [
        (0, "Succeeded", ""),
        (3, "Failed", "exit code 3"),
        (None, "TimedOut", "longer than 2.5 s"),
        (LOST_CODE, "Failed", "could not be written"),
    ],
)
def test_how_a_script_ended(code: int | None, state: str, told: str) -> None:
    begun = {**runcommands.started(entry("a", 0), 1, 2), "run": "r", "seconds": 2.5}
    made = runcommands.ended(begun, code, 3)
    assert (made["executionState"], made["exitCode"], made["run"]) == (state, None if code == LOST_CODE else code, None)
    assert told in made["executionMessage"]
    assert (made["startTime"], made["endTime"]) == ("1970-01-01T00:00:01Z", "1970-01-01T00:00:03Z")


@pytest.mark.parametrize(
    ("state", "boot", "waits"), [("Pending", "b", True), ("Pending", "a", False), ("Running", "b", False)]
)
def test_a_run_that_may_have_begun_is_not_repeated(state: str, boot: str, waits: bool) -> None:
    made = runcommands.abandoned({**entry("a", 0, state), "run": "r", "boot": boot}, "b", 3)
    assert made["run"] is None
    assert made["executionState"] == ("Pending" if waits else "Failed")
    assert (made["startTime"] is None) is waits, "what may have been started is no failure to start"


@given(st.binary(max_size=300), st.integers(1, 100))
def test_the_end_of_what_was_written_fits(content: bytes, limit: int) -> None:
    found = texts.tail(content, limit)
    assert len(found.encode("utf-8")) <= limit
    assert "\0" not in found
    shown = texts.redacted(content.decode("utf-8", "replace").replace("\0", "\ufffd"))
    assert shown.endswith(found)
    assert len(found.encode()) >= min(len(shown.encode()), limit) - 3


def test_a_signature_is_hidden_where_the_end_begins_in_it() -> None:
    content = b"https://h/p?sig=" + b"S" * 60 + b" " + b"x" * 30
    assert "S" not in texts.tail(content, 60)


@settings(deadline=None)
@given(st.integers(1, 64), st.sampled_from(["x", "\n", "ä", "\ufffd"]))
def test_a_report_fits(count: int, letter: str) -> None:
    text = letter * (texts.TEXT_LIMIT // len(letter.encode()))
    entries = [{**entry(f"c{number}", 0), "output": text, "error": text} for number in range(count)]
    made = runcommands.assemble(7, entries)
    assert status.size(made) <= reports.LIMIT
    assert len(made["runCommands"]) == count
    assert json.loads(json.dumps(made)) == made


def test_output_alone_waits_and_all_else_is_told_at_once() -> None:
    def report(*entries: runcommands.Entry) -> dict[str, Any]:
        return runcommands.assemble(1, entries)

    running = entry("a", 0, "Running")
    assert not runcommands.moves(report(running), report({**running, "output": "more"}))
    assert runcommands.moves(report(running), report({**running, "executionState": "Failed"}))
    assert runcommands.moves(report(running), report({**running, "sequence": 1}))
    assert runcommands.moves(report(running), report())
    assert runcommands.moves({}, report(running))

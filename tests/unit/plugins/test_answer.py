# SPDX-License-Identifier: Apache-2.0
"""Answers of azcmagent as results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _answer as answer
from ansible_collections.hawser.machine.plugins.plugin_utils import _errors as errors

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs/schemas/apply-answer.schema.json").read_text())
GUID = "11111111-2222-3333-4444-555555555555"
MACHINE = f"/subscriptions/{GUID}/resourceGroups/g/providers/Microsoft.HybridCompute/machines/web01"
OTHER = MACHINE.replace("web01", "db01")


def good(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "schema": 1,
        "agent_version": "1.0.0.1",
        "changed": False,
        "reasons": [],
        "before": {},
        "after": {},
        "steps": [],
        "warnings": [],
        "credential_required": [],
        "error": None,
        **changes,
    }
    jsonschema.validate(value, SCHEMA)
    return value


@pytest.mark.parametrize("stdout", ["", "hello", "[1]", '"x"', "null", "{} {}", "motd\n{}", "x" * 5000])
def test_anything_but_an_object_is_one_failure(stdout: str) -> None:
    with pytest.raises(errors.AnswerError) as caught:
        answer.parse_object(3, stdout, "")
    assert "exit code 3" in caught.value.message
    assert len(caught.value.message) < answer.SHOWN + 150


def test_standard_error_is_shown_without_the_noise_of_ssh() -> None:
    with pytest.raises(errors.AnswerError) as caught:
        answer.parse_object(127, "", "OpenSSH_9.2p1\ndebug1: Reading\ndebug3: x\nsudo: not found\n")
    assert caught.value.message.endswith("it said: sudo: not found")


@pytest.mark.parametrize("key", ["schema", "agent_version", "changed", "reasons", "before", "after", "steps", "error"])
def test_a_missing_member_is_named(key: str) -> None:
    value = good()
    del value[key]
    with pytest.raises(errors.AnswerError, match=key):
        answer.parse_answer(0, json.dumps(value), "")


def test_another_schema_is_refused() -> None:
    with pytest.raises(errors.AnswerError, match="schema 2"):
        answer.parse_answer(0, json.dumps({**good(), "schema": 2}), "")


def test_terminals_may_add_carriage_returns() -> None:
    assert answer.parse_answer(0, json.dumps(good(), indent=1).replace("\n", "\r\n") + "\r\n", "")["changed"] is False


def test_an_error_becomes_one_sentence_with_its_remedy() -> None:
    result = answer.result_of(
        good(changed=True, error={"code": "AZCM0020", "message": "No such location.", "remedy": "Use local."}),
        "web01",
        False,
    )
    assert result["failed"] is True
    assert result["changed"] is True
    assert result["msg"] == "AZCM0020: No such location. Use local."


def test_diff_only_if_asked_and_only_if_there_is_one() -> None:
    differs = good(changed=True, before={"tags": {"a": "1"}}, after={"tags": {"a": "2"}})
    assert "diff" not in answer.result_of(differs, "web01", False)
    assert answer.result_of(differs, "web01", True)["diff"]["before"] == "tags:\n  a: '1'\n"
    assert "diff" not in answer.result_of(good(before={"tags": {}}, after={"tags": {}}), "web01", True)


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_host_without_the_agent(check_mode: bool) -> None:
    result = answer.missing_result(check_mode, "web01", True)
    assert result["install_required"] is True
    assert result["changed"] is check_mode
    assert result["reasons"] == [{"path": "agent.installed", "expected": True, "actual": False}]
    assert "installed: true" in result["diff"]["after"]


@pytest.mark.parametrize(
    ("wanted", "check_mode", "upgrade", "changed"),
    [
        ("1.0.0.1", True, False, False),
        (None, True, False, False),
        ("1.0.0.2", False, True, False),
        ("1.0.0.2", True, True, True),
    ],
)
def test_version(wanted: str | None, check_mode: bool, upgrade: bool, changed: bool) -> None:
    result = answer.result_of(good(), "web01", False)
    answer.judge_version(result, wanted, check_mode)
    assert result["upgrade_required"] is upgrade
    assert result["changed"] is changed
    assert bool(result["reasons"]) is upgrade


def requires(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"credential_required": [{"operation": operation, "resource_id": target} for operation, target in pairs]}


def test_operations_of_a_move() -> None:
    assert answer.operations_of(requires(("connect", MACHINE.upper()), ("delete", OTHER)), MACHINE) == [
        {"operation": "connect", "resourceId": MACHINE.upper()},
        {"operation": "delete", "resourceId": OTHER},
    ]


@pytest.mark.parametrize(
    ("operation", "target"),
    [
        ("connect", OTHER),
        ("update", OTHER),
        ("reboot", MACHINE),
        ("delete", "/subscriptions/s"),
        ("delete", MACHINE + "/extensions/x"),
        ("delete", MACHINE + "/../db01"),
        ("delete", "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/machines/x"),
    ],
)
def test_a_host_cannot_ask_for_another_place(operation: str, target: str) -> None:
    with pytest.raises(errors.AnswerError):
        answer.operations_of(requires((operation, target)), MACHINE)


def test_who_leaves_can_ask_for_a_deletion_alone() -> None:
    assert answer.operations_of(requires(("delete", OTHER)), None)
    for operation in ("connect", "update"):
        with pytest.raises(errors.AnswerError):
            answer.operations_of(requires((operation, MACHINE)), None)


@pytest.mark.parametrize("entries", [["x"], [{}], [None]])
def test_nonsense_is_refused(entries: list[Any]) -> None:
    with pytest.raises(errors.AnswerError):
        answer.operations_of({"credential_required": entries}, MACHINE)


def test_one_deletion_is_enough() -> None:
    with pytest.raises(errors.AnswerError):
        answer.operations_of(requires(("delete", OTHER), ("delete", MACHINE)), MACHINE)

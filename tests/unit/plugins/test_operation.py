# SPDX-License-Identifier: Apache-2.0
"""Long-running operations: which way they are followed, what is seen, and what happens when they do not end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _operation as operation
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError, HubError
from ansible_collections.hawser.machine.plugins.plugin_utils._http import Reply

URL = "https://hub/operations/1"
CREATING = {"properties": {"provisioningState": "Creating"}}
DONE = {"properties": {"provisioningState": "Succeeded"}}


@pytest.mark.parametrize(
    ("method", "status", "body", "headers", "kind"),
    [
        ("PUT", 200, CREATING, {"azure-asyncoperation": URL, "location": "x"}, "operation"),
        ("PUT", 202, None, {"location": URL}, "location"),
        ("PUT", 200, CREATING, {"location": URL}, "resource"),
        ("PUT", 201, CREATING, {}, "resource"),
        ("PUT", 200, DONE, {}, "done"),
        ("PUT", 200, {"properties": {}}, {}, "done"),
        ("DELETE", 202, None, {"location": URL}, "location"),
        ("DELETE", 204, None, {}, "done"),
    ],
)
def test_ways(method: str, status: int, body: Any, headers: dict[str, str], kind: str) -> None:
    assert operation.way_of(method, Reply(status, body, headers)).kind == kind


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"status": "succeeded"}, operation.State("succeeded")),
        ({"status": "InProgress", "percentComplete": 40.0}, operation.State("InProgress", 40)),
        ({"status": "Failed", "error": {"code": "1007"}}, operation.State("Failed", None, {"code": "1007"})),
        ({"status": "Failed", "error": "odd", "percentComplete": "odd"}, operation.State("Failed")),
    ],
)
def test_states(body: Any, state: operation.State) -> None:
    assert operation.state_of_operation(body) == state


@pytest.mark.parametrize("body", [None, [], {}, {"status": 7}])
def test_something_that_is_no_operation(body: Any) -> None:
    with pytest.raises(HubError, match="no status"):
        operation.state_of_operation(body)


@pytest.mark.parametrize(
    ("headers", "left", "seconds"),
    [({}, 100, 2), ({"retry-after": "7"}, 100, 7), ({"retry-after": "0"}, 100, 1), ({"retry-after": "600"}, 100, 60),
     ({"retry-after": "soon"}, 100, 2), ({"retry-after": "7"}, 3, 3), ({}, -1, 0)],
)  # fmt: skip
def test_pauses(headers: dict[str, str], left: float, seconds: float) -> None:
    assert operation.pause(headers, left) == seconds


class Clock:
    """A clock that the follower's own sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def follow(looks: list[Any], timeout: float = 60) -> tuple[operation.State, list[dict[str, Any]], list[str]]:
    clock, told = Clock(), list[str]()
    follower = operation.Follower(None, timeout, told.append, clock.sleep, lambda: clock.now)

    def look() -> tuple[operation.State, Mapping[str, str]]:
        found = looks.pop(0) if len(looks) > 1 else looks[0]
        if isinstance(found, Exception):
            raise found
        return found, {}

    return follower.until(look, {}), follower.steps, told


def test_progress_is_told_once_for_each_change() -> None:
    at = [operation.State("InProgress", percent) for percent in (10, 10, 60)]
    state, steps, told = follow([*at, operation.State("Succeeded", 100)])
    assert state.well
    assert steps == [
        {"name": "InProgress", "percent": 10, "seconds": 0.0},
        {"name": "InProgress", "percent": 60, "seconds": 4.0},
        {"name": "Succeeded", "percent": 100, "seconds": 6.0},
    ]
    assert told[1] == "InProgress 60 % after 4.0 s"


def test_a_hub_that_is_away_meanwhile_is_waited_for() -> None:
    away = [HubError("no answer", "", operation.AWAY), HubError("busy", "", operation.AWAY, 503)]
    state, steps, _told = follow([*away, operation.State("Succeeded")])
    assert state.well
    assert len(steps) == 1


def test_a_refusal_is_not_waited_for() -> None:
    with pytest.raises(HubError, match="gone"):
        follow([HubError("gone", "", status=404)])


@pytest.mark.parametrize(
    ("look", "words"),
    [(operation.State("InProgress"), "it is InProgress"), (HubError("away", "", operation.AWAY), "away")],
)
def test_an_operation_that_does_not_end(look: Any, words: str) -> None:
    with pytest.raises(HawserError, match="has not ended after 60 s") as caught:
        follow([look])
    assert words in caught.value.message
    assert "goes on without us" in caught.value.remedy

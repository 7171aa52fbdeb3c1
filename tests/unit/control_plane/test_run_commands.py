# SPDX-License-Identifier: Apache-2.0
"""Decisions about run commands. All pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import ApiError
from control_plane.extensions.progress import DELETING, FAILED, SUCCEEDED, UPDATING, Wished
from control_plane.runcommands import wish
from control_plane.runcommands.reported import GONE, judge
from control_plane.runcommands.wish import BLOBS, Wish, merged, without_signature

BEGAN = "2026-11-28T10:00:00Z"


@pytest.mark.parametrize(
    ("wished", "item", "generation", "asynchronous", "state"),
    [
        ({}, {"executionState": "Succeeded"}, 5, False, SUCCEEDED),
        ({}, {"executionState": "Succeeded"}, 4, False, UPDATING),
        ({}, {"executionState": "Succeeded", "sequence": 1}, 5, False, UPDATING),
        ({}, {"executionState": "Failed", "startTime": BEGAN}, 5, False, SUCCEEDED),
        ({}, {"executionState": "TimedOut", "startTime": BEGAN}, 5, False, SUCCEEDED),
        ({}, {"executionState": "Failed", "startTime": None}, 5, False, FAILED),
        ({}, {"executionState": "Running", "startTime": BEGAN}, 5, False, UPDATING),
        ({}, {"executionState": "Running", "startTime": BEGAN}, 5, True, SUCCEEDED),
        ({}, {"executionState": "Pending"}, 5, True, UPDATING),
        ({}, None, 5, False, UPDATING),
        ({"removed": True, "state": DELETING}, None, 5, False, GONE),
        ({"removed": True, "state": DELETING}, None, 4, False, DELETING),
        ({"removed": True, "state": DELETING}, {"executionState": "Canceled"}, 5, False, DELETING),
    ],
)
def test_what_a_report_means(
    wished: dict[str, Any], item: dict[str, Any] | None, generation: int, asynchronous: bool, state: str
) -> None:
    values: dict[str, Any] = {"generation": 5, "removed": False, "state": UPDATING, **wished}
    row = Wished(sequence=2, version="0", rollback_to=None, **values)
    told = None if item is None else {"sequence": 2, **item}
    assert judge(row, told, generation, asynchronous=asynchronous) == state


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://b/x?sv=1&sig=abc", "https://b/x"),
        ("https://b/x?SIG=abc&sv=1", "https://b/x"),
        ("https://b/x?version=2", "https://b/x?version=2"),
        ("https://b/x", "https://b/x"),
    ],
)
def test_signatures_are_not_shown(uri: str, shown: str) -> None:
    assert without_signature(uri) == shown


def test_a_script_whose_address_is_written_as_shown_keeps_its_signature() -> None:
    old = {"source": {"scriptUri": "https://s/x?sig=1"}, "errorBlobUri": "https://b/e", "runAsUser": "app"}
    seen = {"source": {"scriptUri": "https://s/x"}, "errorBlobUri": "https://b/e"}
    assert merged(old, Wish(seen), whole=True) == {key: old[key] for key in ("source", "errorBlobUri")}
    assert merged(old, Wish({}), whole=False) == old
    assert merged(old, Wish({"source": {"scriptUri": "https://s/y"}}), whole=False)["source"] == {
        "scriptUri": "https://s/y"
    }
    with pytest.raises(ApiError):
        merged(old, Wish({}), whole=True)


@pytest.mark.parametrize("name", BLOBS)
def test_where_output_would_go_is_kept_without_signature(name: str) -> None:
    source = {"script": "true"}
    former = {"source": source, name: "https://b/e?sig=2"}  # as a former version kept it
    assert merged(former, Wish({}), whole=False)[name] == "https://b/e"
    assert merged(former, Wish({name: "https://b/other?sig=3"}), whole=False)[name] == "https://b/other"
    assert merged({}, Wish({"source": source, name: "https://b/e?sig=4"}), whole=True)[name] == "https://b/e"


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *("source", "parameters", "protectedParameters", "timeoutInSeconds", "asyncExecution"),
                *("runAsUser", "runAsPassword", "outputBlobUri"),
            ]
        ),
        VALUES | st.dictionaries(st.sampled_from(["script", "scriptUri", "commandId"]), VALUES, max_size=3),
    )
)
def test_bodies_are_read_or_refused_in_one_sentence(properties: dict[str, Any]) -> None:
    told = ""
    try:
        found = wish.read({"properties": properties})
        assert not {"protectedParameters", "runAsPassword"} & set(found.properties)
    except ApiError as error:
        told = error.message
    assert told == "" or told.endswith(".")

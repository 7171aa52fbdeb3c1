# SPDX-License-Identifier: Apache-2.0
"""The window of support, read from docs/protocol.md section 8a by both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import support as agent
from agent_runtime.version import RELEASED, VERSION
from control_plane import support as hub

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "support.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_both_sides_judge_as_the_vectors_say(case: dict[str, Any]) -> None:
    ours = agent.window(case["released"], case["now"])
    assert (ours.state, ours.until) == (case["state"], case["until"])
    theirs = hub.window(case["released"], case["now"])
    assert (theirs["state"], theirs["until"] or "") == (case["state"], case["until"])


@given(st.dates().map(str) | st.text(max_size=12), st.integers(0, 1 << 36))
def test_both_sides_agree_on_anything(released: str, now: int) -> None:
    theirs = hub.window(released, now)
    assert tuple(agent.window(released, now)) == (theirs["state"], theirs["released"] or "", theirs["until"] or "")


@pytest.mark.parametrize(
    ("version", "inventory", "state"),
    [
        ("1.0.0.1", {"agentVersion": "1.0.0.1", "agentReleased": "2026-11-23"}, "supported"),
        ("1.0.0.1", {"agentVersion": "1.0.0.1", "agentReleased": "2025-11-01"}, "ended"),
        ("1.1.0.0", {"agentVersion": "1.0.0.1", "agentReleased": "2025-11-01"}, "unknown"),
        ("1.0.0.1", {"agentVersion": "1.0.0.1"}, "unknown"),
        ("1.0.0.1", {"agentVersion": "1.0.0.1", "agentReleased": 20251101}, "unknown"),
        (None, {"agentReleased": "2026-11-23"}, "unknown"),
        ("1.0.0.1", {}, "unknown"),
    ],
)
def test_the_day_counts_for_the_version_that_it_came_with(
    version: str | None, inventory: dict[str, Any], state: str
) -> None:
    assert hub.of_machine(version, inventory, 1795392000)["state"] == state


def test_this_version_has_a_day_of_release() -> None:
    assert agent.window(RELEASED, CASES[0]["now"] + 86400).released == RELEASED
    assert VERSION.count(".") == 3

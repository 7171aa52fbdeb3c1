# SPDX-License-Identifier: Apache-2.0
"""The hub waits longer for a holder's heartbeat than an agent pauses that was asked for one a moment ago."""

from __future__ import annotations

from agent_runtime.himds.asking import ANSWER_SECONDS
from agent_runtime.himds.checkin import QUICK_SECONDS
from control_plane.channel.twins import PROOF_SECONDS, WAKE_PAUSE


def test_a_holder_that_pauses_is_still_heard_in_time() -> None:
    longest = WAKE_PAUSE + 2 * QUICK_SECONDS
    assert longest + 2 <= PROOF_SECONDS


def test_who_asks_waits_for_that() -> None:
    assert PROOF_SECONDS * 2 < ANSWER_SECONDS

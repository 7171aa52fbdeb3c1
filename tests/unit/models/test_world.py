# SPDX-License-Identifier: Apache-2.0
"""Nobody is accused in normal life, and no fork with differing evidence is missed: the decisions of hub and agent in a
simulated world (docs/golden-images.md). The long run is `make bench`'s part `twins`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from control_plane.channel import evidence as recording
from control_plane.channel import verdict
from control_plane.channel.verdict import Fork, Judgement, Word
from tests.models.forks import DIFFERENCES, Forked, forks, percentile
from tests.models.world import EVENTS, REAL, Rules, Tally, normal_life

DAYS, FORKS = 12_000, 2_500


def lived(rules: Rules, days: int = DAYS) -> Tally:
    return normal_life(rules, days, seed=20_261_123)


def forked(rules: Rules, count: int = FORKS) -> Forked:
    return forks(rules, count, seed=20_261_123)


def test_nobody_is_accused_in_normal_life() -> None:
    tally = lived(REAL)
    assert (tally.days, tally.accused) == (DAYS, [])
    assert tally.events > DAYS / 2
    assert max(tally.held_seconds) <= verdict.SILENCE, "whoever is held is let go when the other one must be gone"


def test_no_fork_with_differing_evidence_is_missed_and_no_original_wronged() -> None:
    told = forked(REAL)
    assert (told.missed, told.wronged) == ([], [])
    for kind in ("strong", "weak"):
        assert percentile(told.judged[kind], 0.95) <= 3600
    assert percentile(told.detected["strong"], 0.5) < percentile(told.detected["weak"], 0.5)


def test_of_perfect_copies_one_goes_on_and_the_other_does_not() -> None:
    """Nothing tells them apart, and so nobody can say which one is the original; two that both go on would be worse."""
    both = "perfect: original connected, copy connected"
    assert forked(REAL).outcomes[both] == 0


def _forgets_what_was_presented(recorded: Any, main: str, other: str, *, older_boot: bool, presented: Any = ()) -> Fork:
    return verdict.fork(recorded, main, other, older_boot=older_boot)


def _believes_the_newer_report(recorded: Any, main: str, other: str, **more: Any) -> Fork:
    judged = verdict.fork(recorded, main, other, **more)
    return {Fork.MAIN: Fork.OTHER, Fork.OTHER: Fork.MAIN}.get(judged, judged)


def _never_waits(asked: verdict.Question) -> Judgement:
    judged = verdict.question(asked)
    return Judgement(Word.CLONE) if judged.word is Word.WAIT else judged


def _trusts_everybody(asked: verdict.Question) -> Judgement:
    return Judgement(Word.SAME)


def _is_alive_never(asked: verdict.Question) -> Judgement:
    return verdict.question(replace(asked, alive=False, silent=None))


# Rules that are wrong everywhere need few forks to be caught.
@pytest.mark.parametrize(
    ("rule", "broken", "count"),
    [
        ("question", _never_waits, 50),
        ("question", _trusts_everybody, 50),
        ("question", _is_alive_never, 50),
        ("fork", _believes_the_newer_report, 500),
        ("fork", _forgets_what_was_presented, FORKS),
        ("renews", lambda **_known: True, 500),
        ("reported", lambda _recorded, vector: dict(vector), 500),
        ("after_gap", lambda _recorded, _given: None, FORKS),
    ],
)
def test_a_broken_rule_is_caught(rule: str, broken: Callable[..., Any], count: int) -> None:
    rules = replace(REAL, **{rule: broken})
    tally, told = lived(rules, 1500), forked(rules, count)
    assert tally.accused or told.missed or told.wronged


def test_every_event_of_the_list_happens() -> None:
    """clone-specialization.md section 9.3."""
    wanted = {"reboot", "live migration", "NIC swap", "DHCP change", "rename", "domain join", "RAM or CPU change"}
    wanted |= {"disk added", "kernel upgrade", "agent upgrade", "deallocate and start", "container restart"}
    assert wanted <= set(EVENTS)
    assert set(DIFFERENCES) == {"all", "identity", "weak", "none"}


def test_what_is_presented_after_a_gap_fits_and_is_no_report() -> None:
    recorded = recording.reported({"digest": "a"}, {"digest": "b"})
    known = recording.after_gap(recorded, "c")
    assert known is not None
    assert recording.presented(known) == ("c",)
    assert recording.fitting(known) == ("b", "a")
    assert recording.after_gap(known, "c") is None
    assert recording.after_gap(known, "a") is None
    assert recording.after_gap({}, "a") is None
    assert recording.presented(recording.reported(known, {"digest": "d"})) == ("c",)

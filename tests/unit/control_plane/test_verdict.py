# SPDX-License-Identifier: Apache-2.0
"""The truth table of docs/protocol.md section 14.3, line by line, and what holds for every combination."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.channel import verdict
from control_plane.channel.verdict import ADOPT, ASK, KEEP, POLICIES, QUARANTINE, SILENCE, Fork, Question, Word

STRONG = ("dmi_uuid", "dmi_serial")
QUESTIONS = st.builds(
    Question,
    alive=st.booleans(),
    silent=st.none() | st.integers(0, 3 * SILENCE),
    newest=st.booleans(),
    behind=st.booleans(),
    slot=st.sampled_from((verdict.CURRENT, verdict.NEXT, verdict.RETIRED)),
    differs=st.sampled_from(((), ("dmi_uuid",), STRONG, ("machine_id",))),
    agrees=st.sampled_from(((), ("dmi_uuid",), ("cloud_instance_id",))),
    favoured=st.booleans(),
)


def judged(**known: Any) -> tuple[str, int]:
    base: dict[str, Any] = {"alive": False, "silent": 5000, "newest": False, "behind": False, "slot": verdict.CURRENT}
    found = verdict.question(Question(**{**base, **known}))
    return found.word.value, found.seconds


@pytest.mark.parametrize(
    ("known", "answer"),
    [
        # Nobody else is heard, and nothing strong differs.
        ({}, ("same", 0)),
        ({"silent": None}, ("same", 0)),
        ({"silent": 3}, ("same", 0)),
        ({"behind": True}, ("rollback", 0)),
        ({"slot": verdict.RETIRED}, ("rollback", 0)),
        ({"slot": verdict.RETIRED, "silent": 100}, ("wait", 800)),
        # Some of the hardware is another one, some is not.
        ({"differs": ("machine_id",), "agrees": ("dmi_uuid",)}, ("same", 0)),
        ({"differs": ("machine_id",), "agrees": ("dmi_uuid",), "silent": 10, "newest": True}, ("same", 0)),
        ({"differs": ("machine_id",), "agrees": ("dmi_uuid",), "silent": 10}, ("wait", 890)),
        # All of it.
        ({"differs": STRONG}, ("moved", 0)),
        ({"differs": STRONG, "silent": 899}, ("wait", 1)),
        ({"differs": STRONG, "silent": 10, "newest": True}, ("wait", 890)),
        # Somebody else proves to be alive.
        ({"alive": True, "differs": ("machine_id",), "agrees": ("dmi_uuid",)}, ("clone", 0)),
        ({"alive": True, "differs": STRONG, "newest": True}, ("clone", 0)),
        ({"alive": True}, ("undecided", 0)),
        # It does not even try to be the machine, and who asks is.
        ({"alive": True, "favoured": True}, ("same", 0)),
        ({"alive": True, "favoured": True, "slot": verdict.RETIRED}, ("rollback", 0)),
        ({"alive": True, "favoured": True, "behind": True}, ("rollback", 0)),
        ({"alive": True, "favoured": True, "differs": STRONG}, ("clone", 0)),
        # Every copy of an image has the instance id that somebody wrote into it.
        ({"differs": STRONG, "agrees": ("cloud_instance_id",)}, ("moved", 0)),
        ({"differs": STRONG, "agrees": ("cloud_instance_id",), "silent": 9, "newest": True}, ("wait", 891)),
        ({"differs": STRONG, "agrees": ("tpm_key", "cloud_instance_id")}, ("same", 0)),
        ({"differs": ("vmgenid",), "agrees": ("cloud_instance_id",)}, ("same", 0)),
        # A container: there is no hardware to compare.
        ({"differs": ("machine_id",), "silent": 9, "newest": True}, ("same", 0)),
        ({"differs": ("machine_id",), "silent": 9}, ("wait", 891)),
        ({"differs": ("machine_id",)}, ("moved", 0)),
    ],
)
def test_the_table(known: dict[str, Any], answer: tuple[str, int]) -> None:
    assert judged(**known) == answer


@given(QUESTIONS)
def test_nobody_goes_on_beside_a_living_holder_and_waiting_ends(asked: Question) -> None:
    found = verdict.question(asked)
    assert found.evicts == (asked.alive and asked.favoured and not asked.differs)
    if found.evicts:
        assert found.word in (Word.SAME, Word.ROLLBACK)
    elif asked.alive:
        assert found.word in (Word.CLONE, Word.UNDECIDED)
    else:
        assert found.word not in (Word.CLONE, Word.UNDECIDED), "an accusation needs a second holder"
    assert (found.word is Word.WAIT) == (found.seconds > 0)
    assert found.seconds <= SILENCE


@pytest.mark.parametrize(
    ("asker", "holder", "favoured"),
    [
        ("new", "x", True),
        ("old", "x", True),
        ("new", "new", False),
        ("old", "new", False),
        ("new", "gone", False),
        ("gone", "x", False),
        ("x", "y", False),
        ("new", None, False),
    ],
)
def test_only_who_fits_is_favoured_and_only_over_who_does_not(asker: str, holder: str | None, favoured: bool) -> None:
    assert verdict.favours_asker(["new", "old"], ["gone"], asker, holder) is favoured


@given(word=st.sampled_from(Word), clones=st.sampled_from(POLICIES), moved=st.sampled_from((ASK, KEEP)))
def test_what_becomes_of_an_asker(word: Word, clones: str, moved: str) -> None:
    for sealed in (False, True):
        found = verdict.outcome(word, clones, moved, sealed=sealed)
        if word in (Word.SAME, Word.ROLLBACK):
            assert found is None
        elif word is Word.MOVED:
            assert found == (None if moved == KEEP else QUARANTINE)
        elif word is Word.UNDECIDED and not sealed:
            assert found == (QUARANTINE if clones == ADOPT else clones), "the original could be renamed"
        else:
            assert found == clones


@pytest.mark.parametrize(
    ("main", "other", "presented", "older_boot", "loser"),
    [
        ("new", "x", (), False, Fork.OTHER),
        ("x", "new", (), True, Fork.MAIN),
        ("x", "y", (), True, Fork.BOTH),
        ("new", "new", (), False, Fork.UNDECIDED_OTHER),
        ("new", "new", (), True, Fork.UNDECIDED_MAIN),
        # Both were reported: what was reported later is the copy's.
        ("old", "new", (), False, Fork.OTHER),
        ("new", "old", (), True, Fork.MAIN),
        # Forgotten by a hub that was restored, and presented since.
        ("new", "gone", ("gone",), True, Fork.UNDECIDED_MAIN),
    ],
)
def test_forks(main: str, other: str, presented: tuple[str, ...], older_boot: bool, loser: Fork) -> None:
    assert verdict.fork(["new", "old"], main, other, older_boot=older_boot, presented=presented) is loser


@pytest.mark.parametrize(
    ("main", "since", "may"),
    [(True, None, True), (True, SILENCE + 1, True), (True, SILENCE, False), (False, None, False), (False, 5000, False)],
)
def test_a_certificate_is_for_a_holder_without_a_rival(main: bool, since: int | None, may: bool) -> None:
    assert verdict.may_renew(main=main, since_another=since) is may


def item(name: str, value: str | None) -> dict[str, str | None]:
    return {"name": name, "status": "ok" if value else "error", "digest": value}


def test_a_reading_that_failed_equals_nothing_and_differs_from_nothing() -> None:
    before = [item("dmi_uuid", "a"), item("machine_id", "m"), item("vmgenid", None)]
    now = [item("dmi_uuid", None), item("machine_id", "n"), item("vmgenid", "g")]
    assert verdict.differing(before, now) == ("machine_id",)
    assert verdict.agreeing(before, now) == ()
    assert verdict.agreeing(before, before) == ("dmi_uuid",)

# SPDX-License-Identifier: Apache-2.0
"""Branches of a lease: one machine is never two, two holders are found, whatever is lost in between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control_plane.channel import branches, checkin
from control_plane.channel.branches import Held, Main, Other, Seal
from control_plane.channel.verdict import SILENCE, Lease
from control_plane.storage.pulse import Pulse

KEY = b"k" * 32
DIGEST = "0" * 64


@dataclass
class Hub:
    """The hot row as a hub keeps it: written late, lost with an unclean end."""

    epoch: int = 1
    at: int = 1_800_000_000
    row: Pulse | None = None
    written: Pulse | None = None
    seen: list[Lease] = field(default_factory=list)

    def seal(self) -> Seal:
        return Seal(KEY, 7, self.epoch)

    def take(self, holder: Holder, request_id: str | None = None) -> tuple[Lease, str]:
        body = {
            "requestId": request_id or str(uuid4()),
            "epoch": holder.epoch,
            "nonce": holder.nonce,
            "bootId": holder.boot,
            "evidenceDigest": holder.digest,
        }
        pulse, step = checkin.next_pulse(self.row, body, self.seal(), self.epoch, self.at, "192.0.2.1")
        self.seen.append(step.lease)
        if step.lease is not Lease.FORK:
            self.row = pulse
        return step.lease, step.given

    def kill(self) -> None:
        self.row, self.epoch = self.written, self.epoch + 1

    def restart(self) -> None:
        self.written = self.row


@dataclass
class Holder:
    """An agent, or its copy."""

    nonce: str = "from-enrolment"
    epoch: int = 1
    boot: str | None = "boot-1"
    digest: str = DIGEST

    def beat(self, hub: Hub, *, lost: bool = False) -> Lease:
        lease, given = hub.take(self)
        if not lost and lease is not Lease.FORK:
            self.nonce, self.epoch = given, hub.epoch
        return lease

    def copy(self, **changes: Any) -> Holder:
        return replace(self, **changes)


def started() -> tuple[Hub, Holder]:
    hub, one = Hub(), Holder()
    for _ in range(3):
        one.beat(hub)
        hub.at += 300
    return hub, one


EVENTS = st.sampled_from(["ok", "lost", "kill", "restart", "reboot", "flush", "crash", "wait", "repeat"])


@given(st.lists(st.tuples(EVENTS, st.integers(0, 2000)), max_size=60))
@settings(max_examples=300)
def test_one_machine_is_never_two(history: list[tuple[str, int]]) -> None:
    """Answers get lost, the hub is killed or restarted, the machine reboots, or crashes and finds the lease that it had
    written last: nobody is accused."""
    hub, one = Hub(), Holder()
    on_disk = one.copy()
    for event, seconds in history:
        hub.at += seconds
        if event == "kill":
            hub.kill()
        elif event == "restart":
            hub.restart()
        elif event == "flush":
            hub.written, on_disk = hub.row, one.copy()
        elif event == "reboot":
            one.boot, on_disk = str(uuid4()), one.copy()
        elif event == "crash":
            one = on_disk.copy(boot=str(uuid4()))
        elif event == "repeat":
            request_id = str(uuid4())
            hub.take(one, request_id)
            _, one.nonce = hub.take(one, request_id)
            one.epoch = hub.epoch
        elif event != "wait":
            one.beat(hub, lost=event == "lost")
    assert Lease.FORK not in hub.seen


@given(st.integers(0, 3), st.integers(1, 600))
def test_a_machine_that_is_set_back_once_goes_on(beats_since: int, pause: int) -> None:
    hub, one = started()
    snapshot = one.copy()
    for _ in range(beats_since):
        one.beat(hub)
        hub.at += pause
    one = snapshot
    for _ in range(5 + (SILENCE + 16) // pause):
        hub.at += pause
        assert one.beat(hub) is not Lease.FORK
    assert hub.seen[-1] is Lease.ADVANCE, "it is the main branch again"
    assert (Lease.ROLLBACK in hub.seen) == (beats_since > 1), "what looks like a lost answer is not noted"


PATTERNS = ["AB", "AAB", "ABB", "AABB", "ABBB", "AAAB", "ABAAB", "AAABBB"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("behind", [0, 1, 5])
def test_two_holders_are_found(pattern: str, behind: int) -> None:
    """Whatever the rhythm and however old the copy is."""
    hub, one = started()
    two = one.copy(boot="boot-2")
    for _ in range(behind):
        one.beat(hub)
        hub.at += 100
    for number in range(12 * len(pattern)):
        hub.at += 100
        if (one if pattern[number % len(pattern)] == "A" else two).beat(hub) is Lease.FORK:
            return
    pytest.fail(f"not found in {pattern}: {hub.seen}")


@given(st.lists(st.booleans(), min_size=24, max_size=24).filter(lambda turns: 8 <= sum(turns) <= 16))
@example([letter == "B" for letter in "BBBBABBBBBBABAAAAAAAAAAB"])
@example([letter == "B" for letter in "ABABABAB" + "A" * 8 + "B" * 8])
def test_two_holders_are_found_in_any_order(turns: list[bool]) -> None:
    """Found at the latest when one has its fourth turn after turns of the other."""
    hub, holders = Hub(), [Holder()]
    holders[0].beat(hub)
    holders.append(holders[0].copy(boot="boot-2"))
    changes = 0
    for number, turn in enumerate(turns):
        hub.at += 50
        changes += number > 0 and turn != turns[number - 1]
        if holders[turn].beat(hub) is Lease.FORK:
            return
    assert changes < 7, (turns, hub.seen)


def test_a_hundred_holders_are_found_in_three_rounds_and_the_hub_keeps_one_row() -> None:
    hub, one = started()
    copies = [one.copy(boot=f"boot-{number}") for number in range(100)]
    one.beat(hub)
    for number in range(4):
        for copy in copies:
            hub.at += 1
            lease = copy.beat(hub)
            assert (lease is Lease.FORK) == (number == 3)
        assert one.beat(hub) is Lease.ADVANCE
    assert isinstance(hub.row, Pulse)


def test_the_older_boot_chain_is_known() -> None:
    """The copy was booted before the original's next heartbeat and has the main branch: the original's boot is the
    one that the last common nonce was given to."""
    hub, one = started()
    two = one.copy(boot="boot-2")
    for _ in range(5):
        hub.at += 100
        two.beat(hub)
        hub.at += 100
        row, held = hub.row, branches.Held(one.epoch, one.nonce, str(uuid4()), one.boot)
        assert row is not None
        main = Main(row.epoch, row.nonce, row.previous_nonce, row.request_id)
        step = branches.step(hub.seal(), hub.epoch, main, held, hub.at)
        if step.lease is Lease.FORK:
            assert step.older_boot
            return
        one.beat(hub)
    pytest.fail(str(hub.seen))


def test_an_unclean_end_of_the_hub_forgets_every_branch() -> None:
    hub, one = started()
    two = one.copy(boot="boot-2")
    for _ in range(2):
        one.beat(hub)
        two.beat(hub)
    hub.kill()
    assert [one.beat(hub), two.beat(hub)] == [Lease.REBASE, Lease.LOST]


@given(
    st.builds(
        Other,
        st.integers(0, 2),
        st.booleans(),
        st.booleans(),
        st.integers(10**9, 10**9 + 10**8),
        st.integers(0, 2000),
        st.binary(min_size=3, max_size=3),
    ),
    st.integers(0, 1100),
)
def test_what_a_nonce_carries_is_read_again(branch: Other, later: int) -> None:
    seal = Seal(KEY, 7, 3)
    nonce = seal.other(branch)
    assert len(nonce) == 16
    assert seal.boot(nonce) is None
    found = seal.read(nonce, branch.issued + later)
    if found is None:
        assert later > SILENCE - 8
        return
    assert later < SILENCE + 8
    assert (found.advances, found.lost, found.same_boot, found.main) == (
        branch.advances,
        branch.lost,
        branch.same_boot,
        branch.main,
    )
    assert abs(found.issued - branch.issued) < 16
    assert found.still <= branch.still
    for other in (Seal(KEY, 8, 3), Seal(KEY, 7, 4), Seal(b"x", 7, 3)):
        assert other.read(nonce, branch.issued) is None, "sealed for one machine and one epoch"


@given(st.text(max_size=20))
def test_no_text_breaks_the_reading_of_nonces(text: str) -> None:
    seal = Seal(KEY, 7, 3)
    assert seal.read(text, 10**9) is None
    assert seal.boot(text) is None
    assert not branches.newest(seal, 3, Main(3, "n" * 16, "", ""), 3, text, 10**9) or text == "n" * 16


def test_a_nonce_that_was_altered_is_unknown() -> None:
    seal = Seal(KEY, 7, 3)
    nonce = seal.other(Other(2, False, False, 10**9, 0, b"abc"))
    for index in range(16):
        altered = nonce[:index] + ("A" if nonce[index] != "A" else "B") + nonce[index + 1 :]
        assert seal.read(altered, 10**9) is None


def test_the_same_boot_speaks_for_the_main_branch_after_a_lost_answer_and_no_other() -> None:
    seal, at = Seal(b"key", 7, 3), 1_800_000_000
    first = seal.main("boot-1")
    row = Main(3, seal.main("boot-1"), first, "r1")
    same = branches.step(seal, 3, row, Held(3, first, "r2", "boot-1"), at)
    copy = branches.step(seal, 3, row, Held(3, first, "r3", "boot-2"), at)
    unknown = branches.step(seal, 3, row, Held(3, seal.main("boot-1"), "r4", "boot-1"), at)
    assert [step.lease for step in (same, copy, unknown)] == [Lease.LOST, Lease.LOST, Lease.CONFLICT]
    assert branches.is_main(seal, 3, row, row.nonce, at)
    assert branches.is_main(seal, 3, row, first, at)
    assert branches.is_main(seal, 3, row, same.given, at + 60)
    for nonce in (copy.given, unknown.given, "", "AAAAAAAAAAAAAAAA"):
        assert not branches.is_main(seal, 3, row, nonce, at)
    moved = Main(3, seal.main("boot-1"), row.nonce, "r5")
    assert not branches.is_main(seal, 3, moved, same.given, at), "the main branch has gone on: there are two"
    assert not branches.is_main(seal, 4, row, row.nonce, at)
    assert not branches.is_main(seal, 3, None, row.nonce, at)

# SPDX-License-Identifier: Apache-2.0
"""What the watchdog of an upgrade decides: tables of single looks, and every life that an upgrade can have."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.upgrade import plan
from agent_runtime.upgrade.journal import checked
from agent_runtime.upgrade.wishes import wish_of

OLD, NEW, OTHER = "1.0.0.1", "1.0.0.2", "1.0.0.3"
NOW = "2026-11-28T12:00:00Z"
SERVICES = frozenset({"extd", "gcad"})
WISH = plan.Wish("hub", "m", "demo", OLD, NEW, "deb", 600, 4, "c")
PACKAGE = {"path": "/p", "sha256": "00"}


def journal(state: str, **more: Any) -> plan.Journal:
    made = plan.begun(WISH, "id", "/worker", NOW)
    if state != plan.DOWNLOADING:
        made = plan.fetched(made, PACKAGE, PACKAGE, True, SERVICES, NOW)
    return {**made, "state": state, "clock": {"boot": "b", "seconds": 100.0}, **more}


def seen(**more: Any) -> plan.Seen:
    base = plan.Seen(NEW, True, NEW, True, SERVICES, "", "b", 101.0)
    return base._replace(**more)


@pytest.mark.parametrize(
    ("state", "look", "then", "action"),
    [
        ("installing", seen(package=OLD), "installing", plan.INSTALL),
        ("installing", seen(whole=False), "installing", plan.INSTALL),
        ("installing", seen(), "waiting", plan.WAIT),
        ("installing", seen(package=""), "failed", plan.END),
        ("installing", seen(package=OTHER), "failed", plan.END),
        ("waiting", seen(), "waiting", plan.WAIT),
        ("waiting", seen(beat=False), "waiting", plan.WAIT),
        ("waiting", seen(answers=""), "waiting", plan.WAIT),
        ("waiting", seen(answers=OLD), "waiting", plan.WAIT),
        ("waiting", seen(services=frozenset({"extd"})), "waiting", plan.WAIT),
        ("waiting", seen(beat=False, seconds=700.0), "rolling back", plan.RESTORE),
        ("waiting", seen(beat=False, seconds=699.9), "waiting", plan.WAIT),
        ("waiting", seen(seconds=9999.0), "waiting", plan.WAIT),
        ("waiting", seen(beat=False, boot="another", seconds=9999.0), "waiting", plan.WAIT),
        ("waiting", seen(whole=False), "rolling back", plan.RESTORE),
        ("waiting", seen(package=OLD), "rolled back", plan.END),
        ("waiting", seen(package=OTHER), "failed", plan.END),
        ("rolling back", seen(), "rolling back", plan.RESTORE),
        ("rolling back", seen(package=OLD, whole=False), "rolling back", plan.RESTORE),
        ("rolling back", seen(package=OLD, answers=OLD), "rolled back", plan.END),
        ("rolling back", seen(package=OLD, answers=""), "rolling back", plan.WAIT),
        ("rolling back", seen(package=OLD, answers="", seconds=221.0), "failed", plan.END),
        ("rolling back", seen(package=""), "failed", plan.END),
        ("succeeded", seen(package=OTHER), "succeeded", plan.END),
    ],
)
def test_one_look(state: str, look: plan.Seen, then: str, action: str) -> None:
    made, found = plan.decide(journal(state), look, NOW)
    assert (made["state"], found) == (then, action)
    assert checked(made) == made


@pytest.mark.parametrize(
    ("looks", "state"),
    [
        ([seen(), seen(seconds=106.0), seen(seconds=111.0)], "waiting"),
        ([seen(), seen(seconds=106.0), seen(seconds=116.0)], "succeeded"),
        ([seen(seconds=690.0), seen(seconds=701.0)], "waiting"),
        ([seen(seconds=690.0), seen(seconds=706.0)], "succeeded"),
        # One that crashes and is started again is up at most of the looks.
        ([seen(), seen(seconds=111.0, answers=""), seen(seconds=116.0), seen(seconds=126.0)], "waiting"),
        ([seen(seconds=590.0), seen(seconds=600.0), seen(seconds=701.0, beat=False)], "rolling back"),
        ([seen(), seen(seconds=120.0, boot="another")], "waiting"),
    ],
)
def test_a_new_version_must_stay_in_order(looks: list[plan.Seen], state: str) -> None:
    made = journal("waiting")
    for look in looks:
        made, _ = plan.decide(made, look, NOW)
        assert checked(made) == made
    assert made["state"] == state


def test_a_machine_that_is_not_connected_needs_no_heartbeat() -> None:
    made, action = plan.fetched(plan.begun(WISH, "id", "/worker", NOW), PACKAGE, PACKAGE, False, (), NOW), ""
    for seconds in (100.0, 105.0, 120.0):
        made, action = plan.decide(made, seen(beat=False, services=frozenset(), seconds=seconds), NOW)
    assert (made["state"], action) == ("succeeded", plan.END)


def test_what_keeps_packages_from_being_fetched_may_pass() -> None:
    error = {"code": "AZCM0026", "message": "the hub cannot be reached", "remedy": ""}
    made = journal("downloading")
    assert plan.pause(made, 1.0) == 0
    pauses = []
    for _ in range(plan.DOWNLOADS - 1):
        made = plan.postponed(made, error, NOW)
        assert (made["state"], checked(made)) == ("downloading", made)
        assert made["message"].count("cannot be reached") == 1
        pauses.append(plan.pause(made, 1.0))
    assert (pauses[:4], pauses[-1]) == ([5, 10, 20, 40], 300)
    assert 3600 < sum(pauses) < 2 * 3600
    made = plan.postponed(made, error, NOW)
    assert (made["state"], made["error"]) == ("failed", error)
    assert plan.postponed(journal("downloading", by="command"), error, NOW)["state"] == "failed"


def test_what_cannot_be_installed_is_taken_back_at_once_and_what_is_cut_off_is_tried_again() -> None:
    failed = plan.ran(plan.tried(journal("installing")), "no such luck", NOW)
    assert failed["state"] == "rolling back"
    assert "no such luck" in failed["message"]
    made = journal("installing")
    for _ in range(plan.TRIES):
        made, action = plan.decide(made, seen(whole=False), NOW)
        assert action == plan.INSTALL
        made = plan.tried(made)
    made, action = plan.decide(made, seen(whole=False), NOW)
    assert (made["state"], action) == ("rolling back", plan.RESTORE)


def test_a_way_back_that_the_package_manager_refuses_is_tried_for_ever() -> None:
    made = plan.ran(journal("installing"), "no such luck", NOW)
    why, pauses = made["message"], []
    for _ in range(50):
        made, action = plan.decide(made, seen(whole=False), NOW)
        assert (made["state"], action) == ("rolling back", plan.RESTORE)
        made = plan.ran(plan.tried(made), "refused", NOW)
        assert made["message"] == f"{why}; version {OLD} is not back yet: refused"
        pauses.append(plan.pause(made, 1.0))
    assert (pauses[:3], pauses[-1]) == ([30, 60, 120], 3600)
    made, _ = plan.decide(plan.ran(made, "", NOW), seen(package=OLD, answers=OLD), NOW)
    assert (made["state"], made["message"]) == ("rolled back", why)


def test_reboots_give_the_whole_deadline_again_but_not_for_ever() -> None:
    made, action = journal("waiting"), plan.WAIT
    for number in range(plan.BOOTS):
        made, action = plan.decide(made, seen(answers="", boot=f"b{number}"), NOW)
        assert action == plan.WAIT
    made, action = plan.decide(made, seen(answers="", boot="one more"), NOW)
    assert action == plan.RESTORE


@pytest.mark.parametrize(
    ("changes", "last", "settled"),
    [
        ({}, None, False),
        ({"installed": NEW}, None, True),
        ({"installed": OTHER}, None, False),
        ({"installed": OTHER, "automatic": True}, None, True),
        ({"automatic": True}, None, False),
        ({}, journal("rolled back"), True),
        ({}, journal("failed"), True),
        ({"correlation": "d"}, journal("rolled back"), False),
        ({"version": OTHER}, journal("rolled back"), False),
        ({"machine": "n"}, journal("rolled back"), False),
        ({}, journal("rolled back", by="command"), False),
    ],
)
def test_which_wishes_are_settled(changes: dict[str, Any], last: plan.Journal | None, settled: bool) -> None:
    assert plan.is_settled(WISH._replace(**changes), last) is settled


@pytest.mark.parametrize(
    ("content", "version", "deadline"),
    [
        ({"desiredVersion": NEW, "correlationId": "c", "deadlineSeconds": 60}, NEW, 60),
        ({"desiredVersion": NEW, "enableAutomaticUpgrade": True}, NEW, 600),
        ({"desiredVersion": NEW, "deadlineSeconds": 5}, NEW, 600),
        ({"desiredVersion": NEW, "deadlineSeconds": "60"}, NEW, 600),
        ({"desiredVersion": None}, None, 0),
        ({"desiredVersion": "1.2"}, None, 0),
        ({"desiredVersion": "../../../etc"}, None, 0),
        ({}, None, 0),
        ("text", None, 0),
    ],
)
def test_documents(content: Any, version: str | None, deadline: int) -> None:
    found = wish_of({"machine": "M", "generation": 3, "content": content}, "demo", OLD)
    if version is None:
        assert found is None
        return
    assert found is not None
    assert (found.version, found.deadline, found.machine, found.generation) == (version, deadline, "m", 3)


class Host:
    """What a machine does to an upgrade, whatever the watchdog's luck: each installation ends well, fails, or is cut
    off; the new version works or does not; the watchdog is killed before or after it wrote the journal down."""

    def __init__(self, luck: random.Random) -> None:
        self._luck = luck
        self.package, self.whole, self.boot, self.seconds = OLD, True, "b0", 0.0
        self.works = self._luck.random() < 0.5
        self.log: list[str] = []
        self.told_well = False

    def look(self, state: str) -> plan.Seen:
        self.seconds += self._luck.choice([1.0, 5.0, 300.0])
        if self._luck.random() < 0.1:
            self.boot, self.seconds = self.boot + "'", 0.0
        runs = self.whole and (self.package == OLD or self.works)
        up = runs and self._luck.random() < 0.5
        beat = up and state == "waiting" and self._luck.random() < 0.5
        self.told_well = self.told_well or (beat and self.package == NEW)
        return plan.Seen(
            self.package,
            self.whole,
            self.package if up else "",
            beat,
            SERVICES if up else frozenset(),
            "",
            self.boot,
            self.seconds,
        )

    def install(self, action: str) -> str | None:
        """What the package manager says; None: everything was cut off."""
        self.log.append(action)
        wanted = NEW if action == plan.INSTALL else OLD
        luck = self._luck.choice(["well", "well", "fails", "cut before", "cut within", "cut after"])
        if luck in ("well", "cut after"):
            self.package, self.whole = wanted, True
        elif luck in ("fails", "cut within"):
            self.package, self.whole = self._luck.choice([OLD, NEW]), False
        return None if luck.startswith("cut") else "" if luck == "well" else "no such luck"


@settings(max_examples=1000)
@given(st.integers(0, 1 << 32))
def test_every_life_ends_well_or_with_the_former_version(seed: int) -> None:
    luck = random.Random(seed)
    host = Host(luck)
    disk = plan.fetched(plan.begun(WISH, "id", "/worker", NOW), PACKAGE, PACKAGE, True, SERVICES, NOW)
    for _ in range(6000):
        if plan.is_final(disk):
            break
        assert checked(disk) == disk
        made, action = plan.decide(disk, host.look(disk["state"]), NOW)
        if luck.random() < 0.05:
            continue  # killed before the decision was written
        disk = made
        if action in (plan.INSTALL, plan.RESTORE):
            disk = plan.tried(disk)
            said = host.install(action)
            if said is not None:
                disk = plan.ran(disk, said, NOW)
    assert plan.is_final(disk), disk["steps"]
    if disk["state"] == "succeeded":
        assert (host.package, host.whole, host.told_well) == (NEW, True, True)
        assert plan.RESTORE not in host.log
    elif disk["state"] == "rolled back":
        assert (host.package, host.whole) == (OLD, True)
    else:
        # Only where himds of the former version never answered.
        assert "was put back, but himds does not answer" in disk["message"]
        assert (host.package, host.whole) == (OLD, True)
    first = host.log.index(plan.RESTORE) if plan.RESTORE in host.log else len(host.log)
    assert plan.INSTALL not in host.log[first:], "the way back is not left again"
    assert host.log.count(plan.INSTALL) <= plan.TRIES

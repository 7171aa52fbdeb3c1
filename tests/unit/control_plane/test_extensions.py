# SPDX-License-Identifier: Apache-2.0
"""Decisions about extensions: versions, wishes, reports, operations. All pure."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import ApiError
from control_plane.extensions import envelope, order, reported, versions, wish
from control_plane.extensions.progress import (
    CANCELED,
    DELETING,
    FAILED,
    MISMATCH,
    SUCCEEDED,
    UNDER_WAY,
    UPDATING,
    Outcome,
    Standing,
    Verdict,
    Wait,
    Wished,
    error_of,
    judge,
    message_of,
    outcome,
    pause,
)
from control_plane.extensions.view import instance_view, summary
from control_plane.storage import catalogue
from control_plane.storage.catalogue import Package
from control_plane.storage.extension_models import Extension
from control_plane.storage.extensions import Kept
from control_plane.storage.resource_models import Resource

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda found: ".".join(map(str, found)))


@pytest.mark.parametrize(
    ("handler", "code", "level", "shown"),
    [
        (("Ready", 0, ""), "success", "Information", "Provisioning succeeded"),
        (("NotReady", 0, ""), "success", "Information", "Provisioning succeeded"),
        (("NotReady", 3, "it starts"), "3", "Warning", "Not ready"),
        (("Unresponsive", 0, "the last heartbeat is 11 minutes old"), "Unresponsive", "Error", "Unresponsive"),
    ],
)
def test_a_success_is_shown_as_long_as_its_handler_answers(
    handler: tuple[str, int, str], code: str, level: str, shown: str
) -> None:
    said = {"configurationAppliedTime": "2026-01-01T10:00:00Z", "status": "success"}
    item = {
        "name": "probe",
        "version": "1.0.0",
        "state": "succeeded",
        "operation": "enable",
        "code": 0,
        "message": "The application is healthy.",
        "status": said,
        "at": "2026-01-01T12:00:00Z",
        "handler": dict(zip(("status", "code", "message"), handler, strict=True)),
    }
    row = Extension(state=SUCCEEDED, code=None, reported=item, version="1.0.0")
    view = instance_view(Kept(row, Resource(name="probe", properties={"type": "HealthProbe"})))
    assert view is not None
    status = view["status"]
    assert (status["code"], status["level"], status["displayStatus"]) == (code, level, shown)
    if shown == "Provisioning succeeded":
        assert status["message"] == "The application is healthy."
    else:
        assert handler[2] in status["message"]
        assert status["message"].endswith("What was said last, at 2026-01-01T10:00:00Z: The application is healthy.")
    item["status"] = {"configurationAppliedTime": 5}
    again = instance_view(Kept(row, Resource(name="probe", properties={"type": "HealthProbe"})))
    assert again is not None
    assert again["status"]["code"] == code


@pytest.mark.parametrize(
    ("parts", "handler", "health", "level"),
    [
        ([("AppHealthStatus", "success")], "Ready", "Healthy", "Information"),
        ([("Other", "success"), ("AppHealthStatus", "ERROR")], "Ready", "Unhealthy", "Error"),
        ([("AppHealthStatus", "transitioning")], "Ready", "Initializing", "Information"),
        ([("AppHealthStatus", "success")], "Unresponsive", None, "Error"),
        ([("AppHealthStatus", "warning")], "Ready", None, "Information"),
        ([("StdErr", "error")], "Ready", None, "Error"),
        ([], "Ready", None, "Information"),
    ],
)
def test_the_health_of_an_application_is_data(
    parts: list[tuple[str, str]], handler: str, health: str | None, level: str
) -> None:
    item = {
        **_item(status={"status": "success", "substatus": [{"name": name, "status": word} for name, word in parts]}),
        "handler": {"status": handler, "code": 0, "message": "" if handler == "Ready" else "silent"},
        "at": "2026-01-01T12:00:00Z",
    }
    row = Extension(state=SUCCEEDED, code=None, reported=item, version="1.0.0")
    kept = Kept(row, Resource(name="probe", properties={"publisher": "Hawser", "type": "HealthProbe"}))
    view = instance_view(kept)
    assert view is not None
    assert (summary(kept)["health"], view["status"]["level"]) == (health, level)
    for odd in ("x", ["x", None], {"name": "AppHealthStatus"}):
        item["status"] = {"status": "success", "substatus": odd}
        assert summary(kept)["health"] is None


def test_each_pause_is_twice_the_one_before() -> None:
    at, pauses = 0, []
    for _ in range(8):
        pauses.append(pause(at))
        at += pauses[-1]
    assert [seconds // 3600 for seconds in pauses] == [1, 1, 2, 4, 8, 16, 24, 24]


@pytest.mark.parametrize("part", ["extensions", "runcommands"])
def test_the_shape_of_reports_is_documented(part: str) -> None:
    name = f"report-{part}.schema.json"
    assert (ROOT / "control_plane" / part / name).read_bytes() == (ROOT / "docs" / "schemas" / name).read_bytes()


@pytest.mark.parametrize(
    ("asked", "minor", "found"),
    [
        ("1.0", True, "1.10.0"),
        ("1.9", True, "1.10.0"),
        ("1.11", True, None),
        ("2", True, "2.0"),
        ("3", True, None),
        ("1.9.0", False, "1.9"),
        ("1.10", False, "1.10.0"),
        ("1", False, None),
        (None, False, "2.0"),
        (None, True, "2.0"),
    ],
)
def test_versions_that_a_wish_means(asked: str | None, minor: bool, found: str | None) -> None:
    assert versions.resolve(["1.2", "1.9", "1.10.0", "2.0", "0.9"], asked, minor=minor) == found


@given(known=st.sets(VERSIONS, max_size=8), asked=VERSIONS, minor=st.booleans())
def test_resolution_gives_what_there_is_and_what_was_asked(known: set[str], asked: str, minor: bool) -> None:
    found = versions.resolve(known, asked, minor=minor)
    major = asked.partition(".")[0]
    above = {item for item in known if versions.parts(item) > versions.parts(asked)}
    fits = {item for item in known if versions.same(item, asked)}
    if minor:
        fits |= {item for item in above if item.partition(".")[0] == major}
    assert (found is None) == (not fits)
    if found is not None:
        assert found in fits
        assert not any(versions.parts(item) > versions.parts(found) for item in fits)
    newest = versions.newest(known)
    assert newest == versions.resolve(known, None, minor=minor)


@given(known=st.sets(VERSIONS, max_size=8), current=VERSIONS)
def test_automatic_upgrades_rise_within_the_first_number(known: set[str], current: str) -> None:
    found = versions.upgrade(known, current)
    if found is not None:
        assert versions.parts(found) > versions.parts(current)
        assert found.split(".")[0] == current.split(".", maxsplit=1)[0]
        assert versions.upgrade(known, found) is None


@pytest.mark.parametrize("text", ["", "1.", ".1", "v1", "1..2", "1.2.3.4.5", "1 ", "-1", "1.2-rc1", "1" * 10, "1\n"])
def test_what_is_no_version(text: str) -> None:
    assert not versions.is_version(text)


def _item(**changes: Any) -> dict[str, Any]:
    return {
        "name": "script",
        "version": "1.0.3",
        "sequence": 2,
        "state": "succeeded",
        "operation": "enable",
        "code": 0,
        "message": "",
        "handler": {"status": "Ready", "code": 0, "message": ""},
        "status": None,
        **changes,
    }


def _wished(**changes: Any) -> Wished:
    values: dict[str, Any] = {
        "sequence": 2,
        "version": "1.0.3",
        "rollback_to": None,
        "generation": 5,
        "removed": False,
        "state": UPDATING,
    }
    return Wished(**{**values, **changes})


UPGRADE = {"rollback_to": "1.0.2"}
SAME = Verdict(UPDATING)


def _other(version: str) -> Verdict:
    text = f"The machine reports version {version} of the extension in the place of 1.0.3."
    message = f"{text} Look at its gc_ext.log, or write the extension again."
    return Verdict(FAILED, error={"code": MISMATCH, "message": message})


@pytest.mark.parametrize(
    ("wished", "item", "generation", "verdict"),
    [
        ({}, {}, 5, Verdict(SUCCEEDED)),
        ({}, {}, 9, Verdict(SUCCEEDED)),
        ({}, {}, 4, SAME),
        ({}, {"version": "1.0.3.0"}, 5, Verdict(SUCCEEDED)),
        ({}, {"sequence": 1}, 5, SAME),
        ({}, {"version": "1.0.2"}, 5, _other("1.0.2")),
        ({}, {"version": "1.0.2"}, 4, SAME),
        ({}, {"version": "1.0.2", "state": "transitioning"}, 5, SAME),
        ({"behind": True}, {"version": "1.0.4", "sequence": 9}, 5, SAME),
        ({"state": SUCCEEDED}, {"version": "1.0.2"}, 5, _other("1.0.2")),
        ({}, {"state": "failed"}, 5, Verdict(FAILED)),
        ({}, {"state": "failed", "version": "1.0.2"}, 5, Verdict(FAILED)),
        ({}, {"state": "failed", "sequence": 1}, 5, SAME),
        ({}, {"state": "transitioning"}, 5, SAME),
        ({}, None, 5, SAME),
        ({"state": SUCCEEDED}, {"state": "transitioning"}, 5, Verdict(SUCCEEDED)),
        ({"state": SUCCEEDED}, {"state": "failed"}, 5, Verdict(FAILED)),
        ({"state": FAILED}, {}, 5, Verdict(SUCCEEDED)),
        ({}, {"version": ""}, 5, _other("none")),
        (UPGRADE, {"version": "1.0.2"}, 5, Verdict(SUCCEEDED, rolled_back=True)),
        (UPGRADE | {"state": FAILED}, {"version": "1.0.2"}, 5, Verdict(SUCCEEDED, rolled_back=True)),
        (UPGRADE, {"version": "1.0.2", "state": "installing"}, 5, SAME),
        (UPGRADE, {"version": "1.0.2"}, 4, SAME),
        (UPGRADE, {"version": "1.0.1"}, 5, _other("1.0.1")),
        (UPGRADE, {"operation": "update"}, 5, Verdict(SUCCEEDED)),
        ({"removed": True, "state": DELETING}, None, 5, Verdict(SUCCEEDED, gone=True)),
        ({"removed": True, "state": DELETING}, None, 4, Verdict(DELETING)),
        ({"removed": True, "state": DELETING}, {"state": "failed"}, 5, Verdict(DELETING)),
        ({"removed": True, "state": DELETING}, {"state": "failed", "operation": "uninstall"}, 5, Verdict(FAILED)),
        ({"removed": True, "state": DELETING}, {}, 5, Verdict(DELETING)),
    ],
)
def test_what_a_report_means(
    wished: dict[str, Any], item: dict[str, Any] | None, generation: int, verdict: Verdict
) -> None:
    assert judge(_wished(**wished), None if item is None else _item(**item), generation) == verdict


WISHES = st.builds(
    Wished,
    sequence=st.integers(0, 3),
    version=st.sampled_from(["1.0", "1.1"]),
    rollback_to=st.sampled_from([None, "0.9"]),
    generation=st.integers(0, 3),
    removed=st.booleans(),
    state=st.sampled_from([*UNDER_WAY, SUCCEEDED, FAILED]),
)
ITEMS = st.fixed_dictionaries(
    {
        "version": st.sampled_from(["0.9", "1.0", "1.1"]),
        "sequence": st.integers(0, 3),
        "state": st.sampled_from(["installing", "transitioning", "succeeded", "failed", "removing"]),
        "operation": st.sampled_from(["enable", "update", "uninstall"]),
        "code": st.sampled_from([0, 1008]),
    }
)


@given(wished=WISHES, item=st.none() | ITEMS, generation=st.integers(0, 3))
def test_only_reports_of_the_wish_or_newer_ones_decide(
    wished: Wished, item: dict[str, Any] | None, generation: int
) -> None:
    verdict = judge(wished, item, generation)
    if generation < wished.generation:
        assert verdict == Verdict(wished.state)
    assert not verdict.gone or (wished.removed and item is None)
    assert not verdict.rolled_back or (wished.rollback_to is not None and not wished.removed)
    if verdict.state == SUCCEEDED != wished.state and not verdict.gone:
        assert item is not None
        assert item["state"] == "succeeded"
        assert item["sequence"] == wished.sequence


def _standing(state: str, **changes: Any) -> Standing:
    error = {"code": "1009", "message": "no"} if state == FAILED else None
    return Standing(_wished(state=state, **changes), error)


WAIT = Wait(1, "script", "1.0.3", 2)
REMOVAL = Wait(1, "script", "1.0.3", 2, remove=True)


@pytest.mark.parametrize(
    ("wait", "standing", "status"),
    [
        (WAIT, _standing(UPDATING), None),
        (WAIT, _standing(SUCCEEDED), SUCCEEDED),
        (WAIT, _standing(FAILED), FAILED),
        (WAIT, _standing(SUCCEEDED, sequence=3), CANCELED),
        (WAIT, _standing(SUCCEEDED, version="1.1"), CANCELED),
        (WAIT, _standing(DELETING, removed=True), CANCELED),
        (WAIT, None, CANCELED),
        (REMOVAL, None, SUCCEEDED),
        (REMOVAL, _standing(DELETING, removed=True), None),
        (REMOVAL, _standing(FAILED, removed=True), FAILED),
        (REMOVAL, _standing(UPDATING), CANCELED),
    ],
)
def test_how_an_operation_ends(wait: Wait, standing: Standing | None, status: str | None) -> None:
    found = outcome([wait], {1: standing} if standing else {})
    assert (found.status if found else None) == status
    assert found is None or (found.error is None) == (status == SUCCEEDED)


@given(states=st.lists(st.sampled_from([UPDATING, SUCCEEDED, FAILED]), min_size=1, max_size=4))
def test_an_operation_ends_with_the_last_of_its_extensions(states: list[str]) -> None:
    waits = [Wait(number, f"e{number}", "1.0.3", 2) for number in range(len(states))]
    found = outcome(waits, {number: _standing(state) for number, state in enumerate(states)})
    if UPDATING in states:
        assert found is None
    elif FAILED not in states:
        assert found == Outcome(SUCCEEDED)
    else:
        assert found is not None
        assert found.status == FAILED
        assert found.error is not None
        named = [item["target"] for item in found.error.get("details", [])]
        assert named == ([] if len(states) == 1 else [f"e{n}" for n, state in enumerate(states) if state == FAILED])


def test_messages_of_reports() -> None:
    inner = {"status": "error", "code": 3, "formattedMessage": {"lang": "en", "message": "of the handler"}}
    assert message_of(_item(status=inner)) == "of the handler"
    assert message_of(_item(status=inner, message="of the agent")) == "of the agent"
    assert message_of(_item(status={"formattedMessage": "text"})) == ""
    assert error_of(_item(status=inner)) == {"code": "3", "message": "of the handler"}
    assert error_of(_item(code=1009, status=inner))["code"] == "1009"
    assert error_of(_item(status={"status": "error"}))["message"].startswith("The operation enable of the extension")


def test_what_stays_of_reports_beside_one_another() -> None:
    desired, listed = {"desired": {"accepted": False}}, {"generation": 1, "extensions": []}
    assert reported.merged(None, desired) == desired
    assert reported.merged(desired, listed) == desired | listed
    assert reported.merged(desired | listed, {"generation": 2, "extensions": [1]}) == {
        **desired,
        "generation": 2,
        "extensions": [1],
    }
    assert (
        reported.merged(desired | listed, {"desired": {"accepted": True}}) == {"desired": {"accepted": True}} | listed
    )


@given(
    st.dictionaries(st.sampled_from(["publisher", "type", "settings", "tags"]), st.integers() | st.text() | st.none())
)
def test_bodies_are_read_or_refused_in_one_sentence(body: dict[str, Any]) -> None:
    told = ""
    try:
        wish.read({"properties": body, **body})
    except ApiError as error:
        told = error.message
    assert told == "" or told.endswith(".")


@given(st.text(max_size=90))
def test_names_that_are_taken_are_safe_in_paths(name: str) -> None:
    try:
        wish.check_name(name)
    except ApiError:
        return
    assert name.isascii()
    assert not set(name) & set("/\\ \0\n")
    assert name not in (".", "..")
    assert name[0] not in ".-"
    assert len(name) <= 80


def test_targets_of_an_upgrade() -> None:
    assert wish.read_upgrade({}) == {}
    targets = {"Hawser.Script": {"targetVersion": "1.0"}, "a.B": {}}
    assert wish.read_upgrade({"extensionTargets": targets}) == {"hawser.script": "1.0", "a.b": None}
    bads: list[Any] = [[], {"a.b": "1.0"}, {"a.b": {"targetVersion": 1}}, {"a.b": {"targetVersion": "x"}}]
    for bad in bads:
        with pytest.raises(ApiError):
            wish.read_upgrade({"extensionTargets": bad})
    with pytest.raises(ApiError):
        wish.read_many({"extensions": []})


def _package(os: str, arch: str, version: str = "1.0") -> Package:
    return Package("P", "T", version, os, arch, f"{os}-{arch}", 1, "00", False)


def test_packages_that_fit_a_machine() -> None:
    known = [_package("linux", "any"), _package("linux", "aarch64"), _package("windows", "x86_64")]

    def path(os: str, arch: str, version: str = "1.0") -> str | None:
        found = catalogue.chosen(known, version, os, arch)
        return found.path if found else None

    assert path("linux", "x86_64") == "linux-any"
    assert path("linux", "aarch64") == "linux-aarch64"
    assert path("Linux", "arm64") == "linux-aarch64"
    assert path("windows", "AMD64") == "windows-x86_64"
    assert path("windows", "arm64") is None
    assert path("linux", "x86_64", "1.0.0") == "linux-any"
    assert path("linux", "x86_64", "2") is None
    assert path("", "") is not None


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5), max_size=4),
    st.binary(min_size=16, max_size=16),
)
def test_settings_are_recognised_whatever_their_order(settings: dict[str, Any], key: bytes) -> None:
    turned = dict(reversed(list(settings.items())))
    digest = envelope.digest(settings, key, "a")
    assert envelope.digest(turned, key, "a") == digest
    assert envelope.digest({**settings, "more": 1, "": 2}, key, "a") != digest
    assert envelope.digest(settings, key, "b") != digest
    assert envelope.digest(settings, key + b"x", "a") != digest


_NAMES = st.sampled_from("abcde")
GRAPHS = st.dictionaries(_NAMES, st.lists(_NAMES, max_size=3), max_size=5)


@given(GRAPHS)
def test_levels_rise_along_every_order_that_is_let_in(wanted: dict[str, list[str]]) -> None:
    """Extension by extension, as they are written; what is refused is left out."""
    after: dict[str, list[str]] = {name: [] for name in wanted}
    for name, others in wanted.items():
        with contextlib.suppress(ApiError):
            order.check(name, {**after, name: others})
            after[name] = others
    found = order.levels(after)
    assert found.keys() == after.keys()
    for name, others in after.items():
        there = [found[other] for other in others]
        assert found[name] == 1 + max(there, default=-1)


@pytest.mark.parametrize(
    ("name", "after", "words"),
    [
        ("a", {"a": ["a"]}, "'a' cannot come after itself"),
        ("a", {"a": ["b"]}, "no extension 'b'"),
        ("a", {"a": ["c"], "b": ["a"], "c": ["b"]}, "'c' comes after 'a' already"),
    ],
)
def test_what_an_extension_cannot_come_after(name: str, after: dict[str, list[str]], words: str) -> None:
    with pytest.raises(ApiError, match=words):
        order.check(name, after)


def test_a_circle_is_one_level() -> None:
    """Nothing lets one in; should one be there, the machine is told all the same."""
    assert order.levels({"a": ["b"], "b": ["a"], "c": []}) == {"c": 0, "a": 1, "b": 1}

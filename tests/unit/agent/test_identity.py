# SPDX-License-Identifier: Apache-2.0
"""States of the identity: what each event may do, and that a crash between any two writes leaves exactly one state."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import errors
from agent_runtime.identity import machine
from agent_runtime.identity.machine import Event, Record
from agent_runtime.identity.store import (
    PUBLIC,
    IdentityStore,
    certificate_path,
    credential_of,
    descent_of,
    key_path,
    numbers_of,
)
from agent_runtime.platform import paths as places
from agent_runtime.platform.paths import Paths
from agent_runtime.service.log import Log
from agent_runtime.state import atomic

ARGS = {
    "cloud": "demo",
    "tenantId": "t",
    "subscriptionId": "s",
    "resourceGroup": "g",
    "resourceName": "web01",
    "location": "local",
    "vmId": "v",
    "tags": {},
    "correlationId": "c",
}
IDENTITY = {**{name: f"the {name}" for name in PUBLIC}, "cloud": "demo", "slot": 1, "certificateExpires": 2e9}
ERROR = {"code": "AZCM0042", "message": "no", "at": "now"}
EVENTS: dict[str, dict[str, Any]] = {
    "begin": {"args": ARGS, "requestId": "r1"},
    "step": {"step": "put"},
    "connected": {"identity": IDENTITY},
    "failed": {"error": ERROR},
    "cut_off": {},
    "renewed": {"slot": 2, "certificateThumbprint": "AB", "certificateExpires": 2e9},
    "park": {"error": ERROR},
    "quarantine": {"error": ERROR},
    "expire": {"error": ERROR},
    "resume": {"error": None},
    "trouble": {"error": ERROR},
    "release": {},
    "adopt": {"args": {**ARGS, "resourceName": "web07", "vmId": "w"}, "requestId": "r7"},
    "seal": {"force": False},
    "unseal": {},
}
ADOPTED = {**IDENTITY, "resourceName": "web07", "descent": 1}


def after(record: Record, *kinds: str) -> Record:
    for kind in kinds:
        record = machine.transition(record, Event(kind, "2026-11-23T00:00:00Z", EVENTS[kind]))
    return record


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=30))
def test_every_history_ends_in_a_record_that_its_file_can_hold(kinds: list[str]) -> None:
    record = Record()
    for kind in kinds:
        try:
            record = after(record, kind)
        except errors.AgentError:
            continue
    assert machine.from_dict(json.loads(json.dumps(record.as_dict()))) == record
    assert (record.identity is not None) == (record.state in machine.BOUND)


@pytest.mark.parametrize(
    ("history", "kind", "code"),
    [
        (("begin",), "begin", "AZCM0027"),
        (("begin", "connected"), "begin", "AZCM0067"),
        (("begin", "connected", "park"), "begin", "AZCM0067"),
        (("begin",), "release", "AZCM0027"),
        ((), "connected", "AZCM0002"),
        ((), "renewed", "AZCM0002"),
        ((), "park", "AZCM0002"),
        (("begin",), "seal", "AZCM0027"),
        (("begin", "connected"), "seal", "AZCM0027"),
        (("begin", "connected", "park"), "seal", "AZCM0027"),
        (("begin", "connected"), "unseal", "AZCM0002"),
        (("seal",), "begin", "AZCM0027"),
        (("seal",), "release", "AZCM0027"),
        (("seal",), "park", "AZCM0002"),
        (("seal",), "adopt", "AZCM0027"),
        ((), "adopt", "AZCM0027"),
        (("begin", "connected"), "adopt", "AZCM0027"),
        (("begin", "connected", "expire"), "adopt", "AZCM0027"),
        # Whose a held identity is, is in question; who is told that it has expired deletes the original at the hub.
        (("begin", "connected", "park"), "expire", "AZCM0002"),
        (("begin", "connected", "quarantine"), "expire", "AZCM0002"),
        (("begin", "connected", "park", "adopt"), "adopt", "AZCM0027"),
    ],
)
def test_an_event_that_a_state_does_not_allow_is_refused(history: tuple[str, ...], kind: str, code: str) -> None:
    with pytest.raises(errors.AgentError) as refused:
        after(after(Record(), *history), kind)
    assert refused.value.code == code


def test_a_connect_that_was_cut_off_goes_on_with_its_request() -> None:
    cut = after(Record(), "begin", "step", "cut_off")
    assert cut.state == "disconnected"
    assert machine.resumes(cut, ARGS)
    again = machine.transition(cut, Event("begin", "now", {"args": ARGS, "requestId": "r2"}))
    assert again.pending is not None
    assert again.pending["requestId"] == "r1"
    other = machine.transition(
        cut, Event("begin", "now", {"args": {**ARGS, "resourceName": "web02"}, "requestId": "r2"})
    )
    assert other.pending is not None
    assert other.pending["requestId"] == "r2"


@pytest.mark.parametrize("held", ["park", "quarantine"])
@pytest.mark.parametrize("end", ["failed", "cut_off"])
def test_a_name_of_its_own_that_could_not_be_had_leaves_the_identity_held(held: str, end: str) -> None:
    before = after(Record(), "begin", "connected", held)
    trying = after(before, "adopt", "step")
    assert (trying.state, trying.identity) == ("connecting", None)
    ended = after(trying, end)
    assert (ended.state, ended.identity) == (before.state, before.identity)
    assert machine.resumes(ended, EVENTS["adopt"]["args"]) == (end == "cut_off")
    again = machine.transition(ended, Event("adopt", "now", {**EVENTS["adopt"], "requestId": "r8"}))
    assert (again.pending or {})["requestId"] == ("r7" if end == "cut_off" else "r8")


def test_a_machine_with_a_name_of_its_own_has_one_identity() -> None:
    adopting = after(Record(), "begin", "connected", "park", "adopt")
    done = machine.transition(adopting, Event("connected", "now", {"identity": ADOPTED}))
    assert done == Record("connected", "now", ADOPTED, None, None)


def test_what_the_hub_releases_is_connected_with_the_credential_it_gave() -> None:
    held = after(Record(), "begin", "connected", "quarantine")
    same = machine.transition(held, Event("resume", "now", {}))
    assert (same.state, same.identity, same.error) == ("connected", IDENTITY, None)
    new = {"slot": 4, "certificateThumbprint": "CD", "certificateExpires": 3e9}
    rolled = machine.transition(held, Event("resume", "now", new))
    assert {name: (rolled.identity or {})[name] for name in new} == new


def test_sealing_drops_whatever_there_was_and_repeats() -> None:
    connected = after(Record(), "begin", "connected")
    sealed = machine.transition(connected, Event("seal", "now", {"force": True}))
    assert sealed == Record("sealed", "now")
    assert after(sealed, "seal") == sealed
    assert after(sealed, "unseal").state == after(sealed, "unseal", "unseal").state == "disconnected"


# Crashes


class PowerLoss(BaseException):
    """The machine ends here."""


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    return prepared(tmp_path)


def prepared(root: pathlib.Path) -> Paths:
    found = places.linux(str(root))
    for folder in (found.own, found.certs, found.log, found.tokens):
        os.makedirs(folder)
    return found


def opened(paths: Paths) -> IdentityStore:
    return IdentityStore(paths, Log(paths.himds_log))


def whole_life(paths: Paths, store: IdentityStore) -> None:
    """From nothing to an identity, a renewal, and back, with the files that himds writes on the way."""
    store.apply("begin", **EVENTS["begin"])
    atomic.write_bytes(key_path(paths, 1), b"key 1")
    store.apply("step", step="put")
    store.apply("step", step="enrol")
    atomic.write_bytes(certificate_path(paths, 1), b"certificate 1")
    store.apply("step", step="checkin")
    store.apply("connected", **EVENTS["connected"])
    atomic.write_bytes(key_path(paths, 2), b"key 2")
    atomic.write_bytes(certificate_path(paths, 2), b"certificate 2")
    store.apply("renewed", **EVENTS["renewed"])
    atomic.unlink(key_path(paths, 1))
    atomic.unlink(certificate_path(paths, 1))
    store.apply("park", **EVENTS["park"])
    store.apply("adopt", **EVENTS["adopt"])
    atomic.write_bytes(key_path(paths, 1, 1), b"key of its own")
    atomic.write_bytes(certificate_path(paths, 1, 1), b"certificate of its own")
    store.apply("connected", identity=ADOPTED)
    store.apply("release")
    store.apply("seal", force=False)


def crashing(at: int, before: bool) -> Iterator[Callable[..., Any]]:
    """Replacements for rename and unlink; the `at`-th call of either is the last thing that happens, or does not
    happen."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count > at:
                raise PowerLoss
            if count == at and before:
                raise PowerLoss
            result = real(*args, **kwargs)
            if count == at:
                raise PowerLoss
            return result

        return call

    yield counted(os.replace)
    yield counted(os.unlink)


def life_until_crash(paths: Paths, at: int, before: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the life was cut off."""
    with monkeypatch.context() as patched:
        replace, unlink = crashing(at, before)
        store = opened(paths)
        patched.setattr(os, "replace", replace)
        patched.setattr(os, "unlink", unlink)
        patched.setattr(os, "fsync", lambda _: None)  # thousands of writes: the order counts here, not the disk
        try:
            whole_life(paths, store)
        except PowerLoss:
            return True
    return False


def faults(paths: Paths) -> list[str]:
    """What is wrong with the files after a start; empty when they tell one story."""
    store = opened(paths)
    record = store.record
    found = []
    if record.state not in ("disconnected", "connected", "parked", "sealed"):
        found.append(f"state {record.state} after a start")
    bound = record.state in ("connected", "parked")
    if bound:
        identity = record.identity or {}
        slot = int(identity["slot"])
        mine = credential_of(paths, identity)
        named = (mine["key"], mine["certificate"])
        others = {numbers[0] for name in os.listdir(paths.certs) if (numbers := numbers_of(name))}
        if record.pending is None and others != {descent_of(identity)}:
            found.append("keys of two names")
        found += [
            f"the identity names slot {slot}, {os.path.basename(path)} is missing"
            for path in named
            if not os.path.exists(path)
        ]
    if bound != os.path.exists(paths.agentconfig):
        found.append("agentconfig.json and identity.json disagree")
    if not bound and record.pending is None and os.listdir(paths.certs):
        found.append("a key is left without an identity")
    if [name for folder in (paths.own, paths.certs) for name in os.listdir(folder) if name.endswith(".tmp")]:
        found.append("a half-written file is left")
    if opened(paths).record != record:
        found.append("a second start changes the state")
    return found


def test_a_crash_at_any_write_leaves_one_state(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashes = 0
    for at in range(1, 200):
        cut = False
        for before in (True, False):
            paths = prepared(tmp_path / f"{at}-{before}")
            cut = life_until_crash(paths, at, before, monkeypatch)
            crashes += cut
            assert faults(paths) == [], f"crash {'before' if before else 'after'} operation {at}"
        if not cut:
            break
    assert crashes > 40


def test_a_store_that_forgets_the_key_first_is_caught(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge above finds the fault of a wrong order."""

    def wrong_order(self: IdentityStore, kind: str, **data: Any) -> Record:
        if kind == "release":
            for name in os.listdir(self._paths.certs):
                atomic.unlink(os.path.join(self._paths.certs, name))
        return right(self, kind, **data)

    right = IdentityStore.apply
    monkeypatch.setattr(IdentityStore, "apply", wrong_order)
    caught = []
    for at in range(1, 60):
        paths = prepared(tmp_path / str(at))
        life_until_crash(paths, at, before=False, monkeypatch=monkeypatch)
        caught += faults(paths)
    assert any("is missing" in fault for fault in caught)


def connected(paths: Paths, with_evidence: bool = True) -> None:
    """A machine with an identity, whose himds has ended."""
    store = opened(paths)
    store.apply("begin", **EVENTS["begin"])
    atomic.write_bytes(key_path(paths, 1), b"key")
    atomic.write_bytes(certificate_path(paths, 1), b"certificate")
    store.apply("connected", **EVENTS["connected"])
    if with_evidence:
        atomic.write_json(paths.evidence, {"v": 1, "items": [{"name": "dmi_uuid", "status": "ok", "digest": "0"}]})


def damaged_member(**changes: Any) -> bytes:
    return json.dumps(Record("connected", "", {**IDENTITY, **changes}).as_dict()).encode()


def damaged_pending(**pending: Any) -> bytes:
    return json.dumps({**Record("connecting").as_dict(), "pending": pending}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"{", b"[]", b'{"v": 1, "state": "connected"}', b'{"v": 1, "state": "odd"}', b"\0" * 300),
        # Whole JSON, and nothing that anybody could use.
        *(damaged_member(slot=slot) for slot in ("x", None, 1e30, 10**30, -5, True)),
        *(damaged_member(descent=descent) for descent in ("q", -5, 0.5, 10**6)),
        *(damaged_member(certificateExpires=ends) for ends in ("nan", float("nan"), float("inf"), -1, 1e300, True)),
        damaged_member(clientId=None),
        damaged_member(tenantId=7),
        damaged_pending(),
        damaged_pending(args={}, requestId=5),
        damaged_pending(args={}, requestId="r", **{"from": {}}),
        damaged_pending(args={}, requestId="r", **{"from": {"state": "parked", "identity": {"slot": 1}}}),
        damaged_pending(args={}, requestId="r", **{"from": {"state": "parked", "identity": IDENTITY, "error": 5}}),
    ],
)
def test_a_damaged_file_is_kept_aside_and_the_identity_rebuilt(paths: Paths, damage: bytes) -> None:
    connected(paths)
    pathlib.Path(paths.identity).write_bytes(damage)
    again = opened(paths)
    assert again.record.state == "connected"
    assert (again.record.identity or {})["resourceId"] == IDENTITY["resourceId"]
    assert sorted(os.listdir(paths.certs)) == ["identity-1.crt", "identity-1.key"]
    kept = [name for name in os.listdir(paths.own) if name.startswith("identity.json.damaged-")]
    assert len(kept) == 1
    assert "AZCM0002" in pathlib.Path(paths.himds_log).read_text(encoding="utf-8")


def test_a_missing_file_is_rebuilt_as_a_damaged_one(paths: Paths) -> None:
    connected(paths)
    os.unlink(paths.identity)
    again = opened(paths)
    assert (again.record.state, (again.record.identity or {})["slot"]) == ("connected", 1)
    assert sorted(os.listdir(paths.certs)) == ["identity-1.crt", "identity-1.key"]
    assert opened(paths).record == again.record
    assert "identity.json is missing" in pathlib.Path(paths.himds_log).read_text(encoding="utf-8")


def test_a_fresh_installation_is_disconnected_and_nothing_is_wrong(paths: Paths) -> None:
    assert opened(paths).record.state == "disconnected"
    assert not pathlib.Path(paths.himds_log).exists() or "AZCM" not in pathlib.Path(paths.himds_log).read_text()


@pytest.mark.parametrize("evidence", [None, b"{", b'{"v": 1}', b'{"v": 1, "items": [{"name": "dmi_uuid"}]}'])
@pytest.mark.parametrize("identity", [None, b"{"])
def test_an_identity_that_may_have_been_held_is_asked_about(
    paths: Paths, identity: bytes | None, evidence: bytes | None
) -> None:
    """Nothing is left to judge the machine by: it may have been in quarantine."""
    connected(paths, with_evidence=False)
    for path, content in ((paths.identity, identity), (paths.evidence, evidence)):
        if content is not None:
            pathlib.Path(path).write_bytes(content)
        elif os.path.exists(path):
            os.unlink(path)
    record = opened(paths).record
    assert (record.state, (record.error or {})["reason"]) == ("parked", "evidence")
    assert sorted(os.listdir(paths.certs)) == ["identity-1.crt", "identity-1.key"]


def test_a_file_that_names_a_key_which_is_not_there_costs_no_other_key(paths: Paths) -> None:
    connected(paths)
    pathlib.Path(paths.identity).write_bytes(damaged_member(slot=7))
    opened(paths)
    assert sorted(os.listdir(paths.certs)) == ["identity-1.crt", "identity-1.key"]


def test_a_damaged_file_without_the_rest_means_disconnected(paths: Paths) -> None:
    pathlib.Path(paths.identity).write_bytes(b"{")
    assert opened(paths).record.state == "disconnected"


def test_a_full_disk_changes_nothing(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(paths)
    store.apply("begin", **EVENTS["begin"])
    before = store.record

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            store.apply("step", step="enrol")
    assert store.record == before
    assert machine.from_dict(atomic.read_json(paths.identity)) == before

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
from agent_runtime.identity.store import PUBLIC, IdentityStore, certificate_path, key_path
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
}


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
    store.apply("release")


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
    if record.state not in ("disconnected", "connected"):
        found.append(f"state {record.state} after a start")
    bound = record.state == "connected"
    if bound:
        slot = int((record.identity or {})["slot"])
        named = (key_path(paths, slot), certificate_path(paths, slot))
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
    assert crashes > 20


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
    for at in range(1, 30):
        paths = prepared(tmp_path / str(at))
        life_until_crash(paths, at, before=False, monkeypatch=monkeypatch)
        caught += faults(paths)
    assert any("is missing" in fault for fault in caught)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"v": 1, "state": "connected"}', b'{"v": 1, "state": "odd"}', b"\0" * 300]
)
def test_a_damaged_file_is_kept_aside_and_the_identity_rebuilt(paths: Paths, damage: bytes) -> None:
    store = opened(paths)
    store.apply("begin", **EVENTS["begin"])
    atomic.write_bytes(key_path(paths, 1), b"key")
    atomic.write_bytes(certificate_path(paths, 1), b"certificate")
    store.apply("connected", **EVENTS["connected"])
    pathlib.Path(paths.identity).write_bytes(damage)
    again = opened(paths)
    assert again.record.state == "connected"
    assert (again.record.identity or {})["resourceId"] == IDENTITY["resourceId"]
    kept = [name for name in os.listdir(paths.own) if name.startswith("identity.json.damaged-")]
    assert len(kept) == 1
    assert "AZCM0002" in pathlib.Path(paths.himds_log).read_text(encoding="utf-8")


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

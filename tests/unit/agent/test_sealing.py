# SPDX-License-Identifier: Apache-2.0
"""Sealing and unsealing cut off at any write: one state, and a repeated command ends what was begun."""

from __future__ import annotations

import base64
import json
import os
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from agent_runtime import errors
from agent_runtime.identity import birth, remains, sealing
from agent_runtime.identity.machine import Record
from agent_runtime.identity.sealing import Wish
from agent_runtime.identity.store import IdentityStore
from agent_runtime.platform import paths as places
from agent_runtime.platform.base import Signal
from agent_runtime.platform.paths import Paths
from agent_runtime.service.log import Log
from agent_runtime.state import atomic

WISH = Wish("web-1", {"cloud": "demo", "profile": "web"}, "hwe_" + "t" * 40, True, False, "builder")
IDENTITY = {"resourceId": "/r/web01", "slot": 1, "clientId": "c", "tenantId": "t", "vmId": "v", "cloud": "demo"}
SIGNALS = [Signal("dmi_uuid", "ok", "a")]


class PowerLoss(BaseException):
    """The machine ends here."""


def connected(root: pathlib.Path) -> Paths:
    paths = places.linux(str(root))
    for folder in (paths.own, paths.certs, paths.tokens, paths.log, paths.desired, paths.outbox, paths.policy):
        os.makedirs(folder, exist_ok=True)
    atomic.write_json(paths.identity, Record("connected", "", IDENTITY).as_dict(), durable=False)
    for path in (
        *(os.path.join(paths.certs, f"identity-1.{end}") for end in ("key", "crt")),
        os.path.join(paths.own, "agentconfig.json"),
        os.path.join(paths.desired, "policy.jws"),
        os.path.join(paths.policy, "floor.json"),
        paths.evidence,
        paths.binding,
        paths.himds_log,
    ):
        pathlib.Path(path).write_text("secret")
    return paths


def until(paths: Paths, at: int, before: bool, act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `act` was cut off at the AT-th rename, removal or write into a file that is there."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count > at or (count == at and before):
                raise PowerLoss
            result = real(*arguments, **named)
            if count == at:
                raise PowerLoss
            return result

        return call

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink", "write"):
            patched.setattr(os, name, counted(getattr(os, name)))
        patched.setattr(os, "fsync", lambda _: None)
        try:
            act()
        except PowerLoss:
            return True
    return False


def faults(paths: Paths) -> list[str]:
    """What is wrong with an image whose sealing ended or was cut off."""
    record = sealing.state_of(paths)
    journal = os.path.lexists(paths.seal_journal)
    found = []
    if record.state not in ("connected", "sealed"):
        found.append(f"state {record.state}")
    whole = all(
        pathlib.Path(paths.certs, f"identity-1.{end}").exists()
        and pathlib.Path(paths.certs, f"identity-1.{end}").read_text() == "secret"
        for end in ("key", "crt")
    )
    if record.state == "connected" and not whole:
        found.append("an identity without its key")
    left = remains.found(paths, with_logs=True, with_token=False)
    if record.state == "sealed" and not journal and left:
        found.append(f"clean, they say, and {left[0].path} is there")
    if record.state == "sealed" and birth.read_or_none(paths) is None:
        found.append("a sealed image without a name")
    return found


@pytest.mark.parametrize("before", [True, False])
def test_a_seal_cut_off_at_any_write_leaves_one_state_and_is_ended_by_the_next(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    crashes = 0
    for at in range(1, 200):
        paths = connected(tmp_path / str(at))
        cut = until(paths, at, before, partial(sealing.seal, paths, WISH, SIGNALS), monkeypatch)
        crashes += cut
        assert faults(paths) == [], f"operation {at}"
        journal = sealing.unfinished(paths)
        if journal is not None:
            # The next boot ends it, on whatever machine that is.
            sealing.finish(paths, journal)
            assert (sealing.state_of(paths).state, faults(paths)) == ("sealed", [])
        sealing.seal(paths, WISH, SIGNALS)
        assert sealing.is_finished(paths, WISH)
        assert sealing.read_token(paths) == WISH.token
        assert birth.is_sealed(paths)
        assert json.loads(pathlib.Path(paths.image).read_text())["enrol"] == WISH.enrol
        if not cut:
            break
    assert crashes > 15


@pytest.mark.parametrize("broken", ["identity last", "no journal"])
def test_a_seal_in_the_wrong_order_is_caught(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The judge above finds the faults of wrong orders."""

    def wrong(paths: Paths) -> None:
        left = remains.found(paths, with_token=False)
        if broken == "identity last":
            remains.clear(left)
        sealing.seal(paths, WISH, SIGNALS)

    def journal_first(paths: Paths) -> None:
        with monkeypatch.context() as patched:
            right = atomic.write_json

            def unjournalled(path: str, *rest: Any, **named: Any) -> None:
                if path != paths.seal_journal:
                    right(path, *rest, **named)

            patched.setattr(atomic, "write_json", unjournalled)
            sealing.seal(paths, WISH, SIGNALS)

    caught = []
    for at in range(1, 40):
        paths = connected(tmp_path / str(at))
        act = wrong if broken == "identity last" else journal_first
        until(paths, at, False, partial(act, paths), monkeypatch)
        caught += faults(paths)
    assert caught


@pytest.mark.parametrize("before", [True, False])
def test_an_unseal_cut_off_at_any_write_is_ended_by_the_next(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    crashes = 0
    for at in range(1, 20):
        paths = connected(tmp_path / str(at))
        sealing.seal(paths, WISH, SIGNALS)
        cut = until(paths, at, before, partial(sealing.unseal, paths, sealing.COPIED), monkeypatch)
        crashes += cut
        state, record = sealing.state_of(paths).state, birth.read(paths)
        assert state in ("sealed", "disconnected")
        assert record is not None
        assert state == "sealed" or record["unsealedBy"] == sealing.COPIED
        if state == "sealed" and record["unsealedAt"] is not None:
            # On whatever machine the next boot is: what was begun is ended.
            assert sealing.reason_to_unseal(record, SIGNALS, False) == sealing.COPIED
        sealing.unseal(paths, sealing.COPIED)
        assert sealing.state_of(paths).state == "disconnected"
        if not cut:
            break
    assert crashes > 3


def test_himds_finds_a_sealed_image_sealed_also_when_its_file_is_damaged(tmp_path: pathlib.Path) -> None:
    paths = connected(tmp_path)
    sealing.seal(paths, WISH, SIGNALS)
    for content in (None, b"{", b"\0" * 100, b""):
        os.unlink(paths.identity)
        if content is not None:
            pathlib.Path(paths.identity).write_bytes(content)
        assert sealing.state_of(paths).state == "sealed"
        store = IdentityStore(paths, Log(paths.himds_log))
        assert store.record.state == "sealed"
        with pytest.raises(Exception, match="sealed"):
            store.apply("begin", args={}, requestId="r")
    sealing.unseal(paths, sealing.HERE)
    pathlib.Path(paths.identity).write_bytes(b"{")
    assert IdentityStore(paths, Log(paths.himds_log)).record.state == "disconnected"


def test_what_is_overwritten_is_gone_from_the_disk(tmp_path: pathlib.Path) -> None:
    """A second name of the same file shows its blocks; only a file with one name is written over."""
    paths = connected(tmp_path)
    key = pathlib.Path(paths.certs, "identity-1.key")
    key.write_bytes(b"secret" * 50000)
    descriptor = os.open(key, os.O_RDONLY)
    try:
        remains.clear([remains.Remain(str(key), True)])
        assert not key.exists()
        assert os.read(descriptor, 1 << 20).strip(b"\0") == b""
    finally:
        os.close(descriptor)


def test_a_token_that_is_replaced_is_overwritten(tmp_path: pathlib.Path) -> None:
    paths = connected(tmp_path)
    sealing.seal(paths, WISH, SIGNALS)
    descriptor = os.open(paths.image_token, os.O_RDONLY)
    try:
        sealing.seal(paths, WISH._replace(token="hwe_" + "n" * 40), SIGNALS)
        assert os.read(descriptor, 100).strip(b"\0") == b""
    finally:
        os.close(descriptor)
    assert sealing.read_token(paths) == "hwe_" + "n" * 40
    assert sorted(name for name in os.listdir(paths.state) if "token" in name) == ["image.token", "tokens"]


def test_a_token_that_cannot_be_replaced_stays(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = connected(tmp_path)
    sealing.seal(paths, WISH, SIGNALS)

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            sealing.seal(paths, WISH._replace(token="hwe_" + "n" * 40), SIGNALS)
    assert sealing.read_token(paths) == WISH.token
    assert remains.found(paths, with_token=False) == []


def test_a_journal_does_not_end_a_seal_through_a_link(tmp_path: pathlib.Path) -> None:
    paths = connected(tmp_path / "root")
    journal = {"record": {"imageId": "x", "sealedAt": "", "enrol": None}, "keepLogs": True}
    os.rename(paths.certs, tmp_path / "keys")
    os.symlink(tmp_path / "keys", paths.certs)
    with pytest.raises(errors.ConfigurationConflict, match="is a link"):
        sealing.finish(paths, journal)
    assert os.path.islink(paths.certs)
    assert sealing.state_of(paths).state == "connected"


def test_what_extd_gave_to_handlers_are_remains(tmp_path: pathlib.Path) -> None:
    paths = places.linux(str(tmp_path))
    folder = pathlib.Path(paths.handlers)
    known, said, theirs = "0A" * 20, "0B" * 20, "0C" * 20
    handler, many, other = "Test.Fake-1.0", "Test.Many-2.0", "Vendor.Own-1.0"
    ours = [
        *(f"{name}.{ending}" for name in (known, said) for ending in ("crt", "prv")),
        *(f"{handler}/{name}" for name in ("config/0.settings", "mrseq", "status/0.status")),
        *(f"{many}/{name}" for name in ("config/a.1.settings", "a.mrseq", "status/a.1.status")),
    ]
    others = [
        *(f"{theirs}.crt", f"{theirs}.prv", "ovf-env.xml", f"{handler}/key.prv", f"{handler}/config/HandlerState"),
        *(f"{handler}/HandlerManifest.json", f"{other}/config/0.settings", f"{other}/mrseq"),
    ]
    for name in (*ours, *others):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    named = base64.b64encode(b"\x86\x2aurn:hawser:machine:0b0c6a52").decode()
    (folder / f"{said}.crt").write_text(f"-----BEGIN CERTIFICATE-----\n{named}\n-----END CERTIFICATE-----\n")
    records = {
        "test.fake": {"publisher": "Test", "type": "Fake", "version": "1.0", "folders": ["1.0"]},
        "test.many": {"publisher": "Test", "type": "Many", "folders": ["2.0"]},
    }
    memory = {"v": 1, "handlers": records, "results": {}, "certificates": [known], "generation": 1, "machine": "x"}
    os.makedirs(paths.extensions)
    atomic.write_json(f"{paths.extensions}/handlers.json", memory)
    found = remains.found(paths)
    wanted = [str(folder / name) for name in sorted(ours, key=lambda name: (name.endswith(".crt"), name))]
    assert found == [remains.Remain(path, True) for path in (*wanted, f"{paths.extensions}/handlers.json")]
    assert remains.installed(paths) == [("Fake", "1.0", str(folder / handler))]
    # Cut off anywhere, the rest is found again: what tells whose they are goes last.
    for number, remain in enumerate(found, 1):
        remains.clear([remain])
        assert remains.found(paths) == found[number:]
    assert all((folder / name).exists() for name in others)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"imageId": "a b"},
        {"imageId": None},
        {"salt": "00"},
        {"evidence": [{"name": "dmi_uuid"}]},
        {"enrol": {"cloud": "demo"}},
        {"enrol": "web"},
        {"sealedAt": None},
        {"unsealedAt": 5},
        {"unsealedBy": {}},
    ],
)
def test_a_damaged_birth_record_is_none(tmp_path: pathlib.Path, changes: dict[str, Any]) -> None:
    paths = connected(tmp_path)
    sealing.seal(paths, WISH, SIGNALS)
    record = json.loads(pathlib.Path(paths.image).read_text())
    atomic.write_json(paths.image, {**record, **changes})
    with pytest.raises(ValueError, match=r"image.json|evidence"):
        birth.read(paths)
    assert birth.read_or_none(paths) is None

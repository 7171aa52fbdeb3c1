# SPDX-License-Identifier: Apache-2.0
"""The repository of packages under kill -9: what clients see at every moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control_plane import clock
from control_plane.artefacts import bundle, keys, publishing
from control_plane.artefacts import place as places
from control_plane.operate import artefacts as work
from tests.unit.artefacts.conftest import Client, add, settle


class Killed(BaseException):
    """The process has gone."""


class Life:
    """Lets a number of operations on files happen, and none after them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.seen = 0
        for owner, name in (
            (os, "replace"), (os, "rename"), (os, "unlink"), (os, "fsync"), (os, "utime"), (os, "mkdir"), (os, "rmdir"),
            (os, "fchmod"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, self._mortal(getattr(owner, name)))

    def _mortal(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.left is not None:
                if self.left == 0:
                    raise Killed
                self.left -= 1
            self.seen += 1
            return real(*args, **kwargs)

        return call


def _change(kind: str, top: Path, data: Path) -> Callable[[], object]:
    """A change that is staged, signed, and to be put in force."""
    if kind == "bundle":
        far = top / "far"
        shutil.copytree(data, far)
        add(data, top / "q.zip", "2.0.0")
        settle(data, top / "keys")
        work.export_bundle(data, top / "b.tar", None)
        shutil.rmtree(data)
        far.rename(data)
        return lambda: _imported(data, top / "b.tar")
    if kind == "refresh":
        return lambda: work.refresh(data, force=True)
    folders = [top / "keys"]
    add(data, top / "q.zip", "2.0.0")
    if kind == "rotate":
        keys.make(top / "keys2", keys.OFFLINE, None)
        folders.append(top / "keys2")
        work.rotate(data, "root", work.holders([top / "keys2/root.pub"], 1))
        work.rotate(data, "targets", work.holders([top / "keys2/targets.pub"], 1))
        work.rotate(data, "online", None)
    for folder in folders:
        work.sign(folder, work.staged_files(data), lambda _: b"")
    return lambda: _published(data)


def _published(data: Path) -> None:
    place = places.of(data)
    with places.locked(place):
        publishing.publish(place, data, clock.now())


def _imported(data: Path, file: Path) -> None:
    place = places.of(data)
    with places.locked(place):
        bundle.read(place, file, None)


@pytest.mark.parametrize("kind", ["publish", "rotate", "refresh", "bundle"])
def test_killed_anywhere_clients_go_on(top: Path, data: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 between any two operations on files: old and new clients get the old state or the new one, whole; run
    again, the command ends what it began."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # counted below; the disk is not what is tested
    old = add(data, top / "p.zip")
    settle(data, top / "keys")
    Client(data, top / "client").look()
    act = _change(kind, top, data)
    paths = [old.target, "extensions/Hawser.Demo/2.0.0/linux.zip"]
    contents = [(top / "p.zip").read_bytes(), None if kind == "refresh" else (top / "q.zip").read_bytes()]
    saved = top / "saved"
    for room in ("artefacts", "keys"):
        shutil.copytree(data / room, saved / room)
    with monkeypatch.context() as patch:
        life = Life(patch)
        act()
        steps = life.seen
    assert steps > 5
    for step in range(steps):
        for room in ("artefacts", "keys"):
            shutil.rmtree(data / room)
            shutil.copytree(saved / room, data / room)
        shutil.rmtree(top / "seen", ignore_errors=True)
        shutil.copytree(top / "client", top / "seen", symlinks=True)
        with monkeypatch.context() as patch:
            life = Life(patch)
            life.left = step
            with pytest.raises(Killed):
                act()
        for folder in ("seen", f"fresh{step}"):
            found = Client(data, top / folder).look(*paths)
            assert found[0] == contents[0], step
            assert found[1] in (None, contents[1]), step
        if (kind != "publish" and kind != "rotate") or list(places.of(data).staged.glob("*.json")):
            act()  # else it had ended
        assert Client(data, top / "seen").look(*paths) == contents, step
        assert not [path for path in places.of(data).metadata.iterdir() if path.name.startswith(".")], step
        assert not list(places.of(data).staged.glob("*.json")), step

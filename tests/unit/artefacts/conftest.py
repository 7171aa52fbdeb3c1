# SPDX-License-Identifier: Apache-2.0
"""What tests of the repository of packages share: a hub with keys, packages, and a machine that reads it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from control_plane import clock
from control_plane.artefacts import keys, package, publishing, serving
from control_plane.cli import main
from control_plane.operate import artefacts as work

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = {f"{name}Command": f"./run.sh {name}" for name in ("install", "enable", "disable", "update", "uninstall")}
DAY = 86400


def run(data: Path, *arguments: str | Path) -> Result:
    words = ["--data", str(data), *map(str, arguments)]
    return CliRunner().invoke(main, words, catch_exceptions=False)


def told(data: Path, *arguments: str | Path) -> str:
    """What a command that fails says: one sentence and a remedy."""
    found = run(data, *arguments)
    assert found.exit_code == 1, found.output
    lines = found.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("hawser-hub: ")
    assert lines[1]
    return lines[0].removeprefix("hawser-hub: ")


def packed(path: Path, version: str = "1.0.0", **more: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        about = {
            "handlerManifest": COMMANDS,
            "signingInfo": {"publisher": "Hawser", "type": "Demo", "version": version},
        }
        made.writestr("HandlerManifest.json", json.dumps([about]))
        made.writestr("run.sh", "#!/bin/sh\n")
        for name, content in more.items():
            made.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with an empty repository; `keys` beside its data."""
    top = tmp_path_factory.mktemp("prepared")
    assert run(top / "data", "init", "--url", "https://hub.example:8443").exit_code == 0
    keys.make(top / "keys", keys.OFFLINE, None)
    work.init(top / "data", work.holders([top / "keys/root.pub"], 1), work.holders([top / "keys/targets.pub"], 1))
    settle(top / "data", top / "keys")
    return top


def settle(data: Path, *folders: Path) -> publishing.Outcome:
    for folder in folders:
        work.sign(folder, work.staged_files(data), lambda _: b"")
    return work.publish(data, [])


@pytest.fixture
def top(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def data(top: Path) -> Path:
    return top / "data"


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], int]:
    """Lets days pass for the hub."""
    begin, days = clock.now(), [0.0]

    def at() -> int:
        return begin + int(days[0] * DAY)

    monkeypatch.setattr(work, "now", at)

    def more(by: float) -> int:
        days[0] += by
        return at()

    return more


def add(data: Path, path: Path, version: str = "1.0.0", **more: Any) -> package.Package:
    found = package.inspect(packed(path, version, **more), None, None, None, "linux", "any")
    work.add(data, path, found)
    return found


class Client(FetcherInterface):
    """A machine: reads the files that the hub serves, and remembers what it has seen."""

    def __init__(self, data: Path, folder: Path) -> None:
        self._data, self._folder = data, folder
        self._root = (data / "artefacts/metadata/1.root.json").read_bytes()
        folder.mkdir(exist_ok=True)

    def _fetch(self, url: str) -> Iterator[bytes]:
        found = serving.file_of(self._data, url.removeprefix("hub:/"))
        if found is None or not found[0].exists():
            raise DownloadHTTPError("none", 404)
        return iter([found[0].read_bytes()])

    def look(self, *paths: str) -> list[bytes | None]:
        """What is at these paths, once everything was believed."""
        updater = Updater(str(self._folder), "hub:/artefacts/metadata", fetcher=self, bootstrap=self._root)
        updater.refresh()
        found: list[bytes | None] = []
        for path in paths:
            target = updater.get_targetinfo(path)
            if target is not None:
                kept = updater.download_target(target, str(self._folder / "got"), "hub:/artefacts/targets")
                found.append(Path(kept).read_bytes())
            else:
                found.append(None)
        return found

# SPDX-License-Identifier: Apache-2.0
"""dpkg itself, on a system of its own in a folder; the watchdog's program; what is kept on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agent_runtime
from agent_runtime import errors
from agent_runtime.platform.paths import linux
from agent_runtime.upgrade import packages, plan, unit
from agent_runtime.upgrade.journal import Files, digest
from agent_runtime.upgrade.packages import Dpkg, Found
from agent_runtime.upgrade.watchdog import question_of

pytestmark = pytest.mark.skipif(not os.path.exists("/usr/bin/dpkg"), reason="a system of Debian's family")
NOW = "2026-11-28T12:00:00Z"


def built(folder: Path, version: str, name: str = "azcmagent", script: str = "") -> str:
    tree = folder / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    fields = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(fields)
    if script:
        (tree / "DEBIAN/preinst").write_text(script)
        (tree / "DEBIAN/preinst").chmod(0o755)
    (tree / "version").write_text(version)
    made = folder / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, made], check=True, stdout=subprocess.DEVNULL)
    return str(made)


@pytest.fixture
def system(tmp_path: Path) -> Path:
    root = tmp_path / "system"
    (root / "var/lib/dpkg/updates").mkdir(parents=True)
    (root / "var/lib/dpkg/info").mkdir()
    (root / "var/lib/dpkg/status").touch()
    return root


def unheld() -> None:
    raise AssertionError("nobody holds the lock")


def put(dpkg: Dpkg, package: str, ready: Callable[[], bool] = lambda: True) -> str | None:
    """Installed, while nobody else holds the package manager."""
    return dpkg.install(package, unheld, ready, f"{package}.out")


@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg changes systems as root alone")
def test_installed_upgraded_and_taken_back(system: Path, tmp_path: Path) -> None:
    dpkg = Dpkg(str(system))
    assert dpkg.installed() == Found("", False)
    made = {version: built(tmp_path, version) for version in ("1.0.0.1", "1.0.0.2")}
    for version in ("1.0.0.1", "1.0.0.2", "1.0.0.1"):
        assert put(dpkg, made[version]) == ""
        assert dpkg.installed() == Found(version, True)
        assert (system / "version").read_text() == version


@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg changes systems as root alone")
def test_a_package_that_refuses_says_why(system: Path, tmp_path: Path) -> None:
    dpkg = Dpkg(str(system))
    assert put(dpkg, built(tmp_path, "1.0.0.1")) == ""
    said = put(dpkg, built(tmp_path, "1.0.0.2", script="#!/no/such/shell\n"))
    assert said is not None
    assert said.startswith("dpkg ended with 1: ")
    assert len(said) < 500
    assert dpkg.installed() == Found("1.0.0.1", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg changes systems as root alone")
@pytest.mark.parametrize("lock", ["lock-frontend", "lock"])
def test_whoever_holds_the_package_manager_is_waited_for(
    system: Path, tmp_path: Path, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "PAUSE", 0.01)
    holder = """
        import fcntl, sys
        file = open(sys.argv[1], "w")
        fcntl.lockf(file, fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.read()
    """
    argv = [sys.executable, "-c", textwrap.dedent(holder), str(system / "var/lib/dpkg" / lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        waited: list[bool] = []

        def waits() -> None:
            waited.append(True)
            if len(waited) == 3:
                held.communicate("")

        dpkg = Dpkg(str(system))
        assert dpkg.is_held()
        # What has changed while the package manager was waited for is not overwritten.
        asked: list[bool] = []
        made = built(tmp_path, "1.0.0.1")

        def changed() -> bool:
            asked.append(True)
            return False

        assert dpkg.install(made, waits, changed, f"{made}.out") is None
    assert len(waited) >= 3
    assert (asked, dpkg.is_held(), dpkg.installed().version) == ([True], False, "")
    assert put(dpkg, made) == ""


def test_packages_are_read_before_they_are_installed(tmp_path: Path) -> None:
    assert Dpkg().describe(built(tmp_path, "1.0.0.7")) == ("azcmagent", "1.0.0.7")
    (tmp_path / "none.deb").write_text("no package")
    with pytest.raises(errors.ExtensionNotAdded):
        Dpkg().describe(str(tmp_path / "none.deb"))


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    assert packages.run(["sh", "-c", "sleep 100 & sleep 100"], 0.2, output) == "sh took longer than 0.2 s"
    assert packages.run(["sh", "-c", "echo said; exit 3"], 10, output) == "sh ended with 3: said"
    # A child that goes on with the streams keeps nobody waiting.
    assert packages.run(["sh", "-c", "sleep 30 & echo $!"], 20, output) == ""
    os.kill(int(Path(output).read_text()), signal.SIGKILL)


def test_what_rpm_says_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers as rpm(8) documents them; no host of the lab is made of rpms."""
    for code, said, found in (
        (0, "1.0.0.1\n", Found("1.0.0.1", True)),
        (0, "1.0.0.1\n1.0.0.2\n", Found("1.0.0.2", False)),
        (1, "package azcmagent is not installed\n", Found("", False)),
    ):
        done = subprocess.CompletedProcess([], code, said, "")
        monkeypatch.setattr(packages, "_ask", lambda _, done=done: done)
        assert packages.Rpm().installed() == found
    broken = subprocess.CompletedProcess([], 1, "", "error: cannot open Packages database in /var/lib/rpm")
    monkeypatch.setattr(packages, "_ask", lambda _: broken)
    with pytest.raises(errors.InternalError, match="cannot open"):
        packages.Rpm().installed()


def test_the_watchdog_is_a_program_of_its_own(tmp_path: Path) -> None:
    """From its archive alone, isolated, far from any checkout."""
    folder = os.path.dirname(agent_runtime.__file__)
    content = unit.archive(folder)
    assert content == unit.archive(folder)
    program = tmp_path / "watchdog.pyz"
    program.write_bytes(content)
    argv = [sys.executable, "-IS", str(program), "--root", str(tmp_path)]
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False)
    # No journal: nothing to do.
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert (tmp_path / "var/lib/GuestConfig/upgrade/packages").is_dir()


def journal(**more: Any) -> plan.Journal:
    wish = plan.Wish("hub", "m", "demo", "1.0.0.1", "1.0.0.2", "deb")
    return {**plan.begun(wish, "id", "/worker", NOW), **more}


def test_the_journal_is_read_with_members_of_a_newer_version(tmp_path: Path) -> None:
    files = Files(linux(str(tmp_path)))
    files.make()
    assert files.read() is None
    files.write(journal(newer={"a": 1}))
    found = files.read()
    assert found == journal(newer={"a": 1})
    assert os.stat(files.folder).st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "another"},
        {"state": "waiting"},
        {"deadline": "600"},
        {"clock": {"boot": 1}},
        {"new": "path"},
        {"steps": None},
        {"from": None},
    ],
)
def test_a_journal_that_makes_no_sense_is_damaged(tmp_path: Path, damage: dict[str, Any]) -> None:
    files = Files(linux(str(tmp_path)))
    files.make()
    files.write(journal(**damage))
    with pytest.raises(ValueError, match="damaged"):
        files.read()


@pytest.mark.parametrize("cloud", ["../state/mine", "/var/opt/azcmagent/state/mine", "none", ""])
def test_only_root_says_whose_packages_are_installed(tmp_path: Path, cloud: str) -> None:
    paths = linux(str(tmp_path))
    for folder in (paths.clouds, paths.own):
        os.makedirs(folder)
    Path(paths.own, "mine.json").write_text('{"tuf_root": "{}", "artefacts": ["https://mine.test/a"]}')
    with pytest.raises(errors.CloudNotObtained):
        question_of(paths, Files(paths), cloud)


def test_the_wish_that_was_taken_up_is_remembered(tmp_path: Path) -> None:
    files = Files(linux(str(tmp_path)))
    mark = {"machine": "m", "version": "1.0.0.2", "correlationId": None}
    assert not files.was_taken(mark)
    files.take(mark)
    assert files.was_taken(mark)
    assert not files.was_taken({**mark, "correlationId": "c"})
    Path(files.taken).write_text("[]")
    assert not files.was_taken(mark)


def test_the_package_in_force_is_kept_as_long_as_it_is_whole(tmp_path: Path) -> None:
    files = Files(linux(str(tmp_path)))
    files.make()
    paths = [Path(files.packages, f"{number}.deb") for number in range(3)]
    for path in paths:
        path.write_text(path.name)
    package = {"path": str(paths[1]), "sha256": digest(str(paths[1]))}
    files.keep("1.0.0.2", package)
    assert os.listdir(files.packages) == ["1.deb"]
    assert files.kept_package("1.0.0.2") == package
    assert files.kept_package("1.0.0.1") is None
    paths[1].write_text("changed")
    assert files.kept_package("1.0.0.2") is None
    Path(files.kept).write_text(json.dumps({"version": "1.0.0.2"}))
    assert files.kept_package("1.0.0.2") is None

# SPDX-License-Identifier: Apache-2.0
"""The hub's packages: what they carry, for whom, and what their scripts are. test_hub_package.py installs one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILDER = [sys.executable, str(ROOT / "packaging/build_packages.py")]
ROOMS = ("/opt/hawser-hub/", "/usr/bin/hawser-hub", "/usr/share/doc/hawser-hub/")
# Debian's name of a processor and what compiled libraries are called.
TARGETS = {("3.11", "amd64"): "cpython-311-x86_64-linux-gnu", ("3.13", "arm64"): "cpython-313-aarch64-linux-gnu"}


def build(out: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BUILDER, "--out", str(out), *argv], check=False, capture_output=True, text=True)


def output(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=TARGETS, ids="-".join)
def target(request: pytest.FixtureRequest) -> tuple[str, str]:
    chosen: tuple[str, str] = request.param
    return chosen


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, target: tuple[str, str]) -> Path:
    out = tmp_path_factory.mktemp("hub")
    python, arch = target
    done = build(out, "--only", "hub-deb", "hub-rpm", "--hub-python", python, "--hub-arch", arch)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def deb(packages: Path) -> Path:
    return next(packages.glob("*.deb"))


@pytest.fixture(scope="module")
def rpm(packages: Path) -> Path:
    return next(packages.glob("*.rpm"))


@pytest.fixture(scope="module")
def tree(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    output("dpkg-deb", "--extract", deb, top)
    return top


def deb_files(deb: Path) -> set[str]:
    lines = output("dpkg-deb", "--contents", deb).splitlines()
    return {line.split(None, 5)[5].split(" -> ")[0].removeprefix(".") for line in lines if not line.startswith("d")}


def expected() -> set[str]:
    """Every file of the application that git knows, where the package has it."""
    listed = output("git", "-C", str(ROOT), "ls-files", "control_plane").splitlines()
    return {f"/opt/hawser-hub/lib/{name}" for name in listed if not name.endswith(".md")}


def locked(python: str) -> set[str]:
    """Names of requirements/hub.txt that this Python on Linux needs."""
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements/hub.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z]", line)]
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    return {
        re.sub(r"[-_.]+", "_", each.name)
        for each in wanted
        if each.marker is None or each.marker.evaluate({**environment, "platform_python_implementation": "CPython"})
    }


def test_the_deb_carries_the_application_and_every_locked_library(deb: Path, target: tuple[str, str]) -> None:
    files = deb_files(deb)
    assert expected() <= files
    carried = {
        re.sub(r"[-_.]+", "_", match[1]).lower()
        for name in files
        if (match := re.match(r"/opt/hawser-hub/lib/([^/]+?)-[^-/]+\.dist-info/METADATA", name))
    }
    assert carried == {*locked(target[0]), "hawser_hub"}
    units = {name for name in files if name.startswith("/lib/systemd/system/")}
    assert {Path(name).name for name in units} == {path.name for path in (ROOT / "roles/hub/files").iterdir()}
    assert {name for name in files - units if not name.startswith(ROOMS)} == set()
    assert not [name for name in files if name.endswith(".pyc") or "/__pycache__/" in name]


def test_libraries_are_those_of_the_target(deb: Path, tree: Path, target: tuple[str, str]) -> None:
    python, arch = target
    tags = {match[1] for name in deb_files(deb) if (match := re.search(r"\.(cpython-[^/]+)\.so$", name))}
    assert tags == {TARGETS[target]}
    fields = output("dpkg-deb", "--field", deb, "Architecture", "Depends", "Version")
    assert f"Architecture: {arch}\n" in fields
    assert f"python{python}" in re.split(r"[:,]? ", fields.replace("\n", " "))
    assert f"+py{python}\n" in fields
    launcher = (tree / "opt/hawser-hub/bin/hawser-hub").read_text()
    assert launcher.startswith(f"#!/usr/bin/python{python} -IS\n")


def test_units_are_the_very_files_of_the_role(tree: Path) -> None:
    for path in (ROOT / "roles/hub/files").iterdir():
        assert (tree / "lib/systemd/system" / path.name).read_bytes() == path.read_bytes()


def test_the_rpm_carries_the_same(rpm: Path, deb: Path) -> None:
    listed = output("rpm", "--query", "--package", "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]", rpm)
    rows = (line.split(" ", 1) for line in listed.splitlines())
    files = {name for mode, name in rows if not mode.startswith("d")}
    assert files == {
        name.replace("/lib/systemd/", "/usr/lib/systemd/", 1) if name.startswith("/lib/") else name
        for name in deb_files(deb)
    }
    output("rpm", "--checksig", "--nosignature", rpm)


def test_the_rpm_names_its_target_and_its_scripts_are_shell(rpm: Path, target: tuple[str, str], tmp_path: Path) -> None:
    python, arch = target
    needed = output("rpm", "--query", "--package", "--requires", rpm).splitlines()
    assert {f"/usr/bin/python{python}", "glibc >= 2.28", "systemd"} <= set(needed)
    asked = output("rpm", "--query", "--package", "--queryformat", "%{ARCH} %{VERSION}", rpm).split()
    assert asked[0] == {"amd64": "x86_64", "arm64": "aarch64"}[arch]
    assert asked[1].endswith(f"+py{python}")
    for name, words in {
        "PREIN": "|| pause",
        "POSTIN": "first_start\nresume\n",
        "PREUN": "stop_services",
        "POSTUN": 'rm -rf "$home"',
    }.items():
        script = tmp_path / name
        script.write_text(output("rpm", "--query", "--package", "--queryformat", f"%{{{name}}}", rpm))
        assert words in script.read_text()
        assert f"python=/usr/bin/python{python}\n" in script.read_text()
        output("sh", "-n", script)
        assert 'rm -rf "$data"' not in script.read_text()


@pytest.mark.parametrize("argv", [("--hub-arch", "riscv64"), ("--hub-python", "3.9"), ("--hub-python", "../3")])
def test_a_target_without_wheels_is_refused(tmp_path: Path, argv: tuple[str, str]) -> None:
    done = build(tmp_path, "--only", "hub-deb", *argv)
    assert done.returncode == 1
    assert re.fullmatch(
        r"build: There is no package of the hub for Python .+ on .+\. Use --hub-python .+\n", done.stderr
    )
    assert not list(tmp_path.glob("*.deb"))

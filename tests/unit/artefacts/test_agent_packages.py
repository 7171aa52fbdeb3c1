# SPDX-License-Identifier: Apache-2.0
"""Packages of the agent itself in the repository: really built ones, and what only looks like one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.artefacts import agent_package, catalogue
from control_plane.errors import OperatorError
from control_plane.hub import open_database
from control_plane.storage import agent_packages
from tests.unit.artefacts.conftest import ROOT, Client, run, settle, told


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The agent's deb and rpm, as version 7.1.0.2."""
    out = tmp_path_factory.mktemp("packages")
    build = [sys.executable, str(ROOT / "packaging/build_packages.py"), "--out", str(out), "--version", "7.1.0.2"]
    subprocess.run([*build, "--only", "deb", "rpm"], check=True, stdout=subprocess.DEVNULL)
    return {form: next(out.glob(f"*.{form}")) for form in ("deb", "rpm")}


@pytest.mark.parametrize("form", ["deb", "rpm"])
def test_a_built_package_says_what_it_is(packages: dict[str, Path], form: str) -> None:
    found = agent_package.inspect(packages[form])
    assert (found.version, found.format, found.target) == ("7.1.0.2", form, f"agent/7.1.0.2/linux.{form}")
    assert found.custom == {"kind": "agent", "version": "7.1.0.2", "os": "linux", "arch": "any", "format": form}
    assert found.length == packages[form].stat().st_size


def test_published_it_is_a_target_and_a_version_that_may_be_wished(
    packages: dict[str, Path], top: Path, data: Path
) -> None:
    for form in ("deb", "rpm"):
        assert run(data, "artefacts", "add", packages[form]).exit_code == 0
    assert "is there already" in run(data, "artefacts", "add", packages["deb"]).stdout
    settle(data, top / "keys")
    assert Client(data, top / "machine").look("agent/7.1.0.2/linux.deb") == [packages["deb"].read_bytes()]
    database = open_database(data)
    try:
        with database.read() as session:
            assert agent_packages.versions(session) == ["7.1.0.2"]
            stamp = agent_packages.stamp(session)
        assert run(data, "artefacts", "remove-agent", "7.1.0.2").exit_code == 0
        assert run(data, "artefacts", "remove-agent", "7.1.0.2", "--format", "rpm").exit_code == 0
        settle(data, top / "keys")
        with database.read() as session:
            assert agent_packages.versions(session) == []
            assert agent_packages.stamp(session) != stamp
    finally:
        database.close()


def test_it_says_itself_what_it_is(packages: dict[str, Path], data: Path) -> None:
    said = told(data, "artefacts", "add", packages["deb"], "--version", "7.1.0.3")
    assert said == "The agent's package says itself what it is."


@pytest.mark.parametrize("form", ["deb", "rpm"])
@pytest.mark.parametrize("cut", [0, 4, 60, 100, 200, 1000])
def test_what_is_cut_off_is_no_package(packages: dict[str, Path], tmp_path: Path, form: str, cut: int) -> None:
    path = tmp_path / f"cut.{form}"
    path.write_bytes(packages[form].read_bytes()[:cut])
    with pytest.raises(OperatorError) as caught:
        agent_package.inspect(path)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("Package: other\nVersion: 1.0.0.1\n", "is the package 'other', not the agent's"),
        ("Package: azcmagent\nVersion: 1.0.0.1-2\n", "has the version '1.0.0.1-2'"),
    ],
)
def test_other_packages_are_refused(tmp_path: Path, fields: str, words: str) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(f"{fields}Architecture: all\nMaintainer: x <x@example.org>\nDescription: x\n")
    subprocess.run(["dpkg-deb", "-Zxz", "--build", tree, tmp_path / "x.deb"], check=True, stdout=subprocess.DEVNULL)
    with pytest.raises(OperatorError, match=words):
        agent_package.inspect(tmp_path / "x.deb")


def test_targets_that_are_no_package_of_the_agent_are_left_out() -> None:
    whole = {"kind": "agent", "version": "1.0.0.1", "os": "linux", "format": "deb"}
    targets = {"a": whole, "b": {**whole, "version": 1}, "c": {"kind": "agent"}, "d": {**whole, "kind": "extension"}}
    metadata = {"signed": {"targets": {path: {"length": 1, "custom": custom} for path, custom in targets.items()}}}
    assert catalogue.agent_rows(metadata) == [{"version": "1.0.0.1", "os": "linux", "format": "deb", "path": "a"}]

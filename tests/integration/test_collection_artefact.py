# SPDX-License-Identifier: Apache-2.0
"""The artefact that Galaxy would ship: what is in it, and that it works where nothing else of this repository is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ROOMS = {
    "CHANGELOG.rst",
    "FILES.json",
    "LICENSES",
    "MANIFEST.json",
    "README.md",
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


def ansible(where: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of ansible-core away from the checkout, with only the installed collection in reach."""
    environment = {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "HOME": str(where),
        "LANG": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(where / "collections"),
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
        "ANSIBLE_HOME": str(where / "ansible"),
        **variables,
    }
    return subprocess.run(
        [str(BIN / argv[0]), *argv[1:]],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built artefact, made from a copy of what git knows and of new files: caches of the checkout are not in it."""
    where = tmp_path_factory.mktemp("artefact")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        source = ROOT / name
        if source.is_file():
            target = where / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    done = ansible(where, "ansible-galaxy", "collection", "build", "--output-path", str(where), str(where / "source"))
    assert done.returncode == 0, done.stderr
    (built,) = where.glob("hawser-machine-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty directory with the collection installed, offline."""
    where = tmp_path_factory.mktemp("installed")
    done = ansible(
        where, "ansible-galaxy", "collection", "install", "--offline", str(artefact), "-p", str(where / "collections")
    )
    assert done.returncode == 0, done.stderr
    return where


def test_only_the_rooms_of_the_collection_are_in_it(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert {name.split("/")[0] for name in names} <= ROOMS
    docs = {name for name in names if name.startswith("docs/") and not name.startswith("docs/docsite")}
    assert docs == {"docs/collection.md"}
    assert not [name for name in names if name.endswith((".pyc", ".deb", ".rpm", ".whl")) or "__pycache__" in name]
    assert artefact.stat().st_size < 1024 * 1024


def test_everything_of_the_rooms_is_in_it(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        names = set(archive.getnames())
    listed = subprocess.run(
        ["git", "ls-files", "plugins", "roles", "playbooks", "meta", "LICENSES", "docs/docsite"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [name for name in listed.stdout.split() if name not in names and (ROOT / name).exists()] == []


def test_no_path_of_a_builder_is_in_it(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        for member in archive.getmembers():
            if member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                assert str(ROOT).encode() not in content.read(), member.name


@pytest.mark.parametrize("module", MODULES)
def test_documentation_renders(installed: Path, module: str) -> None:
    done = ansible(installed, "ansible-doc", "--json", f"hawser.machine.{module}")
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    documented = json.loads(done.stdout)[f"hawser.machine.{module}"]
    assert documented["examples"]
    assert documented["return"]


@pytest.mark.parametrize(
    ("kind", "name", "option"),
    [
        ("inventory", "machines", "client_secret"),
        ("lookup", "access_token", "client_secret"),
        ("filter", "twins", "_input"),
    ],
)
def test_plugins_are_documented(installed: Path, kind: str, name: str, option: str) -> None:
    done = ansible(installed, "ansible-doc", "--json", "-t", kind, f"hawser.machine.{name}")
    documented = json.loads(done.stdout)[f"hawser.machine.{name}"]
    assert documented["examples"]
    assert option in documented["doc"]["options"]


def test_an_execution_environment_finds_what_it_needs(installed: Path) -> None:
    place = installed / "collections/ansible_collections/hawser/machine"
    described = yaml.safe_load((place / "meta/execution-environment.yml").read_text())
    assert described["version"] == 1
    for path in described["dependencies"].values():
        lines = [line for line in (place / path).read_text().splitlines() if line and not line.startswith("#")]
        assert lines
        assert not [line for line in lines if line.startswith("ansible") or "==" in line]


def test_roles_are_documented(installed: Path) -> None:
    done = ansible(installed, "ansible-doc", "--json", "-t", "role", "--list", "hawser.machine")
    roles = ("agent", "extensions", "hub", "image_seal", "image_specialise", "remove", "reset_local")
    assert set(json.loads(done.stdout)) == {f"hawser.machine.{role}" for role in roles}


@pytest.mark.parametrize("playbook", ["site", "remove", "hub", "seal", "verify_unique"])
def test_playbooks_are_found_by_their_full_names(installed: Path, playbook: str) -> None:
    done = ansible(
        installed,
        "ansible-playbook",
        "-i",
        str(ROOT / "inventories/example"),
        f"hawser.machine.{playbook}",
        "--syntax-check",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_valid_plays(installed: Path, module: str) -> None:
    documented = json.loads(ansible(installed, "ansible-doc", "--json", f"hawser.machine.{module}").stdout)
    tasks = yaml.safe_load(documented[f"hawser.machine.{module}"]["examples"])
    play = installed / f"{module}.yml"
    play.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    done = ansible(installed, "ansible-playbook", "-i", "localhost,", str(play), "--syntax-check")
    assert done.returncode == 0, done.stderr


def test_it_runs_by_itself(installed: Path) -> None:
    """The installed collection acts on this machine, where the program named here does not exist."""
    play = installed / "run.yml"
    task = {"hawser.machine.config": {"config": {"config.mode": "full"}, "on_missing": "report"}}
    play.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    argv = [
        "ansible-playbook",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        "hawser_program=/nonexistent/azcmagent",
        str(play),
    ]
    done = ansible(installed, *argv, ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    done = ansible(installed, *argv, "--check")
    assert "changed=1" in done.stdout
    assert str(ROOT) not in done.stdout

# SPDX-License-Identifier: Apache-2.0
"""Lanes, a clean environment, and what many tests share: a hub, real hosts, the agent's package."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Host, Lab, destroy
from lab.ledger import Ledger, maker_alive
from tests.integration import hub_process, postgres_server
from tests.integration.hub_process import HubProcess
from tests.integration.postgres_server import PostgresServer

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "lab"
RUNS = CACHE / "runs"
# A shell that has read env.sh of a demo, or somebody's cloud credentials, must not change what the tests see.
_FOREIGN = ("HAWSER_", "AZURE_", "ARM_", "ANSIBLE_", "IDENTITY_", "IMDS_", "MSI_")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--lanes 'a b'` runs these lanes instead of the everyday tests."""
    parser.addoption("--lanes", default=None, help="run the tests of these lanes alone; empty: name the lanes")
    parser.addoption(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="the database of every hub that tests make",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Clean the environment before anything is imported that reads it.

    Tests start thousands of short processes: without compiled files much of their time would go into compiling.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is not in the wanted lanes."""
    asked = config.getoption("--lanes")
    known = {str(mark.args[0]) for item in items if (mark := item.get_closest_marker("lane"))}
    wanted = set((asked or "").split())
    if asked is not None and not wanted:
        raise pytest.UsageError(
            f"Name lanes: make test-long LANES='{' '.join(sorted(known)) or '(there are none yet)'}'."
        )
    if unknown := wanted - known:
        raise pytest.UsageError(f"No such lane: {' '.join(sorted(unknown))}. There are: {' '.join(sorted(known))}.")
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("lane")
        mine = (mark is not None and mark.args[0] in wanted) if wanted else mark is None
        (chosen if mine else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = chosen


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    """The hub's commands, called in this process, take others' rights from whatever is made after them."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def hosts_possible() -> None:
    """Hosts need root and systemd-nspawn; an environment without them fails, for a skipped test proves nothing."""
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.fail("Real hosts need root and systemd-nspawn. Run make test as root on Debian 12 or 13.")
    for ledger in RUNS.glob("*/ledger.jsonl"):
        # What a killed run left behind.
        if not maker_alive(Ledger(ledger).entries()):
            destroy(ledger)
            ledger.parent.rmdir()


@pytest.fixture(scope="session")
def make_lab(hosts_possible: None) -> Iterator[Callable[..., Lab]]:
    """Boots hosts: `make_lab("web01", HostSpec("small", disk_mib=64))`. All labs go at the end of the session."""
    made: list[Lab] = []

    def make(*hosts: Any) -> Lab:
        name = f"t{secrets.token_hex(3)}"
        lab = Lab(RUNS / name, name=name, hosts=hosts, cache=CACHE)
        lab.start()
        made.append(lab)
        return lab

    yield make
    for lab in made:
        lab.stop()
        lab.directory.rmdir()


@pytest.fixture(scope="session")
def build_agent(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | None], Path]:
    """Builds the agent's deb, as a version if one is given, and returns its path."""

    def build(version: str | None = None) -> Path:
        out = tmp_path_factory.mktemp("packages")
        argv = [sys.executable, str(ROOT / "packaging" / "build_packages.py"), "--out", str(out), "--only", "deb"]
        subprocess.run([*argv, *(["--version", version] if version else [])], check=True, stdout=subprocess.DEVNULL)
        return next(out.glob("*.deb"))

    return build


@pytest.fixture(scope="session")
def agent_deb(build_agent: Callable[[str | None], Path]) -> Path:
    """The agent's deb of this checkout."""
    return build_agent(None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL; `postgres.fresh()` makes a database in it."""
    server = postgres_server.new()
    yield server
    postgres_server.discard(server)


@pytest.fixture(scope="session", autouse=True)
def chosen_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hubs of tests that name no database get the one of --database."""
    if request.config.getoption("--database") == "postgresql":
        hub_process.fresh_database = request.getfixturevalue("postgres").fresh
    yield
    hub_process.fresh_database = None


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub on 127.0.0.1 with a data directory of its own and the location `local`."""
    started = hub_process.make(tmp_path_factory.mktemp("hub") / "data", "--location", "local=Laboratory").start()
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def make_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., HubProcess]]:
    """Starts hubs of a module's own, `make_hub("--location", "local")`. They end with the module, as hubs should."""
    made: list[HubProcess] = []

    def make(*options: str) -> HubProcess:
        made.append(hub_process.make(tmp_path_factory.mktemp("hub") / "data", *options).start())
        return made[-1]

    yield make
    assert [hub.stop() for hub in made] == [0] * len(made)


@dataclass(frozen=True)
class LabHosts:
    """Hosts and the hub that they reach on their bridge."""

    lab: Lab
    hub: HubProcess

    @property
    def hosts(self) -> list[Host]:
        """The hosts, in order."""
        return list(self.lab.hosts.values())


@pytest.fixture(scope="session")
def lab_hosts(make_lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHosts]:
    """Hosts web01 to web03, nothing installed, and a running hub at the bridge's address with the location `local`."""
    lab = make_lab("web01", "web02", "web03")
    data = tmp_path_factory.mktemp("lab-hub") / "data"
    made = hub_process.make(data, "--location", "local=Laboratory", host=str(lab.gateway))
    made.start()
    yield LabHosts(lab, made)
    assert made.stop() == 0

# SPDX-License-Identifier: Apache-2.0
"""A real `hawser-hub serve` as a process, for tests: make, start, stop by pid, kill, start again."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml
from requests.adapters import HTTPAdapter
from sqlalchemy import text

from control_plane.hub import open_database
from control_plane.operate.fleet import cloud_profile

REPOSITORY = Path(__file__).resolve().parents[2]
READY = "hawser-hub ready on "
# Options of `init` that name a fresh database for the next hub; set by pytest --database postgresql.
fresh_database: Callable[[], Sequence[str]] | None = None


def database_options() -> Sequence[str]:
    """Options of `init` and `restore` for an empty database as pytest was told; none: SQLite."""
    return fresh_database() if fresh_database is not None else ()


def configure(data: Path, sections: Mapping[str, Any]) -> None:
    """Write config.yaml; the database stays that of `init`."""
    path = data / "config.yaml"
    former = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
    database = {name: value for name, value in former.items() if name == "database"}
    path.write_text(yaml.safe_dump({**database, **sections}))


class _From(HTTPAdapter):
    def __init__(self, source: str) -> None:
        self._source = source
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """requests has no option for it; urllib3 has."""
        super().init_poolmanager(*arguments, **options, source_address=(self._source, 0))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class HubProcess:
    """A hub in `data`, reachable at `url`. `made`: what `init --json` printed."""

    data: Path
    url: str
    listen: str
    made: dict[str, Any]
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def ca_file(self) -> str:
        """CA to trust."""
        return str(self.made["caFile"])

    @property
    def tenant_id(self) -> str:
        """Tenant GUID."""
        return str(self.made["tenantId"])

    @property
    def subscription_id(self) -> str:
        """Subscription GUID."""
        return str(self.made["subscriptionId"])

    def command(self, *arguments: str | Path) -> list[str]:
        """Argument list of a hub command on this data directory."""
        return [sys.executable, "-m", "control_plane", "--data", str(self.data), *map(str, arguments)]

    def run(self, *arguments: str | Path, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run an operator's command to its end."""
        return subprocess.run(
            self.command(*arguments), cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=check
        )

    def json(self, *arguments: str) -> Any:
        """What an operator's command prints with --json."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def profile(self, name: str = "demo") -> dict[str, Any]:
        """The hub's cloud profile, as `cloud-profile` prints it; no process, for nearly every test needs one."""
        return cloud_profile(self.data, name)

    def add_repository(self, keys: Path) -> None:
        """A repository of packages, with an operator's keys in a folder that is made for them."""
        self.run("artefacts", "keys", keys)
        self.run("artefacts", "init", "--root-key", keys / "root.pub", "--targets-key", keys / "targets.pub")

    def publish(self, keys: Path, *packages: Path, timeout: float = 60) -> None:
        """Put packages into the repository as its operator does. `timeout`: of each command."""
        for package in packages:
            self.run("artefacts", "add", package, timeout=timeout)
        self.run("artefacts", "sign", "--keys", keys)
        self.run("artefacts", "publish", timeout=timeout)

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """What a query on the hub's database finds, whichever database it is. `values`: bound as `:name`."""
        database = open_database(self.data)
        try:
            with database.read() as session:
                return [tuple(row) for row in session.execute(text(statement), values)]
        finally:
            database.close()

    def execute(self, statement: str, **values: Any) -> None:
        """Change the hub's database behind its back."""
        database = open_database(self.data)
        try:
            with database.write() as session:
                session.execute(text(statement), values)
        finally:
            database.close()

    def start(self, timeout: float = 30) -> HubProcess:
        """Start `serve` and wait for its readiness line."""
        log = (self.data / "serve.log").open("a")
        with log:
            self.process = subprocess.Popen(
                self.command("serve", "--listen", self.listen),
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ends = time.monotonic() + timeout
            while time.monotonic() < ends and selector.select(ends - time.monotonic()):
                line = self.process.stdout.readline()
                if not line:
                    break
                self.lines.append(line.rstrip())
                if line.startswith(READY):
                    return self
        self.stop()
        raise AssertionError(f"the hub did not start: {(self.data / 'serve.log').read_text()[-2000:]}")

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """Send a signal to this process and wait for its end. Returns the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(15)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return code

    def session(self, source: str | None = None) -> requests.Session:
        """A requests session that trusts this hub alone and takes no settings from the environment. `source`: another
        address of this machine to come from, 127.0.0.2 and so on."""
        session = requests.Session()
        session.trust_env = False
        session.verify = self.ca_file
        if source is not None:
            session.mount("https://", _From(source))
        return session

    def token(self, principal: dict[str, Any], resource: str | None = None) -> str:
        """An access token of a principal made with `principal create --json`."""
        answer = self.session().post(
            f"{self.url}/{self.tenant_id}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": principal["clientId"],
                "client_secret": principal["clientSecret"],
                "scope": f"{resource or self.url}/.default",
            },
            timeout=30,
        )
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def principal(self, name: str, role: str) -> dict[str, Any]:
        """Make a principal; its secret is in `clientSecret`."""
        made: dict[str, Any] = self.json("principal", "create", name, "--role", role)
        return made


def make(
    data: Path, *options: str, host: str = "127.0.0.1", port: int | None = None, sqlite: bool = False
) -> HubProcess:
    """`init` a hub in `data` that is to listen at `host`; not started yet. Its database: that of `options`, else as
    pytest was told. `sqlite`: that one, whatever pytest was told, for what holds for it alone."""
    port = port or free_port()
    if not sqlite and "--database" not in options:
        options = (*options, *database_options())
    url = f"https://{host}:{port}"
    done = subprocess.run(
        [sys.executable, "-m", "control_plane", "--data", str(data), "init", "--url", url, "--json", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return HubProcess(data, url, f"{host}:{port}", json.loads(done.stdout))

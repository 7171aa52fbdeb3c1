# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL for tests: its own cluster in a temporary directory, on 127.0.0.1 or a lab's bridge, stopped by
pid."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg

from tests.integration.hub_process import free_port

USER, PASSWORD = "hawser", "correct horse battery"
_START_SECONDS = 60


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise AssertionError("There is no PostgreSQL: apt install postgresql (.ci/setup does).")
    return found[-1].parent


@dataclass
class PostgresServer:
    """A cluster below `directory`, run by the user postgres when the tests are root's: it refuses root. `wal`: an
    empty directory for the write-ahead log, else it is with the data. `address`: where it listens, for its network."""

    directory: Path
    address: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    wal: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def password_file(self) -> Path:
        """The password of USER."""
        return self.directory / "password"

    def _run_as(self) -> dict[str, object]:
        if os.geteuid() != 0:
            return {}
        owner = pwd.getpwnam("postgres")
        return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    def make(self) -> PostgresServer:
        """initdb; fsync is off, for nothing here survives the test."""
        self.password_file.write_text(PASSWORD + "\n")
        if os.geteuid() == 0:
            for path in (self.directory, self.password_file, *([self.wal] if self.wal else [])):
                shutil.chown(path, "postgres", "postgres")
        subprocess.run(
            [
                *(str(_programs() / "initdb"), "-D", str(self.directory / "data"), "-U", USER, "-E", "UTF8"),
                *("--locale=C", "--auth=scram-sha-256", "--no-sync", f"--pwfile={self.password_file}"),
                *([f"--waldir={self.wal}"] if self.wal else []),
            ],
            check=True,
            capture_output=True,
            cwd=self.directory,
            **self._run_as(),  # type: ignore[call-overload]
        )
        with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        return self

    def start(self) -> PostgresServer:
        """Start and wait until it answers."""
        settings = ("fsync=off", f"listen_addresses={self.address}", f"port={self.port}", "max_connections=200")
        options = [part for item in (*settings, f"unix_socket_directories={self.directory}") for part in ("-c", item)]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(_programs() / "postgres"), "-D", str(self.directory / "data"), *options],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **self._run_as(),  # type: ignore[call-overload]
            )
        ends = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return self
            except psycopg.OperationalError:
                if time.monotonic() > ends or self.process.poll() is not None:
                    raise AssertionError((self.directory / "log").read_text()[-2000:]) from None
                time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Fast shutdown; SIGQUIT: as if it crashed."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def execute(self, statement: str, database: str = "postgres") -> None:
        """One statement as USER."""
        with psycopg.connect(
            host=self.address, port=self.port, user=USER, password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            connection.execute(statement.encode())

    def url(self, database: str) -> str:
        """The address that `init --database` takes."""
        return f"postgresql+psycopg://{USER}@{self.address}:{self.port}/{database}"

    def fresh(self, how: str = "") -> tuple[str, ...]:
        """Options of `init` for a new and empty database. `how`: options of its CREATE DATABASE."""
        name = f"hub_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} {how}")
        return ("--database", self.url(name), "--database-password-file", str(self.password_file))


def new(address: str = "127.0.0.1") -> PostgresServer:
    """A running server; `discard` takes it away."""
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="hawser-pg-")), address)
    return server.make().start()


def discard(server: PostgresServer) -> None:
    """Stop it and remove its files."""
    server.stop()
    shutil.rmtree(server.directory)

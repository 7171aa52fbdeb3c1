# SPDX-License-Identifier: Apache-2.0
"""The database fails under a running hub: PostgreSQL restarted under load, a full disk under either. Answers as
documented, nothing acknowledged is lost, and service goes on without a restart of the hub."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.integration import hub_process, postgres_server
from tests.integration.hub_machine import API, Machine, make_key
from tests.integration.hub_process import HubProcess
from tests.integration.postgres_server import PostgresServer
from tests.waiting import until

UNAVAILABLE = (503, "ServiceUnavailable")


def _code(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def _put_group(hub: HubProcess, token: str, name: str, size: int = 1) -> requests.Response:
    tags = {f"filler{number}": "x" * 250 for number in range(size)}
    return hub.session().put(
        f"{hub.url}/subscriptions/{hub.subscription_id}/resourcegroups/{name}",
        params=API,
        json={"location": "local", "tags": tags},
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )


def _until_written(hub: HubProcess, token: str, name: str) -> None:
    def written() -> bool:
        answer = _put_group(hub, token, name)
        assert answer.status_code == 201 or _code(answer) == UNAVAILABLE
        return answer.status_code == 201

    until(written, "the hub recovers", seconds=60)


def test_postgresql_restarted_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    server = postgres_server.new()
    hub = hub_process.make(tmp_path / "data", *server.fresh()).start()
    try:
        token = hub.token(hub.principal("owner", "Owner"))
        key = make_key()
        machines = [Machine(hub, f"m{number}", key=key).connect(token) for number in range(5)]
        acknowledged: list[str] = []
        refused: list[tuple[int, str]] = []
        stopping = threading.Event()

        def write(worker: int) -> None:
            number = 0
            while not stopping.is_set():
                number += 1
                name = f"group-{worker}-{number}"
                answer = _put_group(hub, token, name)
                if answer.status_code == 201:
                    acknowledged.append(name)
                else:
                    refused.append(_code(answer))
                    time.sleep(0.05)

        def beat(machine: Machine) -> None:
            while not stopping.is_set():
                answer = machine.checkin()
                if answer.status_code != 200:
                    refused.append(_code(answer))
                time.sleep(0.1)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        threads += [threading.Thread(target=beat, args=(machine,)) for machine in machines]
        for thread in threads:
            thread.start()
        for how in (signal.SIGINT, signal.SIGQUIT):
            time.sleep(1.5)
            server.stop(how)
            time.sleep(1)
            server.start()
        _until_written(hub, token, "afterwards")
        time.sleep(1)
        stopping.set()
        for thread in threads:
            thread.join(60)
        assert set(refused) == {UNAVAILABLE}
        kept = {name for (name,) in hub.rows("SELECT name FROM resource_groups")}
        assert acknowledged
        assert set(acknowledged) <= kept
        for machine in machines:
            assert machine.checkin().status_code == 200
        time.sleep(1)
        assert hub.rows("SELECT coalesce(sum(conflicts), 0) FROM heartbeats") == [(0,)]
        assert hub.stop() == 0
    finally:
        hub.stop()
        postgres_server.discard(server)


@contextmanager
def _small_disk(mebibytes: int) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hawser-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def _fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"\0" * 65536)
        except OSError:
            return filler


def _survives_a_full_disk(hub: HubProcess, disk: Path) -> None:
    token = hub.token(hub.principal("owner", "Owner"))
    machine = Machine(hub, "steady").connect(token)
    assert _put_group(hub, token, "before").status_code == 201
    filler = _fill(disk)
    refused: tuple[int, str] | None = None
    written: list[str] = []
    for number in range(200):  # what the database had allocated takes some more
        answer = _put_group(hub, token, f"full{number}", 40)
        if answer.status_code != 201:
            refused = _code(answer)
            break
        written.append(f"full{number}")
    assert refused == UNAVAILABLE
    assert machine.checkin().status_code == 200, "heartbeats go on; they are written later"
    assert _code(_put_group(hub, token, "full")) == UNAVAILABLE
    reading = hub.session().get(
        f"{hub.url}{machine.resource_id}", params=API, headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert reading.status_code == 200
    filler.unlink()
    _until_written(hub, token, "after")
    assert machine.checkin().status_code == 200
    names = {name for (name,) in hub.rows("SELECT name FROM resource_groups")}
    assert {"before", "after", *written} <= names
    time.sleep(1)
    assert hub.rows("SELECT coalesce(sum(conflicts), 0) FROM heartbeats") == [(0,)]


def test_a_full_disk_under_sqlite() -> None:
    with _small_disk(12) as disk:
        hub = hub_process.make(disk / "data").start()
        try:
            _survives_a_full_disk(hub, disk)
            assert hub.stop() == 0
        finally:
            hub.stop()


def test_a_full_disk_under_postgresql(tmp_path: Path) -> None:
    # Its log is elsewhere, as is good practice: without room for the log PostgreSQL itself stops.
    with _small_disk(96) as disk, tempfile.TemporaryDirectory(prefix="hawser-wal-") as wal:
        disk.chmod(0o755)
        folder = disk / "postgres"
        folder.mkdir()
        server = PostgresServer(folder, wal=Path(wal)).make().start()
        hub = hub_process.make(tmp_path / "data", *server.fresh()).start()
        try:
            _survives_a_full_disk(hub, disk)
            assert hub.stop() == 0
        finally:
            hub.stop()
            server.stop()


@pytest.mark.parametrize("what", ["backup", "restore", "migrate"])
def test_commands_on_a_full_disk_leave_what_was(what: str, tmp_path: Path) -> None:
    with _small_disk(12) as disk:
        hub = hub_process.make(disk / "data")
        archive = tmp_path / "hub.tar.gz"
        hub.run("backup", str(archive))
        if what == "migrate":
            hub.run("migrate", "--to", "0001", "--yes")
        elif what == "restore":
            shutil.rmtree(hub.data)
        _fill(disk)
        target = {"backup": [str(disk / "again.tar.gz")], "restore": [str(archive)], "migrate": []}[what]
        done = hub.run(what, *target, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert not (disk / "again.tar.gz").exists()
        (disk / "filler").unlink()
        hub.run(what, *target)
        assert hub.start().stop() == 0

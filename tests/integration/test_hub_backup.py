# SPDX-License-Identifier: Apache-2.0
"""Backup and restore, on both databases: whole, refused when damaged, and a day-old one that accuses nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from control_plane import keyring, pki
from control_plane.operate import restore as restoring
from tests.integration import hub_process
from tests.integration.hub_machine import API, Machine, make_csr, make_key
from tests.integration.hub_process import HubProcess
from tests.integration.postgres_server import PostgresServer

DAY = 86400
BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
NO_DATABASE: Sequence[str] = ()


@pytest.fixture
def fresh(postgres: PostgresServer) -> Callable[[str], Sequence[str]]:
    """Options of `init` and `restore` for an empty database of a kind."""
    return lambda kind: postgres.fresh() if kind == "postgresql" else NO_DATABASE


def _restored(hub: HubProcess, data: Path, archive: Path, *options: str) -> HubProcess:
    again = HubProcess(data, hub.url, hub.listen, hub.made)
    again.made = {**hub.made, "caFile": str(data / "keys" / "ca.crt")}
    again.run("restore", str(archive), *options)
    return again


def _patch(hub: HubProcess, token: str, machine: Machine, tags: dict[str, str]) -> None:
    answer = hub.session().patch(
        f"{hub.url}{machine.resource_id}",
        params=API,
        json={"tags": tags},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def _renew(machine: Machine, key: rsa.RSAPrivateKey) -> None:
    body = {"protocol": 1, "requestId": str(uuid4()), "slot": machine.slot, "csr": make_csr(key)}
    answer = machine.post("renew", body)
    assert answer.status_code == 200, answer.text
    machine.key, machine.slot = key, answer.json()["slot"]
    machine.identity = {**machine.identity, "certificate": answer.json()["certificate"]}
    assert machine.ask_token().status_code == 200


def age(hub: HubProcess, seconds: int) -> None:
    """As if everything that the database holds had happened earlier."""
    for table, columns in {
        "machines": ("created", "modified", "enrolled"),
        "credentials": ("created",),
        "heartbeats": ("seen", "connected_since"),
        "tickets": ("created", "expires"),
        "reports": ("created", "received"),
    }.items():
        changed = ", ".join(f"{name} = {name} - :seconds" for name in columns)
        hub.execute(f"UPDATE {table} SET {changed}", seconds=seconds)  # noqa: S608 - names from above


def _back_again(machine: Machine) -> requests.Response:
    """As the agent does: a token that is refused is asked for anew, once."""
    machine.http.close()
    answer = machine.checkin()
    if answer.status_code == 401 and answer.json()["error"]["code"] == "InvalidAuthenticationToken":
        told = machine.ask_token()
        assert told.status_code == 200, told.text
        answer = machine.checkin()
    return answer


@BOTH
def test_a_day_old_backup_accuses_nobody(kind: str, fresh: Callable[[str], Sequence[str]], tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data", *fresh(kind), sqlite=kind == "sqlite").start()
    owner = hub.principal("owner", "Owner")
    token = hub.token(owner)
    keys = [make_key() for _ in range(3)]
    names = ("idle", "renewed", "renewed-twice", "deleted-before", "changed", "enrolled-again")
    idle, renewed, twice, deleted, changed, again = (Machine(hub, name, key=keys[0]) for name in names)
    machines = [idle, renewed, twice, changed, again]
    for machine in [*machines, deleted]:
        machine.connect(token)
    again_put = Machine(hub, "put-only", key=keys[0])
    assert again_put.put(token).status_code == 200
    assert _delete(hub, token, deleted) == 204
    age(hub, DAY)
    archive = tmp_path / "hub.tar.gz"
    hub.run("backup", str(archive))
    assert archive.stat().st_mode & 0o777 == 0o600
    make_old(archive, DAY)

    # A day passes: renewals, a new machine, tags.
    _renew(renewed, keys[1])
    _renew(twice, keys[1])
    _renew(twice, keys[2])
    assert twice.slot == 3
    fresh_one = Machine(hub, "New01", group="New-Group", key=keys[0]).connect(token)
    again_put.connect(token)
    for number in range(3):
        _patch(hub, token, changed, {"n": str(number)})
    for machine in [*machines, fresh_one, again_put]:
        assert machine.checkin().status_code == 200
        assert machine.desired("resource").status_code == 200
    before = dict(changed.generations)
    hub.stop(signal.SIGKILL)

    restored = _restored(hub, tmp_path / "restored", archive, *fresh(kind))
    restored.start()
    try:
        everyone = [*machines, fresh_one, again_put]
        for _ in range(2):
            for machine in everyone:
                machine.hub = restored
                assert _back_again(machine).status_code == 200, machine.name
        assert restored.rows("SELECT coalesce(sum(conflicts), 0) FROM heartbeats") == [(0,)]
        assert changed.generations["resource"] > before["resource"], "machines refuse a generation that falls"
        assert [machine.slot for machine in (idle, renewed, twice)] == [1, 2, 3]
        token = restored.token(owner)
        for machine in everyone:
            shown = _get(restored, token, machine)
            assert shown["properties"]["status"] == "Connected", machine.name
            assert shown["properties"]["vmId"] == machine.vm_id
        assert _get(restored, token, fresh_one)["name"] == "New01"
        # Who was deleted before the backup stays so; whoever is deleted after the restore too.
        deleted.hub = restored
        assert deleted.ask_token().json()["error_codes"] == [700016]
        assert _delete(restored, token, fresh_one) == 204
        assert fresh_one.ask_token().json()["error_codes"] == [700016]
        # A retired certificate is retired for good, also one of the gap that a newer one replaced.
        old = Machine(restored, "renewed", key=keys[0], vm_id=renewed.vm_id, identity=idle.identity | {})
        old.identity = {**renewed.identity, "certificate": _first_certificate(restored, renewed)}
        refused = old.ask_token()
        assert (refused.status_code, refused.json()["suberror"]) == (401, "superseded")
        _forged(restored, tmp_path / "other", idle)
    finally:
        assert restored.stop() == 0


def _first_certificate(hub: HubProcess, machine: Machine) -> str:
    query = (
        "SELECT certificate FROM credentials JOIN machines ON machines.id = machine_id "
        "WHERE client_id = :client AND slot = 1"
    )
    return str(hub.rows(query, client=machine.identity["clientId"])[0][0])


def _forged(hub: HubProcess, other: Path, machine: Machine) -> None:
    """A certificate of another CA, or for extd's purpose, is worth nothing, gap or not."""
    key = make_key()
    foreign = pki.make_ca("hawser machine CA forged")
    genuine = keyring.load(hub.data).machine_ca
    for authority, encipher in ((foreign, False), (genuine, True)):
        leaf = pki.issue_machine(
            authority, key.public_key(), machine.identity["clientId"], machine.vm_id, encipher=encipher
        )
        copy = Machine(hub, machine.name, key=key, vm_id=machine.vm_id)
        copy.identity = {**machine.identity, "certificate": pki.certificate_pem(leaf).decode()}
        copy.slot = 7
        assert copy.ask_token().json()["error_codes"] == [700027]
    assert isinstance(x509.load_pem_x509_certificate(copy.identity["certificate"].encode()), x509.Certificate)


def _get(hub: HubProcess, token: str, machine: Machine) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    answer = hub.session().get(f"{hub.url}{machine.resource_id}", params=API, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _delete(hub: HubProcess, token: str, machine: Machine) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{hub.url}{machine.resource_id}"
    return hub.session().delete(url, params=API, headers=headers, timeout=30).status_code


def _unpacked(archive: Path, folder: Path) -> dict[str, object]:
    with tarfile.open(archive) as packed:
        packed.extractall(folder)  # noqa: S202 - our own
    found: dict[str, object] = json.loads((folder / "manifest.json").read_text())
    return found


def _packed(folder: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:gz") as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                packed.add(path, arcname=path.relative_to(folder).as_posix())


def make_old(archive: Path, seconds: int) -> None:
    """As if the backup had been made so much earlier."""
    folder = archive.parent / "unpacked"
    manifest = _unpacked(archive, folder)
    manifest["taken"] = int(str(manifest["taken"])) - seconds
    (folder / "manifest.json").write_text(json.dumps(manifest))
    _packed(folder, archive)


@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_from_one_database_into_the_other(
    source: str, target: str, fresh: Callable[[str], Sequence[str]], tmp_path: Path
) -> None:
    hub = hub_process.make(tmp_path / "data", *fresh(source), sqlite=source == "sqlite").start()
    token = hub.token(hub.principal("owner", "Owner"))
    machine = Machine(hub, "migrant").connect(token, tags={"umlaut": "äöü", "quote": "';--"})
    assert machine.report("inventory", {"osName": "linux", "osType": "linux"}).status_code == 200
    archive = tmp_path / "hub.tar.gz"
    hub.run("backup", str(archive))
    assert hub.stop() == 0
    options = fresh(target) or ("--database", "sqlite")
    restored = _restored(hub, tmp_path / "restored", archive, *options).start()
    try:
        machine.hub = restored
        assert _back_again(machine).status_code == 200
        shown = _get(restored, token, machine)
        assert shown["tags"] == {"umlaut": "äöü", "quote": "';--"}
        for table in ("audit", "principals", "credentials", "reports", "role_assignments"):
            count = f"SELECT count(*) FROM {table}"  # noqa: S608 - names from above
            assert restored.rows(count)[0][0] >= hub.rows(count)[0][0] > 0
        with pytest.raises(Exception, match="append-only"):
            restored.execute("DELETE FROM audit")
        newer = Machine(restored, "newer").connect(restored.token(restored.principal("second", "Owner")))
        assert newer.checkin().status_code == 200
    finally:
        assert restored.stop() == 0


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data", "--location", "ber1=Berlin")
    archive = tmp_path / "hub.tar.gz"
    hub.run("backup", str(archive))
    again = hub.run("backup", str(archive), check=False)
    assert again.returncode == 1
    assert "never overwritten" in again.stderr
    manifest = _unpacked(archive, tmp_path / "unpacked")
    whole = archive.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"not a backup",
        "flipped": whole[:200] + bytes([whole[200] ^ 1]) + whole[201:],
    }
    for name, content in damaged.items():
        bad = tmp_path / f"{name}.tar.gz"
        bad.write_bytes(content)
        _refused(hub, tmp_path / f"into-{name}", bad, "damaged")
    for name, change in (("newer", {"revision": "9999"}), ("format", {"format": 2})):
        bad = tmp_path / f"{name}.tar.gz"
        (tmp_path / "unpacked" / "manifest.json").write_text(json.dumps({**manifest, **change}))
        _packed(tmp_path / "unpacked", bad)
        _refused(hub, tmp_path / f"into-{name}", bad, "does not know")
    (tmp_path / "unpacked" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "unpacked" / "keys" / "token.key").write_text("another")
    _packed(tmp_path / "unpacked", tmp_path / "swapped.tar.gz")
    _refused(hub, tmp_path / "into-swapped", tmp_path / "swapped.tar.gz", "damaged")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    _refused(hub, tmp_path / "full", archive, "not empty")
    assert (tmp_path / "full" / "precious").read_text() == "x"
    _refused(hub, hub.data, archive, "There is a hub")
    outside = tmp_path / "outside.tar.gz"
    with tarfile.open(outside, "w:gz") as packed:
        packed.add(archive, arcname="../escaped")
    _refused(hub, tmp_path / "into-outside", outside, "damaged")
    assert not (tmp_path / "escaped").exists()


def _refused(hub: HubProcess, data: Path, archive: Path, told: str) -> None:
    before = (data / "hub.json").exists()
    done = HubProcess(data, hub.url, hub.listen, hub.made).run("restore", str(archive), check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert (data / "hub.json").exists() == before
    assert not (data / ".restoring").exists()


def test_force_moves_the_old_hub_aside(tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data", sqlite=True)
    archive = tmp_path / "hub.tar.gz"
    hub.run("backup", str(archive))
    hub.start()
    try:
        busy = hub.run("restore", str(archive), "--force", check=False)
        assert "Another hub is running" in busy.stderr
    finally:
        hub.stop()
    done = hub.run("restore", str(archive), "--force")
    (aside,) = hub.data.glob("replaced-*")
    assert f"The hub that was there is in {aside}" in done.stdout
    assert {"hub.json", "hub.db", "keys"} <= {path.name for path in aside.iterdir()}
    assert hub.start().stop() == 0


def test_what_is_refused_moves_no_hub_away(tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data")
    before = {path.name for path in hub.data.iterdir()} | {"hub.lock"}
    (tmp_path / "text").write_text("not a backup")
    for name, told in (("typo.tar.gz", "There is no file"), ("text", "damaged")):
        done = hub.run("restore", "--force", str(tmp_path / name), check=False)
        assert (done.returncode, told in done.stderr) == (1, True), done.stderr
        assert {path.name for path in hub.data.iterdir()} | {"hub.lock"} == before
    assert hub.json("machines") == []


class Killed(BaseException):
    pass


def test_a_restore_over_a_hub_may_be_killed_at_any_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of both is there afterwards, whole; the one that made way is kept."""
    hub = hub_process.make(tmp_path / "data", sqlite=True)
    archive = tmp_path / "hub.tar.gz"
    hub.run("backup", str(archive))
    hub.principal("since", "Reader")

    def is_old() -> bool:
        return "since" in hub.run("principal", "list").stdout

    moves, move, recover = 0, os.replace, restoring._recover
    for last in range(30):
        left = last

        def cut(source: Any, target: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            move(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", cut)
            patch.setattr(restoring, "_recover", lambda *_: None)  # nobody tidies up after kill -9
            try:
                restoring.restore(hub.data, archive, force=True)
            except Killed:
                moves += 1
            else:
                break
        recover(hub.data, hub.data / restoring.STAGING)
        assert is_old(), last
        assert not list(hub.data.glob("replaced-*")), last
    assert moves >= 6
    assert not is_old()
    (aside,) = hub.data.glob("replaced-*")
    assert {"hub.json", "hub.db", "keys"} <= {path.name for path in aside.iterdir()}
    assert hub.start().stop() == 0


def test_a_killed_restore_is_no_hub_and_can_be_run_again(tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data", sqlite=True)
    archive = tmp_path / "hub.tar.gz"
    hub.run("backup", str(archive))
    restored = HubProcess(tmp_path / "restored", hub.url, hub.listen, hub.made)
    for pause in (0.4, 0.8, 1.2, 1.6, 2.0):
        shutil.rmtree(restored.data, ignore_errors=True)
        process = subprocess.Popen(
            restored.command("restore", str(archive)), cwd=hub_process.REPOSITORY, stdout=subprocess.DEVNULL
        )
        time.sleep(pause)
        process.kill()
        process.wait()
        if (restored.data / "hub.json").exists():
            break  # it was done
        restored.run("restore", str(archive))
        assert not (restored.data / ".restoring").exists()
    assert restored.start().stop() == 0
    assert os.path.exists(restored.data / "hub.json")

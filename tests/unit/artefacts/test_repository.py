# SPDX-License-Identifier: Apache-2.0
"""The repository of packages on real data directories: what is staged, signed, published, and refused."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from sqlalchemy import delete
from tuf.api.exceptions import BadVersionNumberError

from control_plane import clock
from control_plane.artefacts import catalogue, keys, online, serving, upkeep
from control_plane.artefacts import place as places
from control_plane.errors import OperatorError
from control_plane.hub import open_database
from control_plane.operate import artefacts as work
from control_plane.storage import audit
from control_plane.storage.catalogue import packages
from control_plane.storage.extension_models import ExtensionPackage
from tests.unit.artefacts.conftest import Client, add, packed, run, settle, told

ROOT = Path(__file__).resolve().parents[3]


def test_what_is_published_is_believed(top: Path, data: Path, passing: Callable[[float], int]) -> None:
    at, client = passing(0), Client(data, top / "client")
    assert client.look("extensions/Hawser.Demo/1.0.0/linux.zip") == [None]
    found = add(data, top / "p.zip")
    assert client.look(found.target) == [None]
    done = settle(data, top / "keys")
    assert (done.root, done.targets, done.added, done.removed, done.gap) == (1, at, [found.target], [], False)
    assert client.look(found.target) == [(top / "p.zip").read_bytes()]
    work.remove(data, found.target)
    assert client.look(found.target) == [(top / "p.zip").read_bytes()]
    assert settle(data, top / "keys").removed == [found.target]
    assert client.look(found.target) == [None]


def test_every_step_is_in_the_audit(top: Path, data: Path) -> None:
    found = add(data, top / "p.zip")
    settle(data, top / "keys")
    database = open_database(data)
    with database.read() as session:
        rows = audit.page(session, audit.Wanted(action="artefacts/"), scopes=["/"], before=None, size=50)
        seen = [(row.action, row.target, row.actor_type) for row in reversed(rows)]
    database.close()
    assert seen == [
        ("artefacts/init", "hub", "operator"),
        ("artefacts/publish", "hub", "operator"),
        ("artefacts/add", found.target, "operator"),
        ("artefacts/publish", "hub", "operator"),
    ]


def test_the_catalogue_is_handed_over(top: Path, data: Path) -> None:
    found = add(data, top / "p.zip")
    version = settle(data, top / "keys").targets
    database = open_database(data)

    def kept() -> list[tuple[str, str, str, int, str]]:
        with database.read() as session:
            return [(row.publisher, row.type, row.path, row.length, row.sha256) for row in packages(session)]

    path = "extensions/Hawser.Demo/1.0.0/linux.zip"
    assert kept() == [("Hawser", "Demo", path, found.length, found.sha256)]
    with database.write() as session:
        session.execute(delete(ExtensionPackage))
    assert upkeep.hand_over(data, database, version) == version
    assert kept() == [], "this version was seen"
    assert upkeep.hand_over(data, database, 1) == version
    assert len(kept()) == 1, "a command was killed before it could tell"
    database.close()


def test_only_extensions_are_in_the_catalogue() -> None:
    target = {"length": 1, "hashes": {"sha256": "00"}}
    agent = {**target, "custom": {"kind": "agent", "version": "1"}}
    assert catalogue.catalogue_rows({"signed": {"targets": {"a": agent, "b": target}}}) == []


def test_the_profile_carries_the_root(top: Path, data: Path) -> None:
    profile = json.loads(run(data, "cloud-profile").stdout)
    assert profile["tuf_root"] == (data / "artefacts/metadata/1.root.json").read_text()
    assert profile["artefacts"] == ["https://hub.example:8443/artefacts"]
    schema = json.loads((ROOT / "docs/schemas/cloud-profile.schema.json").read_text())
    Draft7Validator(schema).validate(profile)
    shutil.rmtree(data / "artefacts")
    assert json.loads(run(data, "cloud-profile").stdout)["tuf_root"] is None


def test_signatures_are_needed(top: Path, data: Path) -> None:
    add(data, top / "p.zip")
    assert told(data, "artefacts", "publish") == "The targets has 0 of 1 signatures that it needs."
    keys.make(top / "foreign", keys.OFFLINE, None)
    work.sign(top / "foreign", work.staged_files(data), lambda _: b"")
    others = "; of keys that the root does not name: 1."
    assert told(data, "artefacts", "publish") == f"The targets has 0 of 1 signatures that it needs{others}"
    work.sign(top / "keys", work.staged_files(data), lambda _: b"")
    add(data, top / "q.zip", "2.0.0")
    assert told(data, "artefacts", "publish") == "The targets has 0 of 1 signatures that it needs."


def test_files_are_signed_elsewhere(top: Path, data: Path) -> None:
    found = add(data, top / "p.zip")
    carried = top / "stick" / "targets.json"
    carried.parent.mkdir()
    shutil.copyfile(data / "artefacts/staged/targets.json", carried)
    signed = run(top / "nowhere", "artefacts", "sign", "--keys", top / "keys", carried)
    assert signed.exit_code == 0
    assert f"{found.sha256}  {found.target}" in signed.stdout
    assert not (top / "nowhere").exists()
    assert run(data, "artefacts", "publish", carried).exit_code == 0
    assert Client(data, top / "client").look(found.target)[0] is not None
    assert told(data, "artefacts", "publish", carried) == "Nothing is staged."
    add(data, top / "q.zip", "2.0.0")
    assert "is another targets than the one that is staged" in told(data, "artefacts", "publish", carried)


def test_thresholds(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run(data, "init", "--url", "https://hub.example:8443").exit_code == 0
    folders = [tmp_path / name for name in ("ada", "bea", "cid")]
    for folder in folders:
        keys.make(folder, keys.OFFLINE, None)
    words: list[str | Path] = []
    for folder in folders:
        words += ["--root-key", folder / "root.pub", "--targets-key", folder / "targets.pub"]
    assert "cannot be the threshold" in told(data, "artefacts", "init", *words, "--root-threshold", "4")
    assert run(data, "artefacts", "init", *words, "--root-threshold", "2").exit_code == 0
    assert "There is a repository" in told(data, "artefacts", "init", *words)
    work.sign(folders[0], work.staged_files(data), lambda _: b"")
    assert told(data, "artefacts", "publish") == "The root has 1 of 2 signatures that it needs."
    # Two of them sign at once, each a copy of the same file.
    copies = []
    for folder in folders[1:]:
        copies.append(folder / "root.json")
        shutil.copyfile(data / "artefacts/staged/root.json", copies[-1])
        work.sign(folder, copies[-1:], lambda _: b"")
    assert run(data, "artefacts", "publish", *copies).exit_code == 0
    Client(data, tmp_path / "client").look()


def test_a_published_package_never_changes(top: Path, data: Path) -> None:
    add(data, top / "p.zip")
    settle(data, top / "keys")
    assert "nothing was changed" in run(data, "artefacts", "add", top / "p.zip").stdout
    packed(top / "p.zip", other="content")
    assert "There is another package at" in told(data, "artefacts", "add", top / "p.zip")
    assert "There is another package at" in told(data, "artefacts", "add", top / "p.zip", "--type", "DEMO")
    assert told(data, "artefacts", "remove", "Hawser", "Demo", "9.9") == (
        "There is no package extensions/Hawser.Demo/9.9/linux.zip."
    )


@pytest.mark.parametrize("together", [True, False])
def test_keys_are_rotated_without_a_gap(top: Path, data: Path, together: bool) -> None:
    found = add(data, top / "p.zip")
    settle(data, top / "keys")
    old, fresh = Client(data, top / "old"), top / "keys2"
    old.look()
    keys.make(fresh, keys.OFFLINE, None)
    changes: list[Callable[[], int]] = [
        lambda: work.rotate(data, "root", work.holders([fresh / "root.pub"], 1)),
        lambda: work.rotate(data, "targets", work.holders([fresh / "targets.pub"], 1)),
        lambda: work.rotate(data, "online", None),
    ]
    folders = [top / "keys"]
    for change in changes:
        change()
        if not together:
            assert not settle(data, *folders, fresh).gap
            folders = [top / "keys", fresh]
    if together:
        assert told(data, "artefacts", "publish").startswith("The root has 0 of 1 signatures of the former root")
        assert not settle(data, top / "keys", fresh).gap
    assert not list((data / "keys").glob("*-next.key"))
    for client in (old, Client(data, top / "new")):
        assert client.look(found.target) == [(top / "p.zip").read_bytes()]
    add(data, top / "q.zip", "2.0.0")
    work.sign(top / "keys", work.staged_files(data), lambda _: b"")
    assert told(data, "artefacts", "publish") == (
        "The targets has 0 of 1 signatures that it needs; of keys that the root does not name: 1."
    )
    settle(data, fresh)
    old.look()
    assert work.refresh(data, force=True) == ["snapshot", "timestamp"]
    old.look()


def test_a_lost_targets_key_is_replaced(top: Path, data: Path) -> None:
    client = Client(data, top / "client")
    client.look()
    keys.make(top / "new", ("targets",), None)
    work.rotate(data, "targets", work.holders([top / "new/targets.pub"], 1))
    work.sign(top / "keys", [data / "artefacts/staged/root.json"], lambda _: b"")
    work.sign(top / "new", [data / "artefacts/staged/targets.json"], lambda _: b"")
    assert work.publish(data, []).gap
    client.look()


def test_the_hub_keeps_itself_young(top: Path, data: Path, passing: Callable[[float], int]) -> None:
    client = Client(data, top / "client")
    assert work.refresh(data, force=False) == []
    assert upkeep.renew(data, passing(3.4)) == []
    assert upkeep.renew(data, passing(0.2)) == ["timestamp"]
    client.look()
    assert upkeep.renew(data, passing(0.1)) == []
    assert upkeep.renew(data, passing(12)) == ["snapshot", "timestamp"]
    client.look()
    names = {path.name for path in (data / "artefacts/metadata").iterdir()}
    assert {"1.root.json", "1.targets.json", "timestamp.json"} < names
    assert len(names) == 5  # the former snapshot is still there for whoever is on the way to it


def test_of_several_processes_one_renews(data: Path, passing: Callable[[float], int]) -> None:
    at = passing(4)
    with ThreadPoolExecutor(4) as pool:
        renewed = list(pool.map(lambda _: upkeep.renew(data, at), range(4)))
    assert sorted(renewed) == [[], [], [], ["timestamp"]]


def test_a_hub_without_a_repository_has_nothing_to_renew(tmp_path: Path) -> None:
    assert upkeep.renew(tmp_path, 0) == []
    assert not list(tmp_path.iterdir())


def test_superseded_files_go_after_a_day(top: Path, data: Path) -> None:
    found = add(data, top / "p.zip")
    settle(data, top / "keys")
    work.remove(data, found.target)
    settle(data, top / "keys")
    place = places.of(data)
    stored = list(place.targets.rglob("*.zip"))
    assert len(stored) == 1
    for path in place.metadata.iterdir():
        os.utime(path, (1, 1))
    work.refresh(data, force=True)
    assert not list(place.targets.iterdir())
    assert sorted(path.name.partition(".")[2] for path in place.metadata.iterdir()) == [
        "json", "root.json", "snapshot.json", "snapshot.json", "targets.json",
    ]  # fmt: skip


def test_renewing_what_the_operator_signs(top: Path, data: Path, passing: Callable[[float], int]) -> None:
    at = passing(1)
    assert work.renew(data) == {"root": 2, "targets": at}
    assert work.renew(data) == {"root": 2, "targets": at}
    settle(data, top / "keys")
    current = places.published(places.of(data))
    assert current is not None
    assert current.root.signed.expires - online.moment(passing(0)) == timedelta(days=730)
    Client(data, top / "client").look()


def test_what_expired_while_it_waited(top: Path, data: Path, passing: Callable[[float], int]) -> None:
    add(data, top / "p.zip")
    work.sign(top / "keys", work.staged_files(data), lambda _: b"")
    passing(366)
    assert told(data, "artefacts", "publish") == "The targets has expired."


def test_a_hub_without_the_keys_does_not_publish(top: Path, data: Path) -> None:
    add(data, top / "p.zip")
    for path in (data / "keys").glob("tuf-*"):
        path.unlink()
    work.sign(top / "keys", work.staged_files(data), lambda _: b"")
    assert told(data, "artefacts", "publish") == "This hub does not hold the snapshot key that the root names."
    assert work.refresh(data, force=True) == []


def test_passphrases(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    words = ("artefacts", "keys", tmp_path / "keys", "--passphrase-file", secret)
    assert told(tmp_path, *words) == f"{secret} can be read by others."
    secret.chmod(0o600)
    made = run(tmp_path, *words, "--json")
    assert set(json.loads(made.stdout)) == {"root", "targets"}
    assert (tmp_path / "keys/root.key").stat().st_mode & 0o777 == 0o600
    assert "ENCRYPTED" in (tmp_path / "keys/root.key").read_text()
    assert told(tmp_path, *words) == f"There is a {tmp_path / 'keys/root.key'} already."
    assert len(keys.signers(tmp_path / "keys", "root", lambda _: b"correct horse")) == 1
    with pytest.raises(OperatorError, match="passphrase is another one"):
        keys.signers(tmp_path / "keys", "root", lambda _: b"wrong")
    (tmp_path / "short").write_text("short")
    (tmp_path / "short").chmod(0o600)
    assert "fewer than 8" in told(
        tmp_path, "artefacts", "keys", tmp_path / "k2", "--passphrase-file", tmp_path / "short"
    )
    (tmp_path / "keys/targets.key").chmod(0o644)
    with pytest.raises(OperatorError, match="can be read by others"):
        keys.signers(tmp_path / "keys", "targets", lambda _: b"correct horse")


def test_bundles(top: Path, data: Path, passing: Callable[[float], int]) -> None:
    found = add(data, top / "p.zip")
    settle(data, top / "keys")
    file = top / "b.tar"
    assert run(data, "artefacts", "export-bundle", file).exit_code == 0
    assert told(data, "artefacts", "export-bundle", file) == f"{file} exists."
    far = top / "far"
    assert run(far, "init", "--url", "https://far.example:8443").exit_code == 0
    assert told(far, "artefacts", "import-bundle", file).startswith("There is no root here")
    foreign = top / "foreign"
    assert run(foreign, "init", "--url", "https://foreign.example:8443").exit_code == 0
    keys.make(top / "fkeys", keys.OFFLINE, None)
    work.init(foreign, work.holders([top / "fkeys/root.pub"], 1), work.holders([top / "fkeys/targets.pub"], 1))
    settle(foreign, top / "fkeys")
    other, root = foreign / "artefacts/metadata/1.root.json", data / "artefacts/metadata/1.root.json"
    assert "is not what the trusted root vouches for" in told(far, "artefacts", "import-bundle", file, "--root", other)
    assert not list((far / "artefacts/metadata").iterdir())
    assert "of another repository" in told(foreign, "artefacts", "import-bundle", file, "--root", root)
    assert run(far, "artefacts", "import-bundle", file, "--root", root).exit_code == 0
    client = Client(far, top / "client")
    assert client.look(found.target) == [(top / "p.zip").read_bytes()]
    # The next stick: keys were rotated meanwhile, and it is to last for long.
    keys.make(top / "keys2", keys.OFFLINE, None)
    work.rotate(data, "root", work.holders([top / "keys2/root.pub"], 1))
    later = add(data, top / "q.zip", "2.0.0")
    passing(1)
    settle(data, top / "keys", top / "keys2")
    assert run(data, "artefacts", "export-bundle", top / "c.tar", "--valid-days", "90").exit_code == 0
    assert run(far, "artefacts", "import-bundle", top / "c.tar").exit_code == 0
    assert client.look(later.target) == [(top / "q.zip").read_bytes()]
    assert {item["role"]: item["daysLeft"] for item in work.every(far)["roles"]}["timestamp"] >= 89
    assert work.refresh(far, force=True) == []
    assert "vouches for" in told(far, "artefacts", "import-bundle", file)
    assert client.look(later.target) == [(top / "q.zip").read_bytes()]


def test_a_repository_out_of_an_old_bundle_goes_on_ahead_of_machines(
    top: Path, data: Path, passing: Callable[[float], int]
) -> None:
    found = add(data, top / "p.zip")
    settle(data, top / "keys")
    work.export_bundle(data, top / "b.tar", None)
    shutil.copyfile(data / "artefacts/metadata/1.root.json", top / "root.json")
    client = Client(data, top / "client")
    passing(1)
    for version in ("2.0.0", "3.0.0", "4.0.0"):
        add(data, top / "q.zip", version)
        settle(data, top / "keys")
    client.look()
    shutil.rmtree(data / "artefacts")
    work.import_bundle(data, top / "b.tar", top / "root.json")
    passing(1)
    work.refresh(data, force=True)
    with pytest.raises(BadVersionNumberError):
        client.look()
    work.renew(data)
    settle(data, top / "keys")
    assert client.look(found.target) == [(top / "p.zip").read_bytes()]


def test_a_clock_that_was_far_ahead_locks_nothing(top: Path, data: Path, passing: Callable[[float], int]) -> None:
    at, client = passing(300), Client(data, top / "client")
    add(data, top / "p.zip")
    assert settle(data, top / "keys").targets == at
    passing(-300)
    later = add(data, top / "q.zip", "2.0.0")
    assert settle(data, top / "keys").targets == at + 1
    assert client.look(later.target) == [(top / "q.zip").read_bytes()]


def test_a_bundle_is_not_put_below_a_list_that_does_not_know_it(
    top: Path, data: Path, passing: Callable[[float], int]
) -> None:
    far = top / "far"
    shutil.copytree(data, far)
    found = add(data, top / "p.zip")
    settle(data, top / "keys")
    work.export_bundle(data, top / "b.tar", None)
    passing(1)
    add(far, top / "q.zip", "2.0.0")
    assert told(far, "artefacts", "import-bundle", top / "b.tar").startswith("A list is staged")
    settle(far, top / "keys")
    # What is in force when it is imported knows of the list that is staged over it.
    work.export_bundle(far, top / "c.tar", None)
    third = add(far, top / "r.zip", "3.0.0")
    work.import_bundle(far, top / "c.tar", None)
    settle(far, top / "keys")
    assert Client(far, top / "client").look(found.target, third.target) == [None, (top / "r.zip").read_bytes()]


@pytest.mark.parametrize("by", ["import", "refresh"])
def test_a_site_that_only_imports_removes_what_was_superseded(top: Path, data: Path, by: str) -> None:
    def bring(name: str) -> None:
        work.export_bundle(data, top / name, None)
        work.import_bundle(far, top / name, root)

    far, root = top / "far", top / "root.json"
    shutil.copyfile(data / "artefacts/metadata/1.root.json", root)
    assert run(far, "init", "--url", "https://far.example:8443").exit_code == 0
    old = add(data, top / "p.zip")
    settle(data, top / "keys")
    bring("a.tar")
    halfway = Client(far, top / "halfway")
    assert halfway.look(old.target) == [(top / "p.zip").read_bytes()]
    place = places.of(far)
    served = {path for path in place.top.rglob("*.*") if path.is_file()}
    work.remove(data, old.target)
    new = add(data, top / "q.zip", "2.0.0")
    settle(data, top / "keys")
    bring("b.tar")
    assert all(path.exists() for path in served), "a machine may be on the way to them"
    assert halfway.look(old.target, new.target) == [None, (top / "q.zip").read_bytes()]
    for path in place.metadata.iterdir():
        os.utime(path, (1, 1))
    if by == "import":
        bring("c.tar")
    else:
        assert upkeep.renew(far, clock.now()) == []
    assert [path.name for path in place.targets.rglob("*.zip")] == [f"{new.sha256}.linux.zip"]
    assert len(list(place.metadata.glob("*.targets.json"))) == 1
    # An import supersedes the snapshot that was in force until then.
    assert len(list(place.metadata.glob("*.snapshot.json"))) == (2 if by == "import" else 1)
    for client in (halfway, Client(far, top / "client")):
        assert client.look(old.target, new.target) == [None, (top / "q.zip").read_bytes()]


def test_damaged_bundles(top: Path, data: Path) -> None:
    add(data, top / "p.zip")
    settle(data, top / "keys")
    work.export_bundle(data, top / "b.tar", None)
    root = top / "root.json"
    shutil.copyfile(data / "artefacts/metadata/1.root.json", root)
    shutil.rmtree(data / "artefacts")
    whole = (top / "b.tar").read_bytes()
    names = [b"metadata/timestamp.json", b"targets/extensions"]
    for old, new in [
        (names[0], b"metadata/../stamp.json."),
        (names[1], b"targets/../../.xyz"),
        (b"run.sh", b"rum.sh"),
    ]:
        assert old in whole
        (top / "b.tar").write_bytes(whole.replace(old, new))
        told(data, "artefacts", "import-bundle", top / "b.tar", "--root", root)
        assert not list((data / "artefacts/metadata").iterdir())
    (top / "b.tar").write_bytes(whole[: len(whole) // 2])
    told(data, "artefacts", "import-bundle", top / "b.tar", "--root", root)
    with tarfile.open(top / "link.tar", "w") as tar:
        link = tarfile.TarInfo("metadata/timestamp.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "no bundle" in told(data, "artefacts", "import-bundle", top / "link.tar", "--root", root)
    assert (
        told(data, "artefacts", "import-bundle", top / "none.tar", "--root", root)
        == f"There is no file {top}/none.tar."
    )
    (top / "b.tar").write_bytes(whole)
    assert run(data, "artefacts", "import-bundle", top / "b.tar", "--root", root).exit_code == 0


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/artefacts/metadata/timestamp.json", "metadata/timestamp.json"),
        ("/artefacts/metadata/12.root.json", "metadata/12.root.json"),
        ("/artefacts/metadata/0.root.json", None),
        ("/artefacts/metadata/root.json", None),
        ("/artefacts/metadata/../lock", None),
        ("/artefacts/metadata/", None),
        ("/artefacts/metadata", None),
        ("/artefacts/", None),
        ("/artefacts/lock", None),
        ("/artefacts/staged/root.json", None),
        ("/artefacts/targets/a/" + "0" * 64 + ".x.zip", "targets/a/" + "0" * 64 + ".x.zip"),
        ("/artefacts/targets/../keys/" + "0" * 64 + ".x.zip", None),
        ("/artefacts/targets/a/x.zip", None),
        ("/artefacts/targets//" + "0" * 64 + ".x.zip", None),
        ("/artefacts/targets/a/." + "0" * 64 + ".x.zip", None),
        ("/artefacts/targets/a\\..\\/" + "0" * 64 + ".x.zip", None),
        ("/artefacts/targets/a/" + "0" * 64 + ".x.zip\n", None),
        ("/artefacts/metadata/timestamp.json\0", None),
    ],
)
def test_only_names_that_could_be_there_are_looked_for(tmp_path: Path, path: str, found: str | None) -> None:
    answer = serving.file_of(tmp_path, path)
    assert (answer is None) if found is None else (answer is not None and answer[0] == tmp_path / "artefacts" / found)


def test_two_at_once_take_turns(data: Path) -> None:
    place = places.of(data)
    with (
        places.locked(place),
        pytest.raises(OperatorError, match="has been changing"),
        places.locked(place, seconds=0.1),
    ):
        pass


def test_the_list(top: Path, data: Path) -> None:
    add(data, top / "p.zip")
    settle(data, top / "keys")
    add(data, top / "q.zip", "2.0.0")
    work.remove(data, "extensions/Hawser.Demo/1.0.0/linux.zip")
    found = json.loads(run(data, "artefacts", "list", "--json").stdout)
    assert [item["role"] for item in found["roles"]] == ["root", "targets", "snapshot", "timestamp"]
    assert {item["path"].split("/")[2]: item["state"] for item in found["packages"]} == {
        "1.0.0": "to be removed",
        "2.0.0": "staged",
    }
    assert found["staged"] == ["targets"]
    assert "to be removed" in run(data, "artefacts", "list").stdout


def test_no_repository_yet(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert told(data, "artefacts", "list").startswith("There is no repository")
    packed(tmp_path / "p.zip")
    assert told(data, "artefacts", "add", tmp_path / "p.zip").startswith("There is no hub in")
    assert not data.exists()
    assert run(data, "init", "--url", "https://hub.example:8443").exit_code == 0
    assert told(data, "artefacts", "add", tmp_path / "p.zip").startswith("There is no repository in")
    assert told(data, "artefacts", "publish").startswith("There is no repository in")
    assert told(data, "artefacts", "refresh").startswith("Nothing was published in")
    assert told(data, "artefacts", "sign", "--keys", tmp_path).startswith("Nothing is staged in")
    assert told(data, "artefacts", "rotate-online").startswith("Nothing was published in")
    words = ("--root-key", tmp_path / "p.zip", "--targets-key", tmp_path / "p.zip")
    assert told(data, "artefacts", "init", *words) == f"{tmp_path}/p.zip holds no public key."


def test_damaged_metadata_is_named(top: Path, data: Path) -> None:
    place = places.of(data)
    (place.metadata / "timestamp.json").write_bytes(b"{}")
    assert (
        told(data, "artefacts", "list") == f"{place.metadata}/timestamp.json is no TUF metadata of the role timestamp."
    )
    (place.metadata / "timestamp.json").unlink()
    shutil.copyfile(place.metadata / "1.root.json", top / "x.json")
    (top / "x.json").write_bytes((top / "x.json").read_bytes()[:-10])
    assert "is no TUF metadata" in told(data, "artefacts", "sign", "--keys", top / "keys", top / "x.json")

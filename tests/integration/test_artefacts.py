# SPDX-License-Identifier: Apache-2.0
"""Packages from the operator's hands to a machine: real commands, a real hub, the agent's real workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from jsonschema import Draft7Validator

from control_plane.artefacts import place as places
from control_plane.artefacts import publishing
from control_plane.operate import artefacts
from tests.integration import hub_process
from tests.integration.artefact_site import CuttingRelay, Site, make_package, peak, work
from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.waiting import until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One hub for this file."""
    made = hub_process.make(tmp_path_factory.mktemp("artefacts") / "hub").start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def site(running: HubProcess, tmp_path: Path) -> Site:
    """A fresh repository at that hub."""
    found = Site(running, tmp_path / "keys", tmp_path / "machine")
    found.begin()
    return found


@pytest.fixture
def served(site: Site, tmp_path: Path) -> Site:
    """The same with one package."""
    site.offer(make_package(tmp_path / "demo.zip", extra=bytes(range(256)) * 4096))
    return site


def test_a_package_goes_from_the_operator_to_a_machine(running: HubProcess, tmp_path: Path) -> None:
    """By the very commands, each a process of its own."""
    site = Site(running, tmp_path / "keys", tmp_path / "machine")
    shutil.rmtree(site.repository, ignore_errors=True)
    running.run("artefacts", "keys", site.keys)
    running.run("artefacts", "init", "--root-key", site.keys / "root.pub", "--targets-key", site.keys / "targets.pub")
    target = running.json("artefacts", "add", str(make_package(tmp_path / "demo.zip")))["path"]
    assert target == "extensions/Hawser.Demo/1.0.0/linux.zip"
    running.run("artefacts", "sign", "--keys", site.keys)
    running.run("artefacts", "publish")
    got = site.fetch(target)
    assert Path(got["path"]).read_bytes() == (tmp_path / "demo.zip").read_bytes()
    assert got["custom"] == {
        "kind": "extension",
        "publisher": "Hawser",
        "type": "Demo",
        "version": "1.0.0",
        "os": "linux",
        "arch": "any",
        "supportsMultipleExtensions": False,
    }
    into = tmp_path / "waagent" / "Hawser.Demo-1.0.0"
    assert work("unpack-package", {"archive": got["path"], "into": str(into), "limit": 1 << 20})["files"] == 2
    assert json.loads((into / "HandlerManifest.json").read_text())[0]["signingInfo"]["type"] == "Demo"
    assert (into / "run.sh").stat().st_mode & 0o100


def the_package(site: Site) -> str:
    (path,) = (site.repository / "targets").rglob("*.zip")
    return f"{site.hub.url}/artefacts/{path.relative_to(site.repository)}"


def test_files_are_for_everybody(served: Site) -> None:
    with served.hub.session() as session:
        url = f"{served.hub.url}/artefacts/metadata/timestamp.json"
        whole = session.get(url, timeout=30)
        assert whole.status_code == 200
        assert whole.content == (served.repository / "metadata/timestamp.json").read_bytes()
        assert whole.headers["Cache-Control"] == "public, max-age=0, must-revalidate"
        assert whole.headers["Content-Type"] == "application/json"
        again = session.get(url, headers={"If-None-Match": whole.headers["ETag"]}, timeout=30)
        assert (again.status_code, again.content) == (304, b"")
        head = session.head(url, timeout=30)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == str(len(whole.content))
        root = session.get(f"{served.hub.url}/artefacts/metadata/1.root.json", timeout=30)
        assert "immutable" in root.headers["Cache-Control"]
        after = session.get(f"{served.hub.url}/artefacts/metadata/2.root.json", timeout=30)
        assert (after.status_code, after.headers["Cache-Control"]) == (404, "no-store")
        assert after.json()["error"]["code"] == "ArtefactNotFound"


def test_parts_of_packages(served: Site) -> None:
    url = the_package(served)
    (path,) = (served.repository / "targets").rglob("*.zip")
    content = path.read_bytes()
    with served.hub.session() as session:
        whole = session.get(url, timeout=30)
        assert whole.content == content
        for asked, part in (
            ("bytes=100-", content[100:]),
            ("bytes=0-9", content[:10]),
            (f"bytes={len(content) - 1}-", content[-1:]),
            ("bytes=-5", content[-5:]),
        ):
            answer = session.get(url, headers={"Range": asked}, timeout=30)
            assert (answer.status_code, answer.content) == (206, part)
        beyond = session.get(url, headers={"Range": f"bytes={len(content)}-"}, timeout=30)
        assert beyond.status_code == 416
        other = session.get(url, headers={"Range": "bytes=5-", "If-Range": '"another"'}, timeout=30)
        assert (other.status_code, other.content) == (200, content)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/artefacts", 404),
        ("/artefacts/", 404),
        ("/artefacts/metadata/", 404),
        ("/artefacts/targets/", 404),
        ("/artefacts/targets/extensions/", 404),
        ("/artefacts/lock", 404),
        ("/artefacts/staged/targets.json", 404),
        ("/artefacts/metadata/%2e%2e/lock", 404),
        ("/artefacts/metadata/..%2f..%2fhub.json", 404),
        ("/artefacts/targets/..%2f..%2fkeys%2fca.key", 404),
        ("/artefacts/metadata/timestamp.json%00", 404),
        ("/artefacts/metadata/timestamp.json/", 404),
        ("/artefacts/metadata/" + "a" * 5000, 404),
    ],
)
def test_nothing_else_is_served(served: Site, path: str, status: int) -> None:
    with served.hub.session() as session:
        request = session.prepare_request(requests.Request("GET", served.hub.url))
        request.url = f"{served.hub.url}{path}"
        assert session.send(request, verify=served.hub.ca_file, timeout=30).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_read_only(served: Site, method: str) -> None:
    with served.hub.session() as session:
        answer = session.request(method, f"{served.hub.url}/artefacts/metadata/timestamp.json", data=b"x", timeout=30)
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "GET, HEAD"


def test_health_and_figures_tell_when_roles_end(served: Site) -> None:
    hub = served.hub
    token = hub.token(hub.principal("watch", "Reader"))
    with hub.session() as session:
        health = session.get(
            f"{hub.url}/hawser/v1/hub", headers={"Authorization": f"Bearer {token}"}, timeout=30
        ).json()
        Draft7Validator(json.loads((REPOSITORY / "docs/schemas/hub.schema.json").read_text())).validate(health)
        days = {item["role"]: item["daysLeft"] for item in health["artefacts"]}
        assert days == {"root": 729, "targets": 364, "snapshot": 29, "timestamp": 6}
        figures = session.get(f"{hub.url}/metrics", timeout=30).text
    for role in days:
        assert f'hawser_artefacts_not_after_seconds{{role="{role}"}}' in figures
    assert 'part="artefacts"' in figures


def test_a_cut_connection_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    """Through a proxy that breaks connections in the middle of a package."""
    extra = os.urandom(4 << 20)
    target = site.offer(make_package(tmp_path / "big.zip", extra=extra))
    arguments = site.arguments(target)
    relay = CuttingRelay(cut_after=1 << 20, cuts=3)
    try:
        # TLS ends at the hub: the relay sees bytes alone.
        arguments["proxy"] = relay.url
        got = work("fetch-package", arguments)
    finally:
        relay.close()
    assert Path(got["path"]).read_bytes() == (tmp_path / "big.zip").read_bytes()
    assert relay.cut == 3


def test_the_hub_streams_big_packages(site: Site, tmp_path: Path) -> None:
    """Neither the hub nor anybody who waits for it feels a package of 100 MiB."""
    target = site.offer(make_package(tmp_path / "big.zip", extra=bytes(100 << 20)))
    assert site.hub.process is not None
    before = peak(site.hub.process.pid)
    waited: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        with site.hub.session() as session:
            while not stop.is_set():
                began = time.monotonic()
                session.get(f"{site.hub.url}/healthz", timeout=30)
                waited.append(time.monotonic() - began)

    other = threading.Thread(target=ask)
    other.start()
    try:
        site.fetch(target)
    finally:
        stop.set()
        other.join()
    assert peak(site.hub.process.pid) - before < 24 * 1024
    assert sorted(waited)[len(waited) // 2] < 0.25


def test_rotated_keys_and_an_old_profile(site: Site, tmp_path: Path) -> None:
    """A machine with the first root follows to the newest; one with a foreign root is told so."""
    first = site.offer(make_package(tmp_path / "one.zip"))
    profile = site.profile()
    assert "path" in site.fetch(first)
    fresh = tmp_path / "keys2"
    site.make_keys(fresh)
    artefacts.rotate(site.hub.data, "root", artefacts.holders([fresh / "root.pub"], 1))
    artefacts.rotate(site.hub.data, "targets", artefacts.holders([fresh / "targets.pub"], 1))
    artefacts.rotate(site.hub.data, "online", None)
    site.settle(fresh)
    site.keys = fresh
    second = site.offer(make_package(tmp_path / "two.zip", "2.0.0"))
    assert "path" in site.fetch(second, tufRoot=profile["tuf_root"])
    assert "path" in site.fetch(second, metadata=str(tmp_path / "new"))
    newest = site.profile()["tuf_root"]
    site.keys = tmp_path / "keys3"
    site.begin()
    answer = site.fetch(second, tufRoot=newest)
    assert answer["error"]["code"] == "AZCM0074"
    assert "is not signed by whom this machine trusts" in answer["error"]["message"]


def test_a_hub_put_back_to_an_old_bundle(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What machines have seen is not taken back: a repository that fell back is refused until it is ahead again."""
    first = site.offer(make_package(tmp_path / "one.zip"))
    artefacts.export_bundle(site.hub.data, tmp_path / "old.tar", None)
    site.offer(make_package(tmp_path / "two.zip", "2.0.0"))
    third = site.offer(make_package(tmp_path / "three.zip", "3.0.0"))
    assert "path" in site.fetch(third)
    root = tmp_path / "root.json"
    shutil.copyfile(site.repository / "metadata/1.root.json", root)
    shutil.rmtree(site.repository)
    artefacts.import_bundle(site.hub.data, tmp_path / "old.tar", root)
    answer = site.fetch(first)
    assert answer["error"]["code"] == "AZCM0074"
    assert "older list of packages" in answer["error"]["message"]
    assert answer["error"]["remedy"].endswith("hawser-hub artefacts renew, sign, publish")
    later = int(time.time()) + 60  # nobody publishes twice in a second but a test
    monkeypatch.setattr(artefacts, "now", lambda: later)
    artefacts.renew(site.hub.data)
    site.settle()
    assert "path" in site.fetch(first)


def test_a_running_hub_renews_what_is_due(site: Site, tmp_path: Path) -> None:
    assert site.hub.stop() == 0
    # Signed six days ago, by the clock of a machine that was switched off since.
    place, at = places.of(site.hub.data), int(time.time()) - 6 * 86400
    with places.locked(place):
        publishing.refresh(place, site.hub.data, at, force=True)
    old = (site.repository / "metadata/timestamp.json").read_bytes()
    site.hub.start()
    until(lambda: (site.repository / "metadata/timestamp.json").read_bytes() != old, seconds=20)
    days = {item["role"]: item["daysLeft"] for item in artefacts.every(site.hub.data)["roles"]}
    assert days["timestamp"] in (6, 7), "seven days less some seconds, or none"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with options, as root."""
    if os.geteuid() != 0:
        pytest.fail("Mounts need root. Run make test as root on Debian 12 or 13.")
    made: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(served: Site, tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    target = "extensions/Hawser.Demo/1.0.0/linux.zip"
    got = served.fetch(target)
    disk = small_disk("size=512k")
    answer = served.fetch(target, downloads=str(disk))
    assert answer["error"]["code"] == "AZCM0072"
    assert "are free" in answer["error"]["message"]
    answer = work("unpack-package", {"archive": got["path"], "into": f"{disk}/Hawser.Demo-1.0.0", "limit": 1 << 30})
    assert answer["error"]["code"] == "AZCM0072"
    assert [path.name for path in disk.iterdir() if not path.name.endswith(".part")] == []
    # No room for metadata either.
    free = shutil.disk_usage(disk).free
    (disk / "full").write_bytes(b"x" * (free - 4096))
    answer = served.fetch(target, metadata=str(disk / "tuf"), downloads=str(tmp_path / "d"))
    assert answer["error"]["code"] == "AZCM0072"
    assert "no space left" in answer["error"]["message"]


def test_noexec(served: Site, small_disk: Callable[[str], Path]) -> None:
    got = served.fetch("extensions/Hawser.Demo/1.0.0/linux.zip")
    disk = small_disk("size=16m,noexec")
    answer = work("unpack-package", {"archive": got["path"], "into": f"{disk}/Hawser.Demo-1.0.0", "limit": 1 << 30})
    assert answer["error"]["code"] == "AZCM0006"
    assert "noexec" in answer["error"]["message"]
    assert list(disk.iterdir()) == []

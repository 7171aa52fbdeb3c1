# SPDX-License-Identifier: Apache-2.0
"""Fetching packages: what is believed, what is refused, what goes on where it broke."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_runtime import errors
from agent_runtime.workers import download, packages
from tests.unit.agent.package_source import TARGET, Ed25519, Source

CONTENT = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    made = Source(tmp_path)
    made.add(CONTENT)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nobody waits; how often somebody would have."""
    taken: list[int] = []
    monkeypatch.setattr(download, "pause", taken.append)
    return taken


def fetch(source: Source, folder: Path, **more: Any) -> dict[str, Any]:
    arguments = {
        "artefacts": [source.url],
        "caPem": source.ca_pem,
        "tufRoot": source.root,
        "proxy": None,
        "metadata": str(folder / "tuf"),
        "downloads": str(folder / "downloads"),
        "target": TARGET,
        **more,
    }
    return packages.fetch_package(arguments)


def refused(
    source: Source, folder: Path, kind: type[errors.AgentError], words: str, passing: bool = False, **more: Any
) -> None:
    with pytest.raises(kind) as caught:
        fetch(source, folder, **more)
    assert words in caught.value.message
    assert caught.value.message.count("\n") == 0
    assert caught.value.remedy
    assert (caught.value.retry_after is not None) is passing
    downloads = folder / "downloads"
    assert not downloads.exists() or not [path for path in downloads.iterdir() if path.suffix == ".zip"]


def test_a_package_is_fetched_and_used_again(source: Source, tmp_path: Path) -> None:
    got = fetch(source, tmp_path)
    path = Path(got["path"])
    assert path == tmp_path / "downloads" / "Hawser.Demo-1.0.0-linux.zip"
    assert path.read_bytes() == CONTENT
    assert (got["length"], got["sha256"]) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert got["custom"] == {"kind": "extension", "version": "1.0.0"}
    assert fetch(source, tmp_path) == got
    assert source.ranges == [None]
    path.write_bytes(b"x" * len(CONTENT))
    fetch(source, tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_broke(source: Source, tmp_path: Path, pauses: list[int]) -> None:
    source.cut = [1000, 0, 500_000, 65536]
    fetch(source, tmp_path)
    assert source.ranges == [None, 1000, 1000, 501_000, 566_536]
    assert len(pauses) == 4
    assert os.listdir(tmp_path / "downloads") == ["Hawser.Demo-1.0.0-linux.zip"]


def test_the_tries_end_and_the_part_stays(source: Source, tmp_path: Path) -> None:
    source.cut = [100] * 20
    refused(source, tmp_path, errors.NetworkFailed, "could not be downloaded in 10 tries: the connection broke")
    assert len(source.ranges) == 10
    source.cut = []
    fetch(source, tmp_path)
    assert source.ranges[-1] == 1000


def test_tries_that_bring_much_do_not_count(source: Source, tmp_path: Path) -> None:
    source.add(CONTENT * 8)
    source.cut = [1 << 20] * 14
    fetch(source, tmp_path)
    assert len(source.ranges) == 15


def test_a_package_that_takes_long_is_left_and_goes_on(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block takes a second, and a call has so many."""
    clock = [0.0]
    receive = download.Answer.blocks

    def blocks(answer: download.Answer) -> Iterator[bytes]:
        for block in receive(answer):
            clock[0] += 1
            yield block

    monkeypatch.setattr(download.Answer, "blocks", blocks)
    counting = SimpleNamespace(monotonic=lambda: clock[0], time=time.time)
    for module in (packages, download):
        monkeypatch.setattr(module, "time", counting)
    source.add(CONTENT * 4)
    left: list[errors.NetworkFailed] = []
    with pytest.raises(errors.NetworkFailed) as caught:
        fetch(source, tmp_path, seconds=3)
    assert caught.value.retry_after is None, "it hardly moves"
    while True:
        try:
            fetch(source, tmp_path, seconds=3 * (download.PROGRESS // download.BLOCK))
            break
        except errors.NetworkFailed as problem:
            left.append(problem)
    assert 1 <= len(left) <= 4 * len(CONTENT) // download.PROGRESS
    assert [problem.retry_after for problem in left] == [0] * len(left)
    assert f"of {4 * len(CONTENT)} bytes are there" in left[0].message


def test_a_source_without_ranges_begins_anew(source: Source, tmp_path: Path) -> None:
    source.cut, source.ignores_ranges = [5000], True
    fetch(source, tmp_path)
    assert source.ranges == [None, 5000]


def test_a_part_of_other_bytes_is_thrown_away(source: Source, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    wanted = hashlib.sha256(CONTENT).hexdigest()[:16]
    (folder / f"Hawser.Demo-1.0.0-linux.zip.{wanted}.part").write_bytes(b"other bytes")
    (folder / "Hawser.Demo-1.0.0-linux.zip.0123456789abcdef.part").write_bytes(b"of an earlier package")
    (folder / "Hawser.Old-1.0.0-linux.zip.0123456789abcdef.part").write_bytes(b"nobody goes on with it")
    (folder / "Hawser.New-1.0.0-linux.zip.0123456789abcdef.part").write_bytes(b"another one's")
    os.utime(folder / "Hawser.Old-1.0.0-linux.zip.0123456789abcdef.part", (1, 1))
    fetch(source, tmp_path)
    assert sorted(os.listdir(folder)) == [
        "Hawser.Demo-1.0.0-linux.zip",
        "Hawser.New-1.0.0-linux.zip.0123456789abcdef.part",
    ]


def test_a_package_that_was_not_signed_is_refused(source: Source, tmp_path: Path) -> None:
    source.add(b"y" * len(CONTENT), said=CONTENT)
    refused(source, tmp_path, errors.ExtensionNotAdded, "is not the package that was signed")
    source.add(CONTENT + b"more", said=CONTENT)
    refused(source, tmp_path, errors.ExtensionNotAdded, "is not the package that was signed")
    assert not os.listdir(tmp_path / "downloads")


def test_the_next_source_is_asked(source: Source, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Source(tmp_path / "second")
    try:
        both = source.ca_pem + second.ca_pem
        # The first has been taken over: it lists what it likes, and its package is another one.
        wrong = {**source.files, **{name: b"z" * len(CONTENT) for name in source.files if name.startswith("targets/")}}
        second.files = wrong
        fetch(source, tmp_path, artefacts=["https://127.0.0.1:1", second.url, source.url], caPem=both)
        second.files = {}
        second.add(CONTENT)
        for name in list(source.files):
            if name.startswith("targets/"):
                del source.files[name]
        os.unlink(tmp_path / "downloads" / "Hawser.Demo-1.0.0-linux.zip")
        second.files = {name: content for name, content in second.files.items() if name.startswith("targets/")}
        fetch(source, tmp_path, artefacts=[source.url, second.url], caPem=both)
    finally:
        second.close()


def test_the_answer_says_what_is_wrong_when_nobody_can_be_believed(source: Source, tmp_path: Path) -> None:
    source.publish(days=-1)
    sources = ["https://127.0.0.1:1", source.url]
    refused(source, tmp_path, errors.ExtensionNotAdded, "out of date", passing=True, artefacts=sources)


def test_metadata_that_has_expired_is_refused(source: Source, tmp_path: Path) -> None:
    fetch(source, tmp_path)
    os.unlink(tmp_path / "downloads" / "Hawser.Demo-1.0.0-linux.zip")
    source.publish(days=-1)
    refused(source, tmp_path, errors.ExtensionNotAdded, "out of date (timestamp.json is expired)", passing=True)
    source.publish()
    fetch(source, tmp_path)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_metadata_that_was_rolled_back_is_refused(source: Source, tmp_path: Path, role: str) -> None:
    source.publish(versions={"targets": 5, "snapshot": 5, "timestamp": 5})
    fetch(source, tmp_path)
    os.unlink(tmp_path / "downloads" / "Hawser.Demo-1.0.0-linux.zip")
    source.publish(versions={"targets": 6, "snapshot": 6, "timestamp": 6, role: 4})
    refused(source, tmp_path, errors.ExtensionNotAdded, "older list of packages")


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_metadata_of_another_key_is_refused(source: Source, tmp_path: Path, role: str) -> None:
    source.keys[role] = Ed25519()
    source.publish()
    refused(source, tmp_path, errors.ExtensionNotAdded, "is not signed by whom this machine trusts", passing=True)


def test_a_root_that_was_replaced_is_refused(source: Source, tmp_path: Path) -> None:
    honest = source.root
    source.keys = {role: Ed25519() for role in source.keys}
    source.publish_root(1)
    source.publish()
    stranger = "is not signed by whom this machine trusts"
    refused(source, tmp_path, errors.ExtensionNotAdded, stranger, passing=True, tufRoot=honest)
    source.publish_root(2)
    refused(source, tmp_path, errors.ExtensionNotAdded, stranger, passing=True, tufRoot=honest)


def test_keys_are_rotated_from_any_root(source: Source, tmp_path: Path) -> None:
    for version in (2, 3, 4):
        former = source.keys["root"]
        source.keys = {role: Ed25519() for role in source.keys}
        source.publish_root(version, former)
        source.publish()
        fetch(source, tmp_path)
    assert sorted(os.listdir(tmp_path / "tuf" / "root_history")) == [f"{n}.root.json" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("name", ["metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10_000, b"x" * 10_000, b'{"signed": {"_type": "root"}}'])
def test_damaged_metadata_is_refused(source: Source, tmp_path: Path, name: str, content: bytes) -> None:
    source.files[name] = content
    refused(source, tmp_path, errors.ExtensionNotAdded, "")


def test_endless_metadata_is_refused(source: Source, tmp_path: Path) -> None:
    source.files["metadata/timestamp.json"] = b" " * 1_000_000
    refused(source, tmp_path, errors.ExtensionNotAdded, "sends more metadata than it may")


@pytest.mark.parametrize("root", ["", "{}", "[]", "no JSON"])
def test_a_root_of_trust_that_cannot_be_used(source: Source, tmp_path: Path, root: str) -> None:
    words = "damaged" if root else "no root of trust"
    refused(source, tmp_path, errors.ExtensionNotAdded, words, tufRoot=root or None)


@pytest.mark.parametrize(
    "target",
    ["extensions/Hawser.Other/1.0.0/linux.zip", "../x.zip", "/etc/x.zip", "extensions/../x.zip", "a\\b/x.zip", "x", ""],
)
def test_what_is_not_offered(source: Source, tmp_path: Path, target: str) -> None:
    words = "there is no package" if target.startswith("extensions/H") else "cannot be the path"
    refused(source, tmp_path, errors.ExtensionNotAdded, words, target=target)


@pytest.mark.parametrize(
    ("form", "version", "found"),
    [
        ("deb", None, "1.10.0.1"),
        ("deb", "1.2", "1.2.0.10"),
        ("deb", "1.2.0.1", "1.2.0.1"),
        ("deb", "1", "1.10.0.1"),
        ("rpm", None, "3.0.0.0"),
    ],
)
def test_the_newest_agent_is_found(source: Source, tmp_path: Path, form: str, version: str | None, found: str) -> None:
    for path in ("1.2.0.1/linux.deb", "1.2.0.10/linux.deb", "1.10.0.1/linux.deb", "3.0.0.0/linux.rpm", "4/linux.deb"):
        source.add(b"x", f"agent/{path}")
    source.add(b"x", "extensions/9.9.9.9/linux.deb")
    assert packages.find_agent(wanted(source, tmp_path, form, version)) == {"version": found}


def wanted(source: Source, folder: Path, form: str = "deb", version: str | None = None) -> dict[str, Any]:
    asked = {"artefacts": [source.url], "caPem": source.ca_pem, "tufRoot": source.root, "proxy": None}
    return {**asked, "metadata": str(folder / "tuf"), "format": form, "version": version}


@pytest.mark.parametrize("version", ["1.2.0", "1.2.0.1.1", "2", "0"])
def test_an_agent_that_is_not_published(source: Source, tmp_path: Path, version: str) -> None:
    source.add(b"x", "agent/1.2.1.1/linux.deb")
    with pytest.raises(errors.ExtensionNotAdded, match=r"the versions there are 1\.2\.1\.1"):
        packages.find_agent(wanted(source, tmp_path, "deb", version))


def test_no_agent_is_published(source: Source, tmp_path: Path) -> None:
    with pytest.raises(errors.ExtensionNotAdded, match="there are none"):
        packages.find_agent(wanted(source, tmp_path))
    source.publish(days=-1)
    with pytest.raises(errors.ExtensionNotAdded, match="out of date"):
        packages.find_agent(wanted(source, tmp_path))


def test_nobody_answers(source: Source, tmp_path: Path, pauses: list[int]) -> None:
    sources = ["https://127.0.0.1:1/artefacts"]
    refused(source, tmp_path, errors.NetworkFailed, "the connection was refused", artefacts=sources)
    assert pauses == [1, 2]
    refused(source, tmp_path, errors.ExtensionNotAdded, "names no place", artefacts=[])
    source.status["metadata/timestamp.json"] = 503
    refused(source, tmp_path, errors.NetworkFailed, "status 503")


def test_only_the_given_ca_is_believed(source: Source, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Source(tmp_path / "other")
    try:
        refused(source, tmp_path, errors.NetworkFailed, "certificate is not trusted", caPem=other.ca_pem)
    finally:
        other.close()


def test_a_silent_source_is_left_after_a_while(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        there = f"https://127.0.0.1:{silent.getsockname()[1]}"
        refused(source, tmp_path, errors.NetworkFailed, "no answer in time", artefacts=[there])
        assert time.monotonic() - began < 10


class Proxy:
    """A proxy that knows CONNECT, for one user."""

    def __init__(self, status: bytes = b"200 OK") -> None:
        self.heads: list[str] = []
        self._status = status
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://ada:p%40ss@127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        self.heads.append(head.decode())
        client.sendall(b"HTTP/1.1 " + self._status + b"\r\n\r\n")
        if not self._status.startswith(b"200"):
            client.close()
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        far = socket.create_connection((host, int(port)))
        back = threading.Thread(target=self._pump, args=(far, client), daemon=True)
        back.start()
        self._pump(client, far)

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        try:
            while True:
                block = one.recv(65536)
                if not block:
                    break
                other.sendall(block)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("status", [b"200 OK", b"407 Proxy Authentication Required"])
def test_the_proxy_is_gone_through(source: Source, tmp_path: Path, status: bytes) -> None:
    proxy = Proxy(status)
    try:
        if status.startswith(b"200"):
            fetch(source, tmp_path, proxy=proxy.url)
            assert all(head.startswith("CONNECT 127.0.0.1:") for head in proxy.heads)
            assert "Proxy-Authorization: Basic YWRhOnBAc3M=" in proxy.heads[0]
        else:
            refused(source, tmp_path, errors.NetworkFailed, "407", proxy=proxy.url)
    finally:
        proxy.close()


def test_no_room(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(_: str) -> Any:
        class Free:
            free = 1000

        return Free

    monkeypatch.setattr(shutil, "disk_usage", usage)
    refused(source, tmp_path, errors.ExtensionFailed, "where 1000 are free")


@pytest.mark.parametrize("number", ["metadata", "downloads"])
def test_folders_that_cannot_be_used(source: Source, tmp_path: Path, number: str) -> None:
    (tmp_path / "file").write_text("")
    more: dict[str, Any] = {number: f"{tmp_path}/file/x"}
    refused(source, tmp_path, errors.ExtensionFailed, "cannot be read or written", **more)


def test_what_was_left_half_written_does_no_harm(source: Source, tmp_path: Path) -> None:
    fetch(source, tmp_path)
    for path in [*(tmp_path / "tuf").glob("*.json"), *(tmp_path / "tuf" / "root_history").iterdir()]:
        if not path.is_symlink():
            path.write_bytes(path.read_bytes()[:50])
    fetch(source, tmp_path)


def test_an_empty_file_is_a_file(source: Source, tmp_path: Path) -> None:
    source.add(b"")
    got: dict[str, Any] | None = fetch(source, tmp_path)
    assert got is not None
    assert got["length"] == 0


MEASURED = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from agent_runtime.workers import packages
packages.fetch_package(json.load(sys.stdin))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_stays_flat(source: Source, tmp_path: Path) -> None:
    """300 MiB take as much memory as a few bytes, first to last."""
    peaks = []
    for number, blocks in enumerate((1, 300)):
        source.add_zeros(blocks)
        arguments = {
            "artefacts": [source.url],
            "caPem": source.ca_pem,
            "tufRoot": source.root,
            "proxy": None,
            "metadata": str(tmp_path / "tuf"),
            "downloads": str(tmp_path / str(number)),
            "target": TARGET,
        }
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, json.dumps(sys.path)],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        peaks.append(int(done.stdout))
        (file,) = (tmp_path / str(number)).iterdir()
        assert file.stat().st_size == blocks << 20
        file.unlink()
    assert peaks[1] - peaks[0] < 8 * 1024, peaks

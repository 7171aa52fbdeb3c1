# SPDX-License-Identifier: Apache-2.0
"""What tests of packages share: an operator's keys, packages, and the agent's workers as a real process."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.artefacts import keys as keyfiles
from control_plane.artefacts import package
from control_plane.operate import artefacts
from control_plane.operate.fleet import cloud_profile
from tests.integration.hub_process import REPOSITORY, HubProcess

WORKER = REPOSITORY / "agent_runtime" / "workers" / "__main__.py"
COMMANDS = {f"{name}Command": f"./run.sh {name}" for name in ("install", "enable", "disable", "update", "uninstall")}


def manifest(version: str = "1.0.0", name: str = "Demo", **more: Any) -> bytes:
    """A HandlerManifest.json."""
    signing = {"publisher": "Hawser", "type": name, "version": version}
    return json.dumps([{"version": 1.0, "handlerManifest": {**COMMANDS, **more}, "signingInfo": signing}]).encode()


def make_package(path: Path, version: str = "1.0.0", name: str = "Demo", extra: bytes = b"") -> Path:
    """A handler's package; with `extra`, a file of those bytes beside, as they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("HandlerManifest.json", manifest(version, name))
        package.writestr("run.sh", "#!/bin/sh\nexit 0\n")
        if extra:
            package.writestr(zipfile.ZipInfo("extra.bin"), extra)
    return path


def work(verb: str, arguments: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
    """What the worker answers."""
    done = subprocess.run(
        [sys.executable, "-I", str(WORKER), verb],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def peak(pid: int) -> int:
    """The most memory that a process has had, in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM")))


class CuttingRelay:
    """A proxy that knows CONNECT, and cuts some of its connections after so many bytes from the hub."""

    def __init__(self, cut_after: int, cuts: int) -> None:
        self.cut = 0
        self._after, self._cuts = cut_after, cuts
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
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
        host, _, port = head.split()[1].decode().rpartition(":")
        hub = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=self._up, args=(client, hub), daemon=True).start()
        sent = 0
        try:
            while block := hub.recv(65536):
                sent += len(block)
                client.sendall(block)
                if sent > self._after and self.cut < self._cuts:
                    self.cut += 1
                    break
        except OSError:
            pass
        for end in (client, hub):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @staticmethod
    def _up(client: socket.socket, hub: socket.socket) -> None:
        try:
            while block := client.recv(65536):
                hub.sendall(block)
        except OSError:
            pass

    def close(self) -> None:
        """Take no more connections."""
        self._socket.close()


@dataclass
class Site:
    """A running hub, the operator's keys, and the folders of one machine. Commands run in this process, for speed;
    the hub's own process learns of them by the files alone, as it would otherwise."""

    hub: HubProcess
    keys: Path
    machine: Path

    def begin(self) -> None:
        """Another repository in the place of the one that is there, signed and published."""
        shutil.rmtree(self.repository, ignore_errors=True)
        for path in (self.hub.data / "keys").glob("tuf-*"):
            path.unlink()
        self.make_keys(self.keys)
        root, targets = ([self.keys / f"{role}.pub"] for role in keyfiles.OFFLINE)
        artefacts.init(self.hub.data, artefacts.holders(root, 1), artefacts.holders(targets, 1))
        self.settle()

    @staticmethod
    def make_keys(folder: Path) -> None:
        """An operator's keys."""
        keyfiles.make(folder, keyfiles.OFFLINE, None)

    def settle(self, *others: Path) -> None:
        """Sign what is staged, with other keys too, and publish it."""
        for folder in (self.keys, *others):
            artefacts.sign(folder, artefacts.staged_files(self.hub.data), lambda _: b"")
        artefacts.publish(self.hub.data, [])

    def offer(self, source: Path) -> str:
        """Add, sign, publish; the target's path."""
        found = package.inspect(source, None, None, None, "linux", "any")
        artefacts.add(self.hub.data, source, found)
        self.settle()
        return found.target

    def profile(self) -> dict[str, Any]:
        """The cloud profile of now."""
        return cloud_profile(self.hub.data, "demo")

    def arguments(self, target: str, **more: Any) -> dict[str, Any]:
        """Of fetch-package, as extd would give them."""
        profile = self.profile()
        return {
            "artefacts": profile["artefacts"],
            "caPem": profile["ca_pem"],
            "tufRoot": profile["tuf_root"],
            "proxy": None,
            "metadata": str(self.machine / "tuf"),
            "downloads": str(self.machine / "downloads"),
            "target": target,
            **more,
        }

    def fetch(self, target: str, **more: Any) -> dict[str, Any]:
        """Run fetch-package."""
        return work("fetch-package", self.arguments(target, **more))

    @property
    def repository(self) -> Path:
        """DATA/artefacts."""
        return self.hub.data / "artefacts"

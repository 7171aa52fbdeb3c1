# SPDX-License-Identifier: Apache-2.0
"""The other end of the local socket, in the hands of a test: an honest himds, or one that was taken over."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CHECKOUT = Path(__file__).resolve().parents[3]
VM_ID = "0b0c6a52-57f1-4f11-9d6d-0f3f9d1d2c3b"
WAIT = 30.0


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def sign(key: Ed25519PrivateKey, **changes: Any) -> str:
    """A document of generation 1 for VM_ID, kind policy; `changes` replace members."""
    now = int(time.time())
    payload = {
        "v": 1,
        "machine": VM_ID,
        "resourceId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.HybridCompute/machines/m",
        "kind": "policy",
        "generation": 1,
        "iat": now,
        "exp": now + 3600,
        "content": {"assignments": []},
        **changes,
    }
    head = b64(json.dumps({"alg": "EdDSA", "kid": "k1", "typ": "hawser-desired"}).encode())
    body = f"{head}.{b64(json.dumps(payload).encode())}"
    return f"{body}.{b64(key.sign(body.encode()))}"


class Machine:
    """A machine below `root`, bound to VM_ID and trusting `key`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = Ed25519PrivateKey.generate()
        self.state = root / "var/opt/azcmagent"
        for folder in ("clouds", "socks", "state", "log"):
            (self.state / folder).mkdir(parents=True)
        public = self.key.public_key().public_bytes_raw()
        profile = {
            "name": "demo",
            "desired_state_keys": [{"kid": "k1", "kty": "OKP", "crv": "Ed25519", "x": b64(public)}],
        }
        (self.state / "clouds/demo.json").write_text(json.dumps(profile))
        self.bind(VM_ID)

    def bind(self, vm_id: str) -> None:
        binding = {"v": 1, "vmId": vm_id, "cloud": "demo", "resourceId": "/r", "tenantId": VM_ID}
        (self.state / "binding.json").write_text(json.dumps(binding))

    def unbind(self) -> None:
        (self.state / "binding.json").unlink()

    def configure(self, **values: Any) -> None:
        settings = {name.replace("_", "."): value for name, value in values.items()}
        (self.state / "localconfig.json").write_text(json.dumps(settings))

    def folder(self, service: str) -> Path:
        return self.root / "var/lib/GuestConfig" / service

    def kept(self, service: str, kind: str) -> str | None:
        path = self.folder(service) / "desired" / f"{kind}.jws"
        return path.read_text() if path.exists() else None

    def log(self, service: str) -> str:
        name = {"policy": "arc_policy_logs/gc_agent.log", "extensions": "ext_mgr_logs/gc_ext.log"}[service]
        path = self.root / "var/lib/GuestConfig" / name
        return path.read_text() if path.exists() else ""


class Service:
    """gcad or extd as a real process."""

    def __init__(self, machine: Machine, package: str) -> None:
        command = [sys.executable, "-m", f"agent_runtime.{package}", "--root", str(machine.root)]
        self.process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        if self.process.stderr:
            self.process.stderr.close()


class Courier:
    """Accepts the service's connection and speaks frames."""

    def __init__(self, machine: Machine) -> None:
        path = str(machine.state / "socks/himds.sock")
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(8)
        self.listener.settimeout(WAIT)
        self.stream: socket.socket | None = None
        self.state = "connected"

    def welcome(self) -> dict[str, Any]:
        """Takes a connection and answers its hello, which is returned."""
        self.stream, _ = self.listener.accept()
        self.stream.settimeout(WAIT)
        hello = self.receive()
        self.greet(hello)
        return hello

    def greet(self, hello: dict[str, Any]) -> None:
        self.send({"v": 1, "id": hello["id"], "ok": True, "result": {"state": self.state, "cloud": "demo"}})

    def tell(self, state: str) -> None:
        """The identity is in another state now."""
        self.state = state
        self.send({"v": 1, "push": "identity", "state": state})

    def push(self, document: str, kind: str = "policy", generation: int = 1) -> None:
        self.send({"v": 1, "push": "desired", "kind": kind, "generation": generation, "document": document})

    def report(self) -> dict[str, Any]:
        """The next report, answered, and whatever the service says of itself before."""
        frame = self.receive()
        while frame["verb"] == "hello":
            self.greet(frame)
            frame = self.receive()
        assert frame["verb"] == "report", frame
        self.send({"v": 1, "id": frame["id"], "ok": True, "result": {"id": VM_ID}})
        arguments: dict[str, Any] = frame["args"]
        return arguments

    def send(self, frame: dict[str, Any]) -> None:
        body = json.dumps(frame).encode()
        self.raw(struct.pack(">I", len(body)) + body)

    def raw(self, content: bytes) -> None:
        assert self.stream is not None
        self.stream.sendall(content)

    def receive(self) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._exactly(4))
        found: dict[str, Any] = json.loads(self._exactly(length))
        return found

    def _exactly(self, count: int) -> bytes:
        assert self.stream is not None
        content = b""
        while len(content) < count:
            block = self.stream.recv(count - len(content))
            assert block, "the service closed the connection"
            content += block
        return content

    def close(self) -> None:
        if self.stream:
            self.stream.close()
        self.listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

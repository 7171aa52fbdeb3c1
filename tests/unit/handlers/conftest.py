# SPDX-License-Identifier: Apache-2.0
"""Our handlers' packages as the builder makes them, unpacked and run as an agent does (extension-handler.md 4 to 8)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
THUMBPRINT = "AB" * 20


@dataclass
class Instance:
    """One unpacked handler below `lib`. `variables`: what its commands have in their environment besides."""

    lib: Path
    package: Path
    version: str = "1.0.0"
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = self.package.name.partition("_")[0]
        self.root = self.lib / f"{self.name}-{self.version}"
        self.logs = self.lib.parent / "logs" / self.root.name
        with zipfile.ZipFile(self.package) as archive:
            archive.extractall(self.root)
        for path in self.root.rglob("*"):
            path.chmod(0o700)
        for folder in (self.root / "config", self.root / "status", self.logs):
            folder.mkdir(mode=0o700, parents=True)
        environment = {
            "logFolder": str(self.logs),
            "configFolder": str(self.root / "config"),
            "statusFolder": str(self.root / "status"),
            "heartbeatFile": str(self.root / "heartbeat.log"),
        }
        entry = {"name": self.name, "version": 1.0, "handlerEnvironment": environment}
        (self.root / "HandlerEnvironment.json").write_text(json.dumps([entry]))
        self.manifest = json.loads((self.root / "HandlerManifest.json").read_text())[0]["handlerManifest"]

    def settle(self, sequence: int, public: Any = None, protected: dict[str, Any] | None = None) -> None:
        """Write a settings file; protected settings become an envelope."""
        settings = {
            "publicSettings": public,
            "protectedSettings": self.seal(protected) if protected is not None else None,
            "protectedSettingsCertThumbprint": THUMBPRINT if protected is not None else None,
        }
        path = self.root / "config" / f"{sequence}.settings"
        path.write_text(json.dumps({"runtimeSettings": [{"handlerSettings": settings}]}))

    def seal(self, protected: dict[str, Any]) -> str:
        """base64 of DER CMS EnvelopedData, to a certificate that lies where section 6 wants it."""
        crt, prv = self.lib / f"{THUMBPRINT}.crt", self.lib / f"{THUMBPRINT}.prv"
        if not crt.exists():
            request = [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=settings",
                "-days",
                "2",
            ]
            subprocess.run([*request, "-keyout", str(prv), "-out", str(crt)], check=True, capture_output=True)
        encrypt = ["openssl", "cms", "-encrypt", "-aes256", "-binary", "-outform", "DER", str(crt)]
        sealed = subprocess.run(encrypt, input=json.dumps(protected).encode(), check=True, capture_output=True).stdout
        return base64.b64encode(sealed).decode()

    def run(self, operation: str, sequence: int | None = None, **variables: str) -> tuple[int, str]:
        """Run a command of the manifest through a shell, streams to files; its exit code and standard error."""
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "AZURE_GUEST_AGENT_EXTENSION_PATH": str(self.root),
            "AZURE_GUEST_AGENT_EXTENSION_VERSION": self.version,
            **({"ConfigSequenceNumber": str(sequence)} if sequence is not None else {}),
            **self.variables,
            **variables,
        }
        command = f"{self.root}/{self.manifest[f'{operation}Command']}"
        errors = self.lib.parent / "stderr"
        with open(errors, "wb") as stderr:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
                check=False,
                timeout=100,
            )
        return done.returncode, errors.read_text()

    def enable(self, sequence: int, public: Any = None, protected: dict[str, Any] | None = None) -> tuple[int, str]:
        """New settings, and enable with them."""
        self.settle(sequence, public, protected)
        return self.run("enable", sequence)

    def status(self, sequence: int) -> dict[str, Any]:
        """The object `status` of a status file."""
        (entry,) = json.loads((self.root / "status" / f"{sequence}.status").read_text())
        found: dict[str, Any] = entry["status"]
        return found

    def message(self, sequence: int) -> str:
        """The message of a status file."""
        return str(self.status(sequence)["formattedMessage"]["message"])

    def ends(self, sequence: int, word: str | None = None, seconds: float = 30) -> dict[str, Any]:
        """The status as soon as it is `word`, or any that is final."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status(sequence)
            if status["status"] == word or (word is None and status["status"] in {"success", "error"}):
                return status
            time.sleep(0.05)
        pytest.fail(f"still {status}")

    def everything_written(self) -> str:
        """What stands in logs and status files."""
        files = [*self.logs.rglob("*"), *(self.root / "status").iterdir()]
        return "".join(path.read_text(errors="replace") for path in files if path.is_file())


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages."""
    out = tmp_path_factory.mktemp("handlers")
    argv = [sys.executable, str(ROOT / "packaging/build_packages.py"), "--out", str(out), "--only", "handlers"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return out


def _made(packages: Path, tmp_path: Path, name: str) -> Iterator[Instance]:
    lib = tmp_path / "waagent"
    lib.mkdir()
    made = Instance(lib, packages / f"{name}_1.0.0_linux.zip")
    yield made
    if (made.root / "HandlerEnvironment.json").exists():
        made.run("uninstall")


@pytest.fixture
def script(packages: Path, tmp_path: Path) -> Iterator[Instance]:
    """Hawser.CustomScript, not installed yet."""
    yield from _made(packages, tmp_path, "Hawser.CustomScript")


@pytest.fixture
def probe(packages: Path, tmp_path: Path) -> Iterator[Instance]:
    """Hawser.HealthProbe, not installed yet."""
    yield from _made(packages, tmp_path, "Hawser.HealthProbe")


def processes_of(root: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd").startswith(str(root)):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def nothing_runs(root: Path) -> None:
    """Nothing works in a folder any more. What a command had left behind and was killed goes in its own time."""
    until(lambda: not processes_of(root), lambda: f"{processes_of(root)} go on")

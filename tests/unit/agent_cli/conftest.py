# SPDX-License-Identifier: Apache-2.0
"""azcmagent as a real process on a machine below a temporary folder."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CHECKOUT = Path(__file__).resolve().parents[3]
GUID = "0b0c6a52-57f1-4f11-9d6d-0f3f9d1d2c3b"


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _no_space() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


class Machine:
    """A machine's files below `root`, and azcmagent on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "var/opt/azcmagent"
        for folder in ("clouds", "socks", "state", "log"):
            (self.state / folder).mkdir(parents=True)

    def run(self, *words: str, stdin: str | bytes = b"", user: int | None = None, full: bool = False) -> Done:
        """`full`: no file can grow, as on a disk without space."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        command = [sys.executable, "-m", "agent_runtime.cli", "--root", str(self.root), *words]
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        done = subprocess.run(
            command,
            check=False,
            input=content,
            capture_output=True,
            cwd=CHECKOUT,
            env=environment,
            user=user,
            preexec_fn=_no_space if full else None,
            timeout=120,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def profile(self, name: str = "demo", **changes: Any) -> dict[str, Any]:
        made = {
            "schema": 1,
            "name": name,
            # Port 1 is nobody's: connections are refused at once.
            "arm": "https://localhost:1",
            "authority": "https://localhost:1",
            "tenant_id": GUID,
            "channel": ["https://localhost:1/channel"],
            "artefacts": [],
            "gateway": None,
            "ca_pem": certificate(),
            "tuf_root": None,
            "locations": ["local", "North Site"],
            "desired_state_keys": [{"kid": "k", "kty": "OKP", "crv": "Ed25519", "x": "A" * 43}],
        }
        return {**made, **changes}

    def add_cloud(self, name: str = "demo", **changes: Any) -> None:
        (self.state / f"clouds/{name}.json").write_text(json.dumps(self.profile(name, **changes)))

    def files(self) -> dict[str, bytes]:
        """Everything on the machine but the log of what was called."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.name != "azcmagent.log"
        }

    @property
    def log(self) -> str:
        path = self.state / "log/azcmagent.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)

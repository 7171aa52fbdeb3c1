# SPDX-License-Identifier: Apache-2.0
"""A source of packages that can be made to misbehave: a TUF repository in memory behind HTTPS on 127.0.0.1.

Runs on Python 3.9 with cryptography 36, where python-tuf has no signers of its own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.server
import ipaddress
import ssl
import threading
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from securesystemslib.signer import Key, Signature, Signer, SSlibKey
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

ROLES = ("root", "targets", "snapshot", "timestamp")
BLOCK = 1 << 20
TARGET = "extensions/Hawser.Demo/1.0.0/linux.zip"


class Ed25519(Signer):
    """One key."""

    def __init__(self) -> None:
        self._key = ed25519.Ed25519PrivateKey.generate()
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self._public = SSlibKey(hashlib.sha256(raw).hexdigest(), "ed25519", "ed25519", {"public": raw.hex()})

    @property
    def public_key(self) -> Key:
        return self._public

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: Any = None) -> Ed25519:
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._public.keyid, self._key.sign(payload).hex())


def later(days: float) -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc).replace(microsecond=0) + dt.timedelta(days=days)  # noqa: UP017 - 3.9


class Source:
    """`files`: what is served, by path. `sabotage`: called with (path, start of the range) before an answer; gives a
    status, or how many bytes to send before the connection is cut."""

    def __init__(self, folder: Path) -> None:
        self.keys = {role: Ed25519() for role in ROLES}
        self.files: dict[str, bytes] = {}
        self.ranges: list[int | None] = []
        self.cut: list[int] = []
        self.status: dict[str, int] = {}
        self.ignores_ranges = False
        self.zeros: dict[str, int] = {}
        self.versions = dict.fromkeys(("targets", "snapshot", "timestamp"), 0)
        self.targets: dict[str, TargetFile] = {}
        self.root = self.publish_root(1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca_pem = certificate(folder)
        context.load_cert_chain(folder / "tls.pem")
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):  # whoever asked may have gone
                    source.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}/artefacts"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.replace("/artefacts/", "", 1)
        if path in self.zeros:
            request.send_response(200)
            request.send_header("Content-Length", str(self.zeros[path]))
            request.end_headers()
            for _ in range(self.zeros[path] // BLOCK):
                request.wfile.write(bytes(BLOCK))
            return
        content = self.files.get(path)
        status = self.status.get(path, 200 if content is not None else 404)
        if content is None or status != 200:
            request.send_error(status)
            return
        start = 0
        asked = request.headers.get("Range")
        if path.startswith("targets/"):
            self.ranges.append(int(asked[6:-1]) if asked else None)
        if asked and not self.ignores_ranges:
            start = int(asked[6:-1])
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        part = content[start:]
        request.send_header("Content-Length", str(len(part)))
        request.end_headers()
        if path.startswith("targets/") and self.cut:
            part = part[: self.cut.pop(0)]
        request.wfile.write(part)
        request.close_connection = True

    def publish_root(self, version: int, *also: Ed25519, days: float = 365) -> str:
        root = Root(version=version, expires=later(days), consistent_snapshot=True)
        for role, signer in self.keys.items():
            root.add_key(signer.public_key, role)
        made = Metadata(root)
        for signer in (self.keys["root"], *also):
            made.sign(signer, append=True)
        self.files[f"metadata/{version}.root.json"] = made.to_bytes()
        return made.to_bytes().decode()

    def add(self, content: bytes, path: str = TARGET, said: bytes | None = None) -> None:
        """Offer a package; `said`: the bytes that the metadata speaks of, if they are others."""
        self.targets[path] = TargetFile.from_data(path, content if said is None else said, ["sha256"])
        self.targets[path].unrecognized_fields["custom"] = {"kind": "extension", "version": "1.0.0"}
        above, _, name = path.rpartition("/")
        self.files[f"targets/{above}/{self.targets[path].hashes['sha256']}.{name}"] = content
        self.publish()

    def add_zeros(self, blocks: int, path: str = TARGET) -> None:
        """Offer so many blocks of nothing, which nobody holds in memory."""
        digest = hashlib.sha256()
        for _ in range(blocks):
            digest.update(bytes(BLOCK))
        self.targets[path] = TargetFile(blocks * BLOCK, {"sha256": digest.hexdigest()}, path)
        above, _, name = path.rpartition("/")
        self.zeros[f"targets/{above}/{digest.hexdigest()}.{name}"] = blocks * BLOCK
        self.publish()

    def publish(self, days: float = 7, versions: dict[str, int] | None = None) -> None:
        """New metadata of all that is offered; `versions`: these instead of the next ones."""
        self.versions = versions or {role: version + 1 for role, version in self.versions.items()}
        made = Metadata(Targets(version=self.versions["targets"], expires=later(365), targets=self.targets))
        listed = self._sign(made, "targets")
        self.files[f"metadata/{self.versions['targets']}.targets.json"] = listed
        meta = {"targets.json": MetaFile.from_data(self.versions["targets"], listed, ["sha256"])}
        snapshot = self._sign(
            Metadata(Snapshot(version=self.versions["snapshot"], expires=later(30), meta=meta)), "snapshot"
        )
        self.files[f"metadata/{self.versions['snapshot']}.snapshot.json"] = snapshot
        about = MetaFile.from_data(self.versions["snapshot"], snapshot, ["sha256"])
        timestamp = Timestamp(version=self.versions["timestamp"], expires=later(days), snapshot_meta=about)
        self.files["metadata/timestamp.json"] = self._sign(Metadata(timestamp), "timestamp")

    def _sign(self, made: Metadata[Any], role: str) -> bytes:
        made.sign(self.keys[role])
        return made.to_bytes()


def certificate(folder: Path) -> str:
    """tls.pem for 127.0.0.1 in a folder; the PEM of the certificate, which vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"source {folder.name} {id(folder)}")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(x509.random_serial_number())
    builder = builder.public_key(key.public_key()).not_valid_before(later(-1)).not_valid_after(later(30))
    builder = builder.add_extension(x509.BasicConstraints(True, 0), True)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    pem = builder.add_extension(names, False).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.pem").write_bytes(private + pem)
    return pem.decode()

# SPDX-License-Identifier: Apache-2.0
"""Receivers of notifications on 127.0.0.1: an HTTPS server with a certificate of its own CA, and a mail server with
STARTTLS. Both answer as they are told."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration import self_signed
from tests.integration.hub_process import free_port

SECRET = b"a secret of thirty-two characters"


def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key in one PEM file, which is also the CA to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = self_signed.certificate(key, "receiver", 1, serves=True)
    path = folder / "receiver.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def context(pem: Path) -> ssl.SSLContext:
    """The server's side of TLS."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(pem)
    return found


@dataclass
class Receiver:
    """A webhook's receiver. `status`: what it answers; `delay`: seconds before it does; `location`: of a redirect."""

    pem: Path
    status: int = 200
    delay: float = 0
    location: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: int = 0
    paths: set[str] = field(default_factory=set)
    port: int = 0
    server: ThreadingHTTPServer | None = None

    def start(self) -> Receiver:
        """Listen, on the port of the last time if there was one."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests += 1
                receiver.paths.add(self.path)
                time.sleep(receiver.delay)
                expected = hmac.new(SECRET, self.headers["Hawser-Timestamp"].encode() + b"." + raw, hashlib.sha256)
                signed = self.headers["Hawser-Signature"] == f"v1={expected.hexdigest()}"
                if receiver.status == 200:
                    receiver.bodies.append({**json.loads(raw), "signed": signed, "size": len(raw)})
                    receiver.headers.append(dict(self.headers.items()))
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        self.server.socket = context(self.pem).wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        """Listen no more."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that arrived, repeats included."""
        return [event for body in self.bodies for event in body["events"]]


class Mailbox:
    """A mail server that wants STARTTLS, and the user `hub` with the password `password`."""

    def __init__(self, pem: Path) -> None:
        self.port = free_port()
        self.mails: list[str] = []
        self.encrypted: list[bool] = []
        self.controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            tls_context=context(pem),
            require_starttls=True,
            auth_required=True,
            auth_require_tls=True,
            authenticator=self._check,
        )
        self.controller.start()

    @staticmethod
    def _check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"hub", b"password")
        return AuthResult(success=good, handled=False)  # so that the server itself answers

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep a mail."""
        self.mails.append(envelope.content.decode())
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    def stop(self) -> None:
        """End the server."""
        self.controller.stop()

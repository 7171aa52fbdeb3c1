# SPDX-License-Identifier: Apache-2.0
"""A channel before a hub's: it passes everything on, and answers `/v1/identity` and chosen check-ins as a test says."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.hub_process import HubProcess

Answer = tuple[int, dict[str, Any]]


class Relay:
    """`judge` answers questions, `admit` joins; `refuse`: answers in the hub's place, by verb. `retry_after`: seconds
    that go with every answer of 429 or above."""

    def __init__(self, hub: HubProcess, folder: Path) -> None:
        self.questions: list[dict[str, Any]] = []
        self.judge: Callable[[dict[str, Any]], Answer] = lambda _: (500, {"error": {"code": "x", "message": "x"}})
        self.refuse: dict[str, Answer] = {}
        self.retry_after: int | None = None
        self.joins: list[dict[str, Any]] = []
        self.admit: Callable[[dict[str, Any]], Answer] = lambda _: (500, {"error": {"code": "x", "message": "x"}})
        self.ca_pem = self._certificate(folder)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Tests are quiet."""

            def do_GET(self) -> None:
                outer.pass_on(hub, self, None)

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                verb = self.path.rpartition("/")[2]
                if verb == "identity":
                    question = json.loads(content)
                    outer.questions.append(question)
                    outer.answer(self, *outer.judge(question))
                elif verb == "join":
                    outer.joins.append(json.loads(content))
                    outer.answer(self, *outer.admit(outer.joins[-1]))
                elif verb in outer.refuse:
                    outer.answer(self, *outer.refuse[verb])
                else:
                    outer.pass_on(hub, self, content)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "relay.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}/channel"
        self._session = hub.session()

    def pass_on(self, hub: HubProcess, to: http.server.BaseHTTPRequestHandler, content: bytes | None) -> None:
        """What the hub answers, as it comes."""
        fields = {n: v for n, v in to.headers.items() if n.lower() in ("authorization", "content-type")}
        with (
            contextlib.suppress(OSError, requests.RequestException),
            self._session.request(
                to.command, hub.url + to.path, data=content, headers=fields, stream=True, timeout=400
            ) as answer,
        ):
            to.send_response(answer.status_code)
            for name in ("Content-Type", "Date", "Retry-After"):
                if name in answer.headers:
                    to.send_header(name, answer.headers[name])
            to.send_header("Transfer-Encoding", "chunked")
            to.end_headers()
            for block in answer.iter_content(None):
                to.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
                to.wfile.flush()
            to.wfile.write(b"0\r\n\r\n")

    def answer(self, to: http.server.BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        to.send_response(status)
        if status >= 429 and self.retry_after is not None:
            to.send_header("Retry-After", str(self.retry_after))
        to.send_header("Content-Length", str(len(content)))
        to.end_headers()
        to.wfile.write(content)

    @staticmethod
    def _certificate(folder: Path) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.now(UTC)
        import ipaddress

        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        pem = made.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "relay.pem").write_bytes(private + pem)
        return pem.decode("ascii")


@contextlib.contextmanager
def relayed(hub: HubProcess, folder: Path) -> Iterator[Relay]:
    """A relay that serves until the block ends."""
    relay = Relay(hub, folder)
    thread = threading.Thread(target=relay.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.server.shutdown()
        relay.server.server_close()
        thread.join(10)


def refused(status: int, code: str, **body: Any) -> Answer:
    """An error of the hub, with members beside it."""
    return status, {"error": {"code": code, "message": f"{code}."}, **body}

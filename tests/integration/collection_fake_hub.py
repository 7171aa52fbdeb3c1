# SPDX-License-Identifier: Apache-2.0
"""An HTTPS server with the paths of a hub that answers what a hub in trouble, or what stands before it, answers."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration import self_signed


@dataclass
class Answer:
    """`cut`: the answer breaks off in its middle. `{url}` in the body becomes the server's address."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class FakeHub:
    """Gives a token to anybody, and one answer of `answers` after the other, the last one for ever."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: Any) -> Answer:  # noqa: ARG002 - asked alone
        """The answer to a request."""
        if path.endswith("/oauth2/v2.0/token"):
            return Answer(200, {"access_token": "fake", "token_type": "Bearer", "expires_in": 3600})
        self.asked.append(path)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = self_signed.certificate(key, "fake hub", 1, serves=True)
    crt, pem = directory / "fake.crt", directory / "fake.key"
    crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption = serialization.NoEncryption()
    pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return crt, pem


@contextlib.contextmanager
def fake_hub(directory: Path, answers: FakeHub | None = None) -> Iterator[tuple[FakeHub, dict[str, str]]]:
    """A server, and the variables of a controller that takes it for its hub."""
    made = answers or FakeHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = json.loads(raw) if self.headers.get("Content-Type") == "application/json" else None
            answer = made.answer(self.command, self.path, sent)
            # 204 has no body, and whoever announces one breaks off.
            body = b"" if answer.status == 204 else json.dumps(answer.body).replace("{url}", made.url).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value.replace("{url}", made.url))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if answer.cut else body)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names are http.server's

        def log_message(self, *args: Any) -> None:
            """Keep the test's output clean."""

    crt, key = _certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    made.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield (
            made,
            {
                "HAWSER_ARM": made.url,
                "HAWSER_AUTHORITY": made.url,
                "HAWSER_TENANT_ID": "tenant",
                "HAWSER_CA_FILE": str(crt),
                "HAWSER_CLIENT_ID": "client",
                "HAWSER_CLIENT_SECRET": "hush-hush",
            },
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

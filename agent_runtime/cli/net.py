# SPDX-License-Identifier: Apache-2.0
"""Short HTTPS exchanges of the command line: the token of a service principal, the probes of `check`.

himds speaks to the hub for the machine; this speaks for the person at the keyboard. The only CA is the profile's
(protocol section 2).
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from agent_runtime.hub.proxy import reason

BODY_LIMIT = 1024 * 1024


class UnreachableError(Exception):
    """No answer. `stage` is `proxy`, `dns`, `tcp`, `tls` or `http`; the text says why in a few words."""

    def __init__(self, stage: str, why: str):
        super().__init__(why)
        self.stage = stage


class Answer(NamedTuple):
    status: int
    body: bytes
    date: str | None
    retry_after: str | None


class Contact(NamedTuple):
    """A TLS connection to an endpoint. `address` is the peer's (the proxy's, if there is one)."""

    stream: ssl.SSLSocket
    address: str
    tls: str


def trust(profile: Mapping[str, Any]) -> ssl.SSLContext:
    """A context that believes the profile's CA and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=profile["ca_pem"])
    return context


def origin(url: str) -> tuple[str, int]:
    """Host and port of an https URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 443


def connect(url: str, context: ssl.SSLContext, proxy: str | None, timeout: float) -> Contact:
    """A verified TLS connection, through `proxy` (http://host:port) when it is given. Errors: UnreachableError."""
    host, port = origin(url)
    at_host, at_port = host, port
    if proxy:
        parts = urlsplit(proxy)
        at_host, at_port = parts.hostname or "", parts.port or 80
    stage = "proxy" if proxy else "dns"
    try:
        addresses = socket.getaddrinfo(at_host, at_port, type=socket.SOCK_STREAM)
        stage = "proxy" if proxy else "tcp"
        plain = socket.create_connection((at_host, at_port), timeout)
    except (OSError, UnicodeError) as problem:
        raise UnreachableError(stage, _words(problem)) from None
    try:
        plain.settimeout(timeout)
        if proxy:
            _tunnel(plain, host, port, proxy)
        stage = "tls"
        stream = context.wrap_socket(plain, server_hostname=host)
    except (OSError, ValueError) as problem:
        plain.close()
        raise UnreachableError(stage, _words(problem)) from None
    return Contact(stream, str(addresses[0][4][0]), stream.version() or "unknown")


def exchange(
    contact: Contact, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One request on `contact`, which is closed afterwards. Errors: UnreachableError."""
    host, port = origin(url)
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(host, port)
    connection.sock = contact.stream
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, {"Accept": "application/json", **(headers or {})})
        response = connection.getresponse()
        content = response.read(BODY_LIMIT + 1)
        if len(content) > BODY_LIMIT:
            raise UnreachableError("http", "the answer is too long")
        return Answer(response.status, content, response.getheader("Date"), response.getheader("Retry-After"))
    except (OSError, http.client.HTTPException) as problem:
        raise UnreachableError("http", _words(problem)) from None
    finally:
        connection.close()


def _words(problem: Exception) -> str:
    if isinstance(problem, OSError):
        return reason(problem)
    return "the other side does not speak HTTP" if isinstance(problem, http.client.HTTPException) else str(problem)


def _tunnel(plain: socket.socket, host: str, port: int, proxy: str) -> None:
    parts = urlsplit(proxy)
    bracketed = f"[{host}]" if ":" in host else host
    head = f"CONNECT {bracketed}:{port} HTTP/1.1\r\nHost: {bracketed}:{port}\r\n"
    if parts.username is not None:
        import base64

        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        head += f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
    plain.sendall(f"{head}\r\n".encode("ascii"))
    answer = b""
    # One byte at a time: what follows the head belongs to TLS.
    while not answer.endswith(b"\r\n\r\n") and len(answer) < 16384:
        letter = plain.recv(1)
        if not letter:
            break
        answer += letter
    words = answer.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or words[1] != b"200":
        status = words[1].decode("ascii", "replace") if len(words) > 1 else "nothing"
        raise OSError(0, f"the proxy answered {status} to CONNECT")

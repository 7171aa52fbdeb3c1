# SPDX-License-Identifier: Apache-2.0
"""HTTPS to the hub for residents: one trusted CA, kept connections, proxy by CONNECT. Nothing of the hub's meaning
is here."""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Union
from urllib.parse import unquote, urlsplit

from agent_runtime import errors
from agent_runtime.hub.proxy import reason
from agent_runtime.service import http, worker
from agent_runtime.service.loop import Loop, Timeout, TimeoutExpired, readable, writable

CONNECT_SECONDS = 20.0
REQUEST_SECONDS = 60.0
BODY_LIMIT = 4 * 1024 * 1024
# The hub says something every 30 s of a hold: after twice that the kernel asks whether it is still there.
PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
Plain = Union[socket.socket, ssl.SSLSocket]


class Broken(Exception):
    """The connection failed before an answer came. The text says why in a few words."""


class Answer:
    """A whole answer. `date` is the header as sent."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Connection:
    """One TLS connection to an origin; one exchange at a time."""

    def __init__(self, stream: ssl.SSLSocket, authority: str) -> None:
        self._stream = stream
        self._authority = authority
        self._buffer = b""
        self.reused = False
        self.open = True

    async def begin(self, method: str, target: str, fields: dict[str, str], body: bytes) -> http.Response:
        """Send a request and wait for the head of its answer. Errors: Broken."""
        await self._send(http.request_bytes(method, target, self._authority, fields, body))
        while True:
            try:
                found = http.parse_response(self._buffer)
            except http.HttpError as error:
                self.close()
                raise Broken(f"the answer is no HTTP: {error}") from None
            if found is not None and found[0].status < 200:
                self._buffer = self._buffer[found[1] :]
                continue
            if found is not None:
                response, length = found
                self._buffer = self._buffer[length:]
                self._reader = http.BodyReader(response)
                self._last = "close" in response.headers.get("connection", "").lower()
                return response
            await self._more()

    async def body(self) -> bytes:
        """The body of the answer that `begin` gave the head of. Errors: Broken."""
        parts: list[bytes] = []
        size = 0
        try:
            while not self._reader.done:
                if self._buffer:
                    data, self._buffer = self._buffer, b""
                    parts.append(self._reader.feed(data))
                    size += len(parts[-1])
                    if size > BODY_LIMIT:
                        raise http.HttpError(413, "the answer is too long")
                    continue
                try:
                    await self._more()
                except Broken:
                    self._reader.end()
        except http.HttpError as error:
            self.close()
            raise Broken(str(error)) from None
        if self._last or self._reader.until_close or self._buffer:
            self.close()
        return b"".join(parts)

    async def _send(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            try:
                view = view[self._stream.send(view) :]
            except ssl.SSLWantWriteError:
                await writable(self._stream)
            except ssl.SSLWantReadError:
                await readable(self._stream)
            except OSError as error:
                self.close()
                raise Broken(reason(error)) from None

    async def _more(self) -> None:
        while True:
            try:
                block = self._stream.recv(65536)
            except ssl.SSLWantReadError:
                await readable(self._stream)
                continue
            except ssl.SSLWantWriteError:
                await writable(self._stream)
                continue
            except OSError as error:
                self.close()
                raise Broken(reason(error)) from None
            if not block:
                self.close()
                raise Broken("the hub closed the connection")
            self._buffer += block
            return

    def close(self) -> None:
        if self.open:
            self.open = False
            self._stream.close()


def trusting(ca_pem: str) -> ssl.SSLContext:
    """TLS that believes these CAs and no other. Errors: CloudNotObtained."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError):
        raise errors.CloudNotObtained("the cloud profile's ca_pem holds no certificate") from None
    return context


class Transport:
    """Connections to the origins of one cloud profile. `proxy` (http://[user:password@]host:port) or None for each
    call."""

    def __init__(self, loop: Loop, ca_pem: str) -> None:
        self._loop = loop
        self._context = trusting(ca_pem)
        self._idle: dict[tuple[str, str | None], Connection] = {}

    def trust(self, ca_pem: str) -> None:
        """Believe these CAs, and no other, from the next connection on. Errors: AZCM0075; nothing is changed then."""
        self._context = trusting(ca_pem)

    async def request(
        self,
        method: str,
        url: str,
        fields: Mapping[str, str],
        body: bytes = b"",
        proxy: str | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """A whole exchange. Errors: NetworkFailed. A kept connection that has died meanwhile is replaced once."""
        try:
            with Timeout(self._loop, seconds):
                connection, response = await self.begin(method, url, fields, body, proxy)
                try:
                    content = await connection.body()
                except BaseException:
                    connection.close()
                    raise
                self.give_back(url, proxy, connection)
                return Answer(response.status, response.headers, content)
        except TimeoutExpired:
            raise errors.NetworkFailed(f"{_origin(url)} did not answer within {seconds:g} s") from None
        except Broken as error:
            raise errors.NetworkFailed(f"{_origin(url)} cannot be reached: {error}") from None

    async def begin(
        self, method: str, url: str, fields: Mapping[str, str], body: bytes = b"", proxy: str | None = None
    ) -> tuple[Connection, http.Response]:
        """An exchange up to the head of the answer; the body is the caller's. Errors: Broken, NetworkFailed."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self._idle.pop((_origin(url), proxy), None)
        if connection is None or not connection.open:
            connection = await self._connect(url, proxy)
        try:
            return connection, await connection.begin(method, target, dict(fields), body)
        except Broken:
            if not connection.reused:
                raise
        except BaseException:
            connection.close()
            raise
        connection = await self._connect(url, proxy)
        try:
            return connection, await connection.begin(method, target, dict(fields), body)
        except BaseException:
            connection.close()
            raise

    def give_back(self, url: str, proxy: str | None, connection: Connection) -> None:
        """Keep a connection whose body was read to the end; one for each origin."""
        if not connection.open:
            return
        connection.reused = True
        known = self._idle.get((_origin(url), proxy))
        if known is not None and known.open:
            connection.close()
            return
        self._idle[_origin(url), proxy] = connection

    def close(self) -> None:
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()

    async def _connect(self, url: str, proxy: str | None) -> Connection:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        plain: Plain | None = None
        try:
            with Timeout(self._loop, CONNECT_SECONDS):
                if proxy:
                    at = urlsplit(proxy)
                    plain = await self._dial(at.hostname or "", at.port or 80)
                    await _tunnel(plain, host, port, at.username, at.password)
                else:
                    plain = await self._dial(host, port)
                stream = self._context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
                plain = stream
                await _handshake(stream)
        except TimeoutExpired:
            _close(plain)
            raise Broken(f"no connection within {CONNECT_SECONDS:g} s") from None
        except OSError as error:
            _close(plain)
            raise Broken(reason(error)) from None
        except BaseException:
            _close(plain)
            raise
        return Connection(stream, f"{bracketed(host)}:{port}")

    async def _dial(self, host: str, port: int) -> socket.socket:
        problem: OSError | None = None
        for family, address in await self._addresses(host, port):
            plain = socket.socket(family, socket.SOCK_STREAM)
            try:
                plain.setblocking(False)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in PROBES.items():
                    if hasattr(socket, name):
                        plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    plain.connect((address, port))
                except BlockingIOError:
                    await writable(plain)
                code = plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                return plain
            except OSError as error:
                plain.close()
                problem = error
            except BaseException:
                plain.close()
                raise
        raise problem or OSError("the name has no address")

    async def _addresses(self, host: str, port: int) -> list[tuple[int, str]]:
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, host)
            except OSError:
                continue
            return [(family, host)]
        found = await worker.run(self._loop, "resolve", {"host": host, "port": port}, 30)
        return [(family, address) for family, address in found["addresses"]]


def _close(plain: Plain | None) -> None:
    if plain is not None:
        plain.close()


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _handshake(stream: ssl.SSLSocket) -> None:
    while True:
        try:
            stream.do_handshake()
            return
        except ssl.SSLWantReadError:
            await readable(stream)
        except ssl.SSLWantWriteError:
            await writable(stream)


async def _tunnel(plain: socket.socket, host: str, port: int, user: str | None, password: str | None) -> None:
    fields = {}
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}".encode()
        fields["Proxy-Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
    target = f"{bracketed(host)}:{port}"
    plain.send(http.request_bytes("CONNECT", target, target, fields, b""))
    answer = b""
    while True:
        await readable(plain)
        # Only as far as the head goes: what follows belongs to TLS, and nothing follows before our hello.
        block = plain.recv(4096)
        if not block:
            raise Broken("the proxy closed the connection")
        answer += block
        try:
            found = http.parse_response(answer)
        except http.HttpError as error:
            raise Broken(f"the proxy does not speak HTTP: {error}") from None
        if found is not None:
            if not 200 <= found[0].status < 300:
                raise Broken(f"the proxy refused with status {found[0].status}")
            return


def decoded(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; empty when there is none."""
    import json

    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

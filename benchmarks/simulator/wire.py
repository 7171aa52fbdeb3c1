# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 connection over TLS, kept alive, one exchange at a time. httptools parses, asyncio carries."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

MAX_ANSWER = 8 * 1024 * 1024


class Broken(ConnectionError):
    """The connection could not be made, or ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, header fields (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """Made by `connect`. `head`: called when the head of the answer has come, as the agent counts its heartbeat."""

    def __init__(self) -> None:
        self.alive = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._head: Callable[[int], None] | None = None

    async def exchange(
        self, method: str, path: str, fields: Mapping[str, str], body: bytes, head: Callable[[int], None] | None = None
    ) -> Answer:
        """Send a request and wait for the whole answer.

        Errors: Broken.
        """
        if not self.alive or self._transport is None or self._waiter is not None:
            raise Broken("the connection is closed or in use")
        self._begin()
        self._head = head
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._transport.write(
            f"{method} {path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
        )
        try:
            return await waiter
        except asyncio.CancelledError:
            self.close()  # what still comes belongs to nobody
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        """End the connection at once."""
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.alive = True

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(Broken(f"this is not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Broken(f"the connection was lost: {exc or 'closed by the hub'}"))

    def _end(self, error: Broken) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.abort()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._head is not None:
            self._head(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_ANSWER:
            self._end(Broken("the answer is too long"))

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.alive = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Answer(self._parser.get_status_code(), self._headers, bytes(self._body)))
        if not self.alive and self._transport is not None:
            self._transport.close()


def trust(ca_file: str) -> ssl.SSLContext:
    """TLS 1.2 and newer that trusts one CA file alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca_file)
    return context


async def connect(url: str, context: ssl.SSLContext, seconds: float) -> Connection:
    """A connection to the origin of a URL.

    Errors: Broken, also when it takes longer than `seconds`.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            _, made = await loop.create_connection(
                Connection, parts.hostname or "", parts.port or 443, ssl=context, server_hostname=parts.hostname
            )
    except (OSError, TimeoutError) as error:
        raise Broken(f"no connection to {url}: {str(error) or type(error).__name__}") from error
    return made

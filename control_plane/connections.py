# SPDX-License-Identifier: Apache-2.0
"""What one connection may cost: size and time of a request's head, how long nothing is taken of an answer, and how many
connections there may be.

uvicorn bounds none of these by itself. A head is at most MAX_HEAD bytes and must be whole HEAD_SECONDS after the
connection, or its own first byte, began; whoever drips is cut off. Above `most` connections a new one is closed at
once: what is held already stays. What a crowd needed goes back to the system when it has left.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import resource
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
HEAD_SECONDS = 20.0
UNTAKEN_SECONDS = 60.0
"""Who takes nothing of what is sent to him for so long is cut off; one who reads slowly is not."""
TELL_SECONDS = 10.0
"""At most one line in the log for refused connections in this time: who floods must not fill the disk."""
RESERVED_FILES = 256
"""Descriptors kept back for the database, logs and workers."""
CROWD = 1000
"""So many connections, when most of them have gone, leave memory worth giving back."""
TRIM_SECONDS = 5.0
log = logging.getLogger("hawser.hub")


def raise_file_limit() -> int:
    """Take all the descriptors this process may have. Returns how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(hard - RESERVED_FILES, 64)


def bound_untaken(listening: socket.socket) -> None:
    """Have the kernel end connections of this socket whose other side takes nothing for UNTAKEN_SECONDS, whether it
    does not read or does not answer any more (tcp(7), TCP_USER_TIMEOUT; accepted sockets inherit it). It alone knows:
    below TLS there are buffers whose filling uvloop does not tell. A held check-in is sent a blank every 30 s: an agent
    that is out of reach for longer loses its connection, finds that out by its own probes, and makes another."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNTAKEN_SECONDS * 1000))


class Refused:
    """Refused connections since the last line in the log."""

    def __init__(self) -> None:
        self._count, self._told = 0, float("-inf")

    def note(self, most: int, at: float) -> None:
        """One more. `at`: seconds of the loop's clock."""
        self._count += 1
        if at - self._told >= TELL_SECONDS:
            log.warning("More than %d connections: new ones refused since this was told last: %d.", most, self._count)
            self._count, self._told = 0, at


class Tide:
    """The most connections there have been since memory was given back last."""

    def __init__(self) -> None:
        self._most = 0

    def rise(self, count: int) -> None:
        """One more, and so there are `count`."""
        self._most = max(self._most, count)

    def ebbed(self, count: int) -> bool:
        """Whether a crowd has gone but for `count`; true once for each."""
        if self._most < CROWD or count > self._most // 4:
            return False
        self._most = count
        return True


def give_back() -> None:
    """Return freed memory to the system. glibc keeps what lies between pieces still in use: after 18,000 connections
    that is more than half a GiB, and the next crowd's pieces fit it badly."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and need none
    if trim is not None:
        trim(0)


class _TooLargeError(Exception):
    """A head with more than MAX_HEAD bytes."""


class Guarded(HttpToolsProtocol):
    """uvicorn's protocol with bounds. `most`: connections of the process."""

    most = 1 << 20
    refused = Refused()
    tide = Tide()
    _head = 0
    _fields = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse what is too many; begin to wait for the first head."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self.refused.note(self.most, self.loop.time())
            self.loop.call_soon(transport.abort)  # not within the handshake that made it
            return
        self.tide.rise(len(self.connections))
        self._begin_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._end_deadline()
        super().connection_lost(exc)
        if self.tide.ebbed(len(self.connections)):
            self.loop.call_later(TRIM_SECONDS, self.loop.run_in_executor, None, give_back)

    def on_message_begin(self) -> None:
        """A head begins, maybe within bytes that began with the end of another message."""
        super().on_message_begin()
        self._fields = 0

    def on_url(self, url: bytes) -> None:
        """Count a piece of the address."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field, of a trailer too, with its colon, blank and end of line."""
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def _count(self, size: int) -> None:
        """What is parsed is counted beside what is received: a head that is whole in one piece is seen here alone."""
        self._fields += size
        if self._fields > MAX_HEAD:
            raise _TooLargeError  # ends the parser, which has send_400_response called

    def on_headers_complete(self) -> None:
        """The head ended within its limits."""
        self._in_head = False
        self._end_deadline()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser did not take."""
        if self._fields > MAX_HEAD:
            self._refuse_large()
        else:
            super().send_400_response(msg)

    def on_message_complete(self) -> None:
        """The next bytes begin another head."""
        super().on_message_complete()
        self._in_head, self._head = True, 0

    def data_received(self, data: bytes) -> None:
        """Count what comes before the end of the head, and refuse too much of it."""
        self._head += len(data)
        super().data_received(data)  # sets the count to 0 when a message ends within these bytes
        if not self._in_head or self.transport.is_closing():
            return
        if self._head > MAX_HEAD:
            self._refuse_large()
        elif self._head and self._deadline is None:
            self._begin_deadline()

    def _begin_deadline(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self._in_head or self.transport.is_closing():
            return
        if self._head:
            self._refuse("408 Request Timeout", "RequestTimeout", f"did not end within {HEAD_SECONDS:g} seconds")
        else:
            self.transport.close()

    def _refuse_large(self) -> None:
        self._refuse("431 Request Header Fields Too Large", "RequestHeaderFieldsTooLarge", "is too large")

    def _refuse(self, status: str, code: str, why: str) -> None:
        body = f'{{"error":{{"code":"{code}","message":"The head of the request {why}."}}}}'.encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def guarded(most: int) -> type[Guarded]:
    """The protocol with this bound."""
    return type("Guarded", (Guarded,), {"most": most, "refused": Refused(), "tide": Tide()})

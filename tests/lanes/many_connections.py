# SPDX-License-Identifier: Apache-2.0
"""Opens many TLS connections to a hub and keeps them, as a process of its own: one alone may not have files enough.

One line of JSON on standard output when every connection was tried; then it waits for a line on standard input, and
writes another one when the hub has ended all that were open.
Kinds, in turn: `body` sends a head and one byte of a body; `drip` sends its head byte by byte, and never ends it;
`silent` sends nothing. Until every connection was tried, bodies are ended and begun anew before the hub loses its
patience, so that all of them are open at once however long that takes.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import ssl
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import uvloop

KINDS = ("drip", *["body"] * 39, "silent", *["body"] * 39)
AT_ONCE = 100  # handshakes under way
PER_ADDRESS = 2000  # connections from one source address, far fewer than it has ports
DRIP_SECONDS = 5.0
RENEW_SECONDS = 30.0
SETTLE_SECONDS = 2.0  # the hub's closing of what is too many
HEAD = b"POST /channel/v1/report HTTP/1.1\r\nHost: x\r\n"
BODY = b"Content-Type: application/json\r\nContent-Length: 64\r\n\r\n{"
REST = b" " * 63  # no JSON: an answer at once


@dataclass
class Tally:
    """`refused`: not opened, or closed without an answer. `ends`: kind and last status of the others. `more`: some are
    still to be tried."""

    more: bool = True
    refused: int = 0
    open: int = 0
    ends: collections.Counter[str] = field(default_factory=collections.Counter)


class Client(asyncio.Protocol):
    """One connection, to its end."""

    def __init__(self, kind: str, tally: Tally) -> None:
        self.kind, self.tally, self.status = kind, tally, ""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Begin what this kind does."""
        self.transport = transport
        self.tally.open += 1
        if self.kind == "body":
            transport.write(HEAD + BODY)
            asyncio.get_running_loop().call_later(RENEW_SECONDS, self._renew)
        elif self.kind == "drip":
            transport.write(HEAD)
            asyncio.get_running_loop().call_later(DRIP_SECONDS, self._drip)

    def _drip(self) -> None:
        if not self.ended.done():
            self.transport.write(b"x")
            asyncio.get_running_loop().call_later(DRIP_SECONDS, self._drip)

    def _renew(self) -> None:
        if self.tally.more and not self.ended.done():
            self.transport.write(REST)
            asyncio.get_running_loop().call_later(RENEW_SECONDS, self._renew)

    def data_received(self, data: bytes) -> None:
        """The hub's answer: 400 to a body that was ended, and another is begun; anything else is the last."""
        status = data.removeprefix(b"HTTP/1.1 ")[:3].decode("latin-1")
        if data.startswith(b"HTTP/1.1 "):
            self.status = status
            if self.kind == "body" and status == "400":
                self.transport.write(HEAD + BODY)

    def connection_lost(self, _error: Exception | None) -> None:
        """Refused, when it was never answered and should have been."""
        self.tally.open -= 1
        if self.status or self.kind == "silent":
            self.tally.ends[f"{self.kind} {self.status or 'closed'}"] += 1
        else:
            self.tally.refused += 1
        self.ended.set_result(None)


async def run(host: str, port: int, ca: str, count: int, first: int) -> None:
    """`first`: of the source addresses 127.0.0.N."""
    context = ssl.create_default_context(cafile=ca)
    loop, tally, gate = asyncio.get_running_loop(), Tally(), asyncio.Semaphore(AT_ONCE)
    kept: list[asyncio.Future[None]] = []

    async def one(number: int) -> None:
        async with gate:
            source = (f"127.0.0.{first + number // PER_ADDRESS}", 0)
            client = Client(KINDS[number % len(KINDS)], tally)
            opening: Coroutine[Any, Any, Any] = loop.create_connection(
                lambda: client, host, port, ssl=context, local_addr=source
            )
            try:
                await opening
            except (OSError, EOFError):
                tally.refused += 1
                return
            kept.append(client.ended)

    await asyncio.gather(*(one(number) for number in range(count)))
    await asyncio.sleep(SETTLE_SECONDS)
    _tell({"open": tally.open, "refused": tally.refused})
    await asyncio.to_thread(sys.stdin.readline)  # the other processes have tried theirs too
    tally.more = False
    await asyncio.gather(*kept)
    _tell({"refused": tally.refused, "ends": tally.ends})


def _tell(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("ca")
    for name in ("port", "count", "first"):
        parser.add_argument(name, type=int)
    given = parser.parse_args()
    uvloop.run(run(given.host, given.port, given.ca, given.count, given.first))

# SPDX-License-Identifier: Apache-2.0
"""Events as they happen: server-sent events (WHATWG HTML, section 9.2) with ids, so that a reader goes on where it was.

An event may come twice, never not at all: a reader that fell behind, or comes back with `Last-Event-ID`, is served from
the table.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response, StreamingResponse

from control_plane.api import events
from control_plane.api.events import EventFilter
from control_plane.arm import scopes
from control_plane.arm.roles import Caller
from control_plane.call import HubCall
from control_plane.callers import authenticate
from control_plane.clock import now
from control_plane.errors import ApiError, HubError
from control_plane.fleet.bus import Event, Subscription
from control_plane.fleet.events import event_json
from control_plane.fleet.filters import bad_parameter
from control_plane.hub import Hub

PARAMETERS = (*events.FILTERS, "after")
HEARTBEAT = 20.0
CATCH_UP = 500
MAX_STREAMS = 1000
MAX_OF_ONE = 20
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_open: Counter[str] = Counter()

Authorise = Callable[[], Caller]
"""Who reads, looked up anew; raises ApiError when it may no longer."""


@dataclass
class _Reader:
    """One open stream. `last`: the highest id sent; `sent`: those sent since the last catching up."""

    hub: Hub
    wanted: EventFilter
    authorise: Authorise
    seen: Sequence[str]
    last: int | None
    sent: set[int]

    def _read(self, last: int) -> list[dict[str, Any]]:
        with self.hub.database.read() as session:
            return [event_json(row) for row in events.after(session, self.wanted, self.seen, last, CATCH_UP)]

    async def catch_up(self) -> AsyncIterator[bytes]:
        """What the table holds behind `last`."""
        if self.last is None:
            return
        while found := await asyncio.to_thread(self._read, self.last):
            for item in found:
                self.last = max(self.last, item["id"])
                self.sent.add(item["id"])
                yield written(item)

    async def heard(self, event: Event) -> AsyncIterator[bytes]:
        """What an event on the bus means for this reader."""
        if event.kind == "missed":
            async for chunk in self.catch_up():
                yield chunk
            return
        item = event.data
        if "id" not in item or item["id"] in self.sent:
            return
        if len(self.sent) > 4 * CATCH_UP:
            self.sent.clear()
        if self.wanted.takes(item) and scopes.shown(tuple(self.seen), item["resourceId"]):
            self.sent.add(item["id"])
            yield written(item)
        self.last = max(self.last or 0, item["id"])

    async def renew(self) -> bool:
        """False when the reader may read no more."""
        try:
            caller = await asyncio.to_thread(self.authorise)
            self.seen = events.readable(caller, self.wanted)
        except HubError:
            return False
        return True


def written(item: Mapping[str, Any]) -> bytes:
    """One event of the stream. JSON has no line ends in it, so nothing in a name can begin a field."""
    data = json.dumps(item, separators=(",", ":"))
    return f"id: {item['id']}\nevent: {item['kind']}\ndata: {data}\n\n".encode()


def last_id(headers: Mapping[str, str], query: Mapping[str, str]) -> int | None:
    """`Last-Event-ID`, else the parameter `after`, for those who cannot set headers.

    Errors: ApiError 400.
    """
    text = headers.get("last-event-id") or query.get("after")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise bad_parameter("after", "must be the id of an event")
    return int(text)


def _check_room(name: str) -> None:
    if sum(_open.values()) >= MAX_STREAMS or _open[name] >= MAX_OF_ONE:
        raise ApiError(
            429,
            "TooManyRequests",
            f"There are too many open streams; at most {MAX_OF_ONE} for each caller.",
            headers={"Retry-After": "20"},
        )


async def _next(subscription: Subscription) -> Event | None:
    """The next event, or None when there was none for HEARTBEAT seconds."""
    try:
        async with asyncio.timeout(HEARTBEAT):
            return await anext(subscription)
    except TimeoutError:
        return None


async def _chunks(reader: _Reader, name: str) -> AsyncIterator[bytes]:
    _open[name] += 1
    try:
        async with reader.hub.bus.subscribe() as subscription:
            yield b"retry: 3000\n: hawser\n\n"
            async for chunk in reader.catch_up():
                yield chunk
            loop = asyncio.get_running_loop()
            checked = loop.time()
            while True:
                try:
                    event = await _next(subscription)
                except StopAsyncIteration:
                    return
                if loop.time() - checked >= HEARTBEAT:
                    checked = loop.time()
                    if not await reader.renew():
                        return
                if event is None:
                    yield b": \n\n"
                    continue
                async for chunk in reader.heard(event):
                    yield chunk
    finally:
        _open[name] -= 1
        if not _open[name]:
            del _open[name]


def open_stream(call: HubCall) -> Response:
    """GET /hawser/v1/events/stream, by bearer token.

    Errors: ApiError 400, 403, 429.
    """

    def authorise() -> Caller:
        with call.hub.database.read() as session:
            return authenticate(call.hub, session, call.http.headers.get("authorization"), now(), tickets=False)

    return respond(call.hub, call.caller, authorise, call.query, call.http.headers)


def respond(
    hub: Hub, caller: Caller, authorise: Authorise, query: Mapping[str, str], headers: Mapping[str, str]
) -> Response:
    """The stream for a caller, by token or by session; names of `query` and `headers` in lower case. `authorise` is
    asked again every HEARTBEAT seconds.

    Errors: ApiError 400, 403, 429.
    """
    wanted = events.read_filter(query)
    reader = _Reader(hub, wanted, authorise, events.readable(caller, wanted), last_id(headers, query), set())
    _check_room(caller.object_id)
    return StreamingResponse(_chunks(reader, caller.object_id), media_type="text/event-stream", headers=_HEADERS)

# SPDX-License-Identifier: Apache-2.0
"""Events inside one hub process: whoever changes something publishes, whoever shows it subscribes.

A slow subscriber loses its oldest events and is told so; it never holds up the publisher.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

QUEUE = 256


@dataclass(frozen=True)
class Event:
    """`kind`: `machine.created`, `machine.deleted`, `machine.changed`, `machine.status`, `missed` and others;
    `resource_id`: the machine's, or empty; `at`: Unix seconds."""

    kind: str
    resource_id: str
    at: int
    data: Mapping[str, Any] = field(default_factory=dict)


class Subscription:
    """An iterator of events from the moment of subscribing until the bus ends."""

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._missed = 0
        self._ended = False

    def end(self) -> None:
        """Loop only: what is queued is still given out."""
        self._ended = True
        self._filled.set()

    def put(self, event: Event) -> None:
        """Loop only."""
        if len(self._queue) >= QUEUE:
            self._queue.popleft()
            self._missed += 1
        self._queue.append(event)
        self._filled.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return Event("missed", "", self._queue[0].at, {"count": missed})
        return self._queue.popleft()


class Bus:
    """One for each process, bound to its event loop by `start`. Before that, and after the loop's end, events go
    nowhere: there is nobody to see them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscribers: set[Subscription] = set()
        self._ended = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind to the loop that subscribers run on."""
        self._loop = loop

    def publish(self, event: Event) -> None:
        """From any thread; returns at once."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber.put(event)

    def stop(self) -> None:
        """Loop only: the hub is going down."""
        self._ended = True
        for subscriber in self._subscribers:
            subscriber.end()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Subscription]:
        """A subscription for the life of the block."""
        subscription = Subscription()
        self._subscribers.add(subscription)
        if self._ended:
            subscription.end()
        try:
            yield subscription
        finally:
            self._subscribers.discard(subscription)

# SPDX-License-Identifier: Apache-2.0
"""A small loop on `selectors` that drives coroutines. No threads, no polling: it sleeps until a socket, a timer or a
signal.

`async def` functions await the primitives below (`readable`, `writable`, `sleep`, `Event.wait`); `Loop.spawn` runs
them side by side, `Timeout` bounds them, `Task.cancel` ends them at their next wait. One loop a process.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Optional, Union

Fd = Union[int, Any]
Resume = Callable[[Optional[BaseException]], None]


class Cancelled(BaseException):
    """Thrown into a task that is to end; not an Exception, so that `except Exception` lets it pass."""


class TimeoutExpired(Exception):
    """The time of a `Timeout` block is over."""


class Timer:
    """An entry of the loop's heap; `cancel` makes it do nothing."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Task:
    """A running coroutine. `error` is what ended it, if anything did."""

    def __init__(self, loop: Loop, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        self.name = name
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = Event()
        self._loop = loop
        self._coroutine = coroutine
        self._undo: Callable[[], None] | None = None
        self._generation = 0
        self._pending: BaseException | None = None

    def cancel(self) -> None:
        """End the task at its next wait, or at once where it waits now."""
        self.interrupt(Cancelled())

    def interrupt(self, error: BaseException) -> None:
        """Throw `error` into the task where it waits."""
        if self.done:
            return
        if self._undo is None:
            self._pending = error
            return
        self._undo()
        self._undo = None
        self._generation += 1
        self._loop.soon(lambda: self.step(error))

    def step(self, error: BaseException | None = None) -> None:
        """Run until the next wait."""
        if self.done:
            return
        self._undo = None
        if error is None and self._pending is not None:
            error, self._pending = self._pending, None
        previous, self._loop.current = self._loop.current, self
        try:
            wait = self._coroutine.throw(error) if error is not None else self._coroutine.send(None)
        except StopIteration as end:
            self._finish(end.value, None)
            return
        except BaseException as problem:  # noqa: BLE001 - kept in the task; the loop goes on
            self._finish(None, problem)
            return
        finally:
            self._loop.current = previous
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._loop.soon(lambda: self.step(pending))
            self._undo = lambda: None
            return
        self._generation += 1
        mine = self._generation

        def resume(problem: BaseException | None = None) -> None:
            if mine == self._generation and not self.done:
                self._generation += 1
                self.step(problem)

        try:
            self._undo = wait(self._loop, resume)
        except Exception as problem:  # noqa: BLE001 - a wait that cannot begin is the task's error, not the loop's
            self._loop.soon(lambda problem=problem: resume(problem))  # type: ignore[misc]

    def _finish(self, result: Any, error: BaseException | None) -> None:
        self.done, self.result = True, result
        self._undo = None
        if error is not None and not isinstance(error, Cancelled):
            self.error = error
            if not isinstance(error, Exception):
                self._loop.failure = error
            elif not self.finished.has_waiters:
                self._loop.report(self.name, error)
        self._loop.tasks.discard(self)
        self.finished.set()

    async def join(self) -> Any:
        """Wait for the end: the result, or the error raised here."""
        await self.finished.wait()
        if self.error is not None:
            raise self.error
        return self.result


@types.coroutine
def _suspend(wait: Callable[[Loop, Resume], Callable[[], None]]) -> Generator[Any, None, None]:
    yield wait


class Loop:
    """Create one, `spawn` the first tasks, `run`. `report` gets the name of a task that failed and its error."""

    def __init__(self, report: Callable[[str, BaseException], None]) -> None:
        self.report = report
        self.current: Task | None = None
        self.tasks: set[Task] = set()
        self.failure: BaseException | None = None
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[int, dict[int, Callable[[], None]]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._ready: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._signals: dict[int, Callable[[], None]] = {}

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> Task:
        """Start a coroutine; it runs from the loop's next turn on."""
        task = Task(self, coroutine, name)
        self.tasks.add(task)
        self.soon(task.step)
        return task

    def soon(self, call: Callable[[], None]) -> None:
        """Call in the next turn."""
        self._ready.append(call)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call in `seconds`."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def watch(self, fd: Fd, mask: int, call: Callable[[], None]) -> Callable[[], None]:
        """Call once or more while `fd` is ready, until the returned function is called."""
        number = fd if isinstance(fd, int) else fd.fileno()
        calls = self._waiting.get(number)
        if calls is None:
            calls = self._waiting[number] = {mask: call}
            self._selector.register(number, mask, calls)
        else:
            if mask in calls:
                raise RuntimeError(f"two tasks wait for descriptor {number}")
            calls[mask] = call
            self._selector.modify(number, self._mask(calls), calls)

        def undo() -> None:
            if self._waiting.get(number) is not calls or calls.get(mask) is not call:
                return
            del calls[mask]
            if calls:
                self._selector.modify(number, self._mask(calls), calls)
            else:
                del self._waiting[number]
                self._selector.unregister(number)

        return undo

    @staticmethod
    def _mask(calls: dict[int, Callable[[], None]]) -> int:
        total = 0
        for mask in calls:
            total |= mask
        return total

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call in the loop when the process gets a signal."""
        self._signals[number] = call
        signal.signal(number, lambda *_: None)

    def stop(self) -> None:
        """Leave `run` after this turn."""
        self._stopping = True

    def run(self) -> None:
        """Turn until `stop`; then cancel what still runs and turn until it has ended (5 s at most)."""
        reader, writer = os.pipe()
        for end in (reader, writer):
            if sys.platform != "win32":
                os.set_blocking(end, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        undo = self.watch(reader, selectors.EVENT_READ, lambda: self._deliver(reader))
        try:
            while not self._stopping and self.failure is None:
                self._turn(None)
            for task in list(self.tasks):
                task.cancel()
            end_at = time.monotonic() + 5
            while self.tasks and time.monotonic() < end_at and self.failure is None:
                self._turn(end_at)
        finally:
            undo()
            signal.set_wakeup_fd(before)
            os.close(reader)
            os.close(writer)
        if self.failure is not None:
            raise self.failure

    def _deliver(self, reader: int) -> None:
        for number in set(os.read(reader, 4096)):
            if number in self._signals:
                self._signals[number]()

    def _turn(self, until: float | None) -> None:
        timers = self._timers
        while timers and timers[0][2].call is None:
            heapq.heappop(timers)
        if self._ready:
            timeout: float | None = 0
        else:
            when = timers[0][0] if timers else until
            if until is not None and when is not None:
                when = min(when, until)
            timeout = None if when is None else max(0.0, when - time.monotonic())
        for key, mask in self._selector.select(timeout):
            for wanted, call in list(key.data.items()):
                if wanted & mask and key.data.get(wanted) is call:
                    call()
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            call_of = heapq.heappop(timers)[2].call
            if call_of is not None:
                call_of()
        for _ in range(len(self._ready)):
            self._ready.popleft()()


async def sleep(seconds: float) -> None:
    """Wait for `seconds`."""

    def wait(loop: Loop, resume: Resume) -> Callable[[], None]:
        return loop.later(seconds, lambda: resume(None)).cancel

    await _suspend(wait)


async def _ready_for(fd: Fd, mask: int) -> None:
    def wait(loop: Loop, resume: Resume) -> Callable[[], None]:
        def ready() -> None:
            undo()
            resume(None)

        undo = loop.watch(fd, mask, ready)
        return undo

    await _suspend(wait)


async def readable(fd: Fd) -> None:
    """Wait until `fd` can be read."""
    await _ready_for(fd, selectors.EVENT_READ)


async def writable(fd: Fd) -> None:
    """Wait until `fd` can be written."""
    await _ready_for(fd, selectors.EVENT_WRITE)


class Event:
    """A flag that tasks wait for."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: dict[int, tuple[Loop, Resume]] = {}
        self._next = 0

    @property
    def has_waiters(self) -> bool:
        return bool(self._waiters)

    @property
    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiters, self._waiters = self._waiters, {}
        for loop, resume in waiters.values():
            loop.soon(lambda resume=resume: resume(None))  # type: ignore[misc]

    def clear(self) -> None:
        self._set = False

    async def wait(self) -> None:
        """Return at once when it is set."""
        if self._set:
            return

        def begin(loop: Loop, resume: Resume) -> Callable[[], None]:
            number, self._next = self._next, self._next + 1
            self._waiters[number] = (loop, resume)
            return lambda: self._waiters.pop(number, None) and None

        await _suspend(begin)


class Timeout:
    """`with Timeout(loop, 10): await …` raises TimeoutExpired in the block when its time is over."""

    def __init__(self, loop: Loop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expired = TimeoutExpired(f"{seconds:g} s have passed")
        self._timer: Timer | None = None

    def __enter__(self) -> None:
        task = self._loop.current
        if task is None:
            raise RuntimeError("a Timeout belongs into a task")
        self._timer = self._loop.later(self._seconds, lambda: task.interrupt(self._expired))

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

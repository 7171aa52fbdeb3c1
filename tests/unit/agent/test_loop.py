# SPDX-License-Identifier: Apache-2.0
"""The residents' loop: order, timeouts, cancellation, signals, and what happens to errors."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agent_runtime.service.loop import Cancelled, Event, Loop, Timeout, TimeoutExpired, readable, sleep


def run(*mains: Callable[[Loop], Coroutine[Any, Any, Any]]) -> list[tuple[str, BaseException]]:
    """Run until all mains have ended; the errors that the loop was told."""
    failed: list[tuple[str, BaseException]] = []
    loop = Loop(lambda name, error: failed.append((name, error)))

    async def all_of_them() -> None:
        tasks = [loop.spawn(main(loop), main.__name__) for main in mains]
        for task in tasks:
            await task.finished.wait()
        loop.stop()

    loop.spawn(all_of_them(), "all")
    loop.run()
    return failed


def test_tasks_take_turns_and_sockets_wake_them() -> None:
    left, right = socket.socketpair()
    for end in (left, right):
        end.setblocking(False)
    heard: list[bytes] = []

    async def listener(loop: Loop) -> None:
        for _ in range(2):
            await readable(right)
            heard.append(right.recv(10))

    async def speaker(loop: Loop) -> None:
        left.send(b"one")
        await sleep(0.01)
        left.send(b"two")

    assert run(listener, speaker) == []
    assert heard == [b"one", b"two"]


def test_a_timeout_ends_a_wait_and_only_that() -> None:
    seen: list[str] = []

    async def main(loop: Loop) -> None:
        for seconds, wait in ((0.01, 5.0), (5.0, 0.01)):
            try:
                with Timeout(loop, seconds):
                    await sleep(wait)
                seen.append("in time")
            except TimeoutExpired:
                seen.append("too late")
        await sleep(0.02)

    assert run(main) == []
    assert seen == ["too late", "in time"]


def test_inner_and_outer_timeouts_are_told_apart() -> None:
    seen: list[str] = []

    async def main(loop: Loop) -> None:
        try:
            with Timeout(loop, 0.01), Timeout(loop, 10):
                await sleep(10)
        except TimeoutExpired as expired:
            seen.append(str(expired))

    assert run(main) == []
    assert seen == ["0.01 s have passed"]


def test_a_cancelled_task_ends_where_it_waits_and_cleans_up() -> None:
    steps: list[str] = []

    async def victim(loop: Loop) -> None:
        try:
            await Event().wait()
        except Cancelled:
            steps.append("cancelled")
            raise
        finally:
            steps.append("cleaned up")

    async def main(loop: Loop) -> None:
        task = loop.spawn(victim(loop), "victim")
        await sleep(0.01)
        task.cancel()
        await task.join()
        steps.append("joined")

    assert run(main) == []
    assert steps == ["cancelled", "cleaned up", "joined"]


def test_a_task_cancelled_before_its_first_step_never_waits() -> None:
    async def victim(loop: Loop) -> None:
        await Event().wait()

    async def main(loop: Loop) -> None:
        task = loop.spawn(victim(loop), "victim")
        task.cancel()
        await task.join()

    assert run(main) == []


def test_an_event_wakes_all_who_wait() -> None:
    event, woken = Event(), []

    async def waiter(loop: Loop) -> None:
        await event.wait()
        woken.append(1)

    async def main(loop: Loop) -> None:
        await sleep(0)
        event.set()

    assert run(waiter, waiter, main) == []
    assert woken == [1, 1]


def test_an_error_is_told_and_the_others_go_on() -> None:
    done = []

    async def broken(loop: Loop) -> None:
        await sleep(0)
        raise ValueError("broken")

    async def sound(loop: Loop) -> None:
        await sleep(0.01)
        done.append(1)

    failed = []
    loop = Loop(lambda name, error: failed.append((name, str(error))))

    async def main() -> None:
        loop.spawn(broken(loop), "broken")
        await loop.spawn(sound(loop), "sound").join()
        loop.stop()

    loop.spawn(main(), "main")
    loop.run()
    assert failed == [("broken", "broken")]
    assert done == [1]


def test_join_raises_what_ended_the_task() -> None:
    async def broken() -> None:
        await sleep(0)
        raise ValueError("broken")

    caught = []

    async def main(loop: Loop) -> None:
        try:
            await loop.spawn(broken(), "broken").join()
        except ValueError as error:
            caught.append(str(error))

    assert run(main) == []
    assert caught == ["broken"]


def test_a_signal_is_handled_in_the_loop_at_once() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    got = []

    async def main(loop: Loop) -> None:
        event = Event()
        loop.on_signal(signal.SIGUSR1, event.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await event.wait()
        got.append(1)

    try:
        assert run(main) == []
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert got == [1]


def test_an_idle_loop_does_not_wake_up() -> None:
    async def main(loop: Loop) -> None:
        await sleep(0.3)

    begun = time.process_time()
    assert run(main) == []
    assert time.process_time() - begun < 0.25


def test_two_tasks_for_one_descriptor_are_a_fault() -> None:
    left, right = socket.socketpair()

    async def waiter(loop: Loop) -> None:
        with Timeout(loop, 0.05):
            await readable(right)

    assert {type(error) for _, error in run(waiter, waiter)} == {RuntimeError}
    left.close()


def test_stop_cancels_what_still_runs() -> None:
    ended = []

    async def lasting() -> None:
        try:
            await Event().wait()
        finally:
            ended.append(1)

    loop = Loop(lambda name, error: pytest.fail(f"{name}: {error}"))
    loop.spawn(lasting(), "lasting")

    async def main() -> None:
        await sleep(0.01)
        loop.stop()

    loop.spawn(main(), "main")
    loop.run()
    assert ended == [1]

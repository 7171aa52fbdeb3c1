# SPDX-License-Identifier: Apache-2.0
"""How much one caller may ask, and that nobody pays for another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from control_plane.errors import ApiError
from control_plane.hub import Hub
from control_plane.limits import SIGN_INS_AT_ONCE, SIGN_INS_WAITING, Limits
from control_plane.web import health


def refused(work: Callable[..., None], *arguments: str) -> bool:
    try:
        work(*arguments)
    except ApiError as error:
        return (error.status, int(error.headers["Retry-After"]) >= 1) == (429, True)
    return False


def test_who_fails_for_somebody_else_keeps_out_himself_alone() -> None:
    limits = Limits(lambda: {"tokens_per_minute": 10})
    for _ in range(30):
        if not refused(limits.token_attempt, "Client", "198.51.100.1"):
            limits.token_failed("Client", "198.51.100.1")
    assert refused(limits.token_attempt, "client", "198.51.100.1")
    assert not refused(limits.token_attempt, "client", "192.0.2.1")
    assert [refused(limits.token, "client") for _ in range(12)] == [False] * 10 + [True] * 2


def test_a_crowd_at_the_door_is_bounded_and_told_at_once() -> None:
    limits, opened, outcomes = Limits(dict), threading.Event(), list[int]()
    told = anyio.Event()
    crowd = 3 * (SIGN_INS_AT_ONCE + SIGN_INS_WAITING)

    async def come() -> None:
        try:
            await limits.sign_in(lambda: opened.wait(60))
            outcomes.append(200)
        except ApiError as error:
            outcomes.append(error.status if "Retry-After" in error.headers else 0)
            if len(outcomes) == crowd - SIGN_INS_AT_ONCE - SIGN_INS_WAITING:
                told.set()

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(crowd):
                group.start_soon(come)
            with anyio.fail_after(30):
                await told.wait()
                # The doors are closed, and everything else has its threads.
                for limiter in (limits.pages, limits.health, limits.room, None):
                    await anyio.to_thread.run_sync(int, limiter=limiter)
            assert set(outcomes) == {503}
            opened.set()

    anyio.run(run)
    assert outcomes.count(200) == SIGN_INS_AT_ONCE + SIGN_INS_WAITING


def test_readiness_is_written_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, fail = list[Any](), [False]

    def write(hub: Any) -> None:
        tried.append(hub)
        if fail[0]:
            raise OSError("no room")

    monkeypatch.setattr(health, "_writable", write)
    monkeypatch.setattr(health, "EVERY_SECONDS", 0.3)

    async def run() -> None:
        ready = health.Ready(cast("Hub", SimpleNamespace(limits=Limits(dict))))
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ready.check)
        assert len(tried) == 1
        fail[0] = True
        await anyio.sleep(0.4)
        for _ in range(5):
            with pytest.raises(OSError, match="no room"):
                await ready.check()
        assert len(tried) == 2
        fail[0] = False
        await anyio.sleep(0.4)
        await ready.check()

    anyio.run(run)
    assert len(tried) == 3

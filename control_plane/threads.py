# SPDX-License-Identifier: Apache-2.0
"""Threads for what waits or takes long, behind the loop: it answers heartbeats, and goes before all else of the hub.

A thread gives way with its first work, and to other processes, too, while it may hold the interpreter: the unit gives
the hub a share of its own (`CPUWeight=`), so that only its loop goes before its threads.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

NICE = 10
"""A tenth of the loop's weight. While 100 copies were adopted, the p99 of the original's heartbeats was 1.6 times that
of alone, and 1.9 times without it."""
THREADS = 4
"""For the machines' writes and for tokens; all else has threads of its own (limits.py). They wait for one another at
the database anyway, and each thread more is one more that takes its turn between two steps of the loop."""
_here = threading.local()

Result = TypeVar("Result")


def prepare() -> None:
    """On the loop, before its first thread."""
    # As many as asyncio itself would have: they are for the hub's own work, not for requests.
    executor = ThreadPoolExecutor((os.cpu_count() or 1) + 4, "hub", initializer=_give_way)
    asyncio.get_running_loop().set_default_executor(executor)
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS


async def run(
    work: Callable[..., Result], *arguments: Any, limiter: anyio.CapacityLimiter | None = None, **options: Any
) -> Result:
    """What `work` gives, in a thread. `limiter`: of the kind of work (limits.py); None for the machines'."""
    return await anyio.to_thread.run_sync(partial(_carry_out, partial(work, *arguments, **options)), limiter=limiter)


def _carry_out(work: Callable[[], Result]) -> Result:
    if not getattr(_here, "gives_way", False):
        _give_way()
        _here.gives_way = True
    return work()


def _give_way() -> None:
    # 0 is this thread; nobody may take priority back.
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))

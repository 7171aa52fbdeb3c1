# SPDX-License-Identifier: Apache-2.0
"""One machine's heartbeats at a steady rate, from a process of its own that goes before the others on its core: what
delays them is the hub, not whatever else asks it. Each counts from the moment at which it was due.

Prints a JSON array, the seconds of each heartbeat since the line before, for every line of standard input; ends with
it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import uvloop

from benchmarks.simulator import Fleet, Machine

A_SECOND = 50
PRIORITY = -10


async def _beat(machine: Machine, durations: list[float]) -> None:
    due = time.perf_counter()
    while True:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await machine.take_over(await machine.checkin(0))
        durations.append(time.perf_counter() - due)
        due += 1 / A_SECOND


async def measure(state: Path) -> None:
    """Heartbeats of the first machine of a state file, until standard input ends.

    Errors: Refusal, Broken: the machine is served no longer.
    """
    durations: list[float] = []
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    beats = asyncio.create_task(_beat(Fleet.load(state).machines[0], durations))
    while True:
        line = asyncio.create_task(lines.readline())
        await asyncio.wait({line, beats}, return_when=asyncio.FIRST_COMPLETED)
        if beats.done():
            beats.result()
        if not await line:
            beats.cancel()
            return
        print(json.dumps(durations), flush=True)
        durations.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--cpu", type=int, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    uvloop.run(measure(options.state))


if __name__ == "__main__":
    main()

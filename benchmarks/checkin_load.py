# SPDX-License-Identifier: Apache-2.0
"""Load on the hub's check-in: a process of its own, on a core of its own. Prints one JSON object:
``{"checkins", "seconds", "per_second", "p50_ms", "p99_ms", "max_ms", "statuses", "broken"}``.

Machines of a state file share `--connections` kept-alive TLS connections, each with its own token, as behind a proxy.
Without `--rate` each connection asks as soon as it was answered; with it check-ins begin at that rate, whether the hub
keeps up or not, and a latency counts from the moment at which the check-in was due. `--rounds 2` calls every machine
twice; the second time is reported apart, as `"again"`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.simulator import Broken, Fleet, Machine, Refusal
from benchmarks.simulator.machine import Link


def percentiles(durations: Sequence[float]) -> dict[str, float]:
    """`p50_ms`, `p95_ms`, `p99_ms`, `max_ms` of seconds; nothing without any."""
    turn = sorted(durations)
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    return {
        name: round(1000 * turn[min(len(turn) - 1, int(share * len(turn)))], 2)
        for name, share in shares.items()
        if turn
    }


def figures(fleet: Fleet, durations: Sequence[float], seconds: float) -> dict[str, Any]:
    """What was printed for one measurement; the fleet's counts are set to nought."""
    told = fleet.summary()
    fleet.forget_trouble()
    return {
        "checkins": len(durations),
        "seconds": round(seconds, 2),
        "per_second": round(len(durations) / seconds, 1),
        **percentiles(durations),
        "statuses": told["statuses"],
        "broken": told["broken"],
    }


async def one(machine: Machine) -> None:
    """A check-in. What goes wrong is counted by the fleet."""
    try:
        answer = await machine.checkin(0)
    except (Broken, Refusal):
        return
    machine.seen.epoch, machine.seen.nonce = answer["epoch"], answer["nonce"]


async def closed(fleet: Fleet, connections: int, seconds: float) -> dict[str, Any]:
    """Each connection asks again as soon as it was answered, always for the same machine."""
    durations: list[float] = []
    ends = 0.0

    async def client(machine: Machine) -> None:
        while (begun := time.perf_counter()) < ends:
            await one(machine)
            durations.append(time.perf_counter() - begun)

    chosen = fleet.machines[:connections]
    await asyncio.gather(*(one(machine) for machine in chosen))  # connections and records, not measured
    fleet.forget_trouble()
    begun = time.perf_counter()
    ends = begun + seconds
    await asyncio.gather(*(client(machine) for machine in chosen))
    return figures(fleet, durations, time.perf_counter() - begun)


async def paced(fleet: Fleet, connections: int, rate: float) -> dict[str, Any]:
    """Every machine once, at `rate` a second."""
    links: asyncio.Queue[Link] = asyncio.Queue()
    for number in range(connections):
        links.put_nowait(Link(fleet.site, number))
    durations: list[float] = []

    async def call(machine: Machine, due: float) -> None:
        machine.link = await links.get()
        await one(machine)
        links.put_nowait(machine.link)
        durations.append(time.perf_counter() - due)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, machine in enumerate(fleet.machines):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(call(machine, due))
    return figures(fleet, durations, time.perf_counter() - begun)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One run as the command line says."""
    fleet = Fleet.load(options.state, connections=options.connections)
    if options.rate is None:
        return await closed(fleet, options.connections, options.seconds)
    found = await paced(fleet, options.connections, options.rate)
    return {**found, "again": await paced(fleet, options.connections, options.rate)} if options.rounds == 2 else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--rounds", type=int, choices=(1, 2), default=1)
    parser.add_argument("--cpu", type=int)
    options = parser.parse_args()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    print(json.dumps(uvloop.run(measure(options))))


if __name__ == "__main__":
    main()

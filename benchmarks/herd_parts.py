# SPDX-License-Identifier: Apache-2.0
"""What the hub does when the copies of one machine wake together, and what the original notices of it."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from benchmarks.checkin_load import percentiles
from benchmarks.report import Row
from benchmarks.simulator import Fleet, Pace, Twin
from benchmarks.site import Site, cores, driven

ROOT = Path(__file__).resolve().parents[1]
LEAST_SECONDS = 20.0
WARM_SECONDS = 5.0
# Small herds are over in a moment, in which anything else on the machine counts as well: the middle one of these.
RUNS_OF_SMALL, SMALL_HERD = 3, 100
# What the hub may grow by for a herd: rows of twins are on the disk, in memory there are digests of those refused.
MOST_GROWN_MIB = 64
LONGEST_SECONDS = 3600.0
LONGEST_LINE = 1 << 24
# Copies begin to ask within this time: nobody boots machines faster than a second for each hundred.
A_SECOND = 100

# What a policy makes of copies: the word, and the state that they say they are in.
ENDS = {"quarantine": ("quarantined", "quarantined"), "adopt": ("adopted", "connected")}


@dataclass(frozen=True)
class Scale:
    """How many copies wake together, one herd after another, by what a policy makes of them. Adopting 10,000 takes most
    of an hour, for each of them enrols."""

    quarantine: tuple[int, ...]
    adopt: tuple[int, ...]


SMALL = Scale((1, 20), (1, 20))
WHOLE = Scale((1, 2, 100, 10_000), (1, 2, 100, 1_000))
LONG = Scale((1, 2, 100, 10_000), (1, 2, 100, 1_000, 10_000))


@dataclass(frozen=True)
class Told:
    """Of one herd. `alone`, `meanwhile`: seconds of the original's heartbeats, before and after it, and during it;
    `grown`: bytes of the hub; `healed`: seconds from waking to the end of each copy; `ends`: copies by state; `wrong`:
    answers with 5xx."""

    alone: list[float]
    meanwhile: list[float]
    grown: int
    healed: list[float]
    ends: Counter[str]
    wrong: int


@asynccontextmanager
async def _beating(fleet: Fleet) -> AsyncIterator[Process]:
    """The fleet's one machine, beating in heartbeats.py."""
    with tempfile.TemporaryDirectory(prefix="hawser-bench-") as directory:
        state = Path(directory) / "fleet.json"
        fleet.save(state)
        argv = [sys.executable, "-m", "benchmarks.heartbeats", "--state", str(state), "--cpu", str(cores()[1])]
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE, cwd=ROOT)
        try:
            yield process
        finally:
            await process.communicate(b"")


async def _since(original: Process) -> list[float]:
    """Seconds of its heartbeats since this was asked last."""
    if original.stdin is None or original.stdout is None:
        raise ValueError("this process was started without pipes")
    original.stdin.write(b"\n")
    if not (line := await original.stdout.readline()):
        raise RuntimeError("the original was refused")
    found: list[float] = json.loads(line)
    return found


async def _beaten(original: Process, work: Awaitable[object]) -> list[float]:
    await _since(original)
    await work
    return await _since(original)


async def _wake(twin: Twin, spread: float, number: int, count: int, healed: list[float]) -> None:
    await asyncio.sleep(spread * number / count)
    begun = time.perf_counter()
    async with asyncio.timeout(LONGEST_SECONDS):
        await twin.heal()
    healed.append(time.perf_counter() - begun)


async def _herd(site: Site, fleet: Fleet, count: int) -> Told:
    (machine,) = fleet.machines
    async with _beating(fleet) as original:
        await asyncio.sleep(WARM_SECONDS)
        return await _woken(site, fleet, [Twin(machine, number) for number in range(count)], original)


async def _woken(site: Site, fleet: Fleet, twins: list[Twin], original: Process) -> Told:
    count = len(twins)
    alone = await _beaten(original, asyncio.sleep(LEAST_SECONDS))
    healed: list[float] = []
    before = site.memory()
    fleet.forget_trouble()

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(LEAST_SECONDS))
            for number, twin in enumerate(twins):
                group.create_task(_wake(twin, count / A_SECOND, number, count, healed))

    meanwhile = await _beaten(original, all_of_them())
    wrong = sum(number for status, number in fleet.summary()["statuses"].items() if status >= 500)
    ends = Counter(twin.seen.state for twin in twins)
    grown = site.memory() - before
    alone += await _beaten(original, asyncio.sleep(LEAST_SECONDS))
    return Told(alone, meanwhile, grown, healed, ends, wrong)


def _ratio(told: Told) -> float:
    return percentiles(told.meanwhile)["p99_ms"] / percentiles(told.alone)["p99_ms"]


def _rows(runs: list[Told], count: int, policy: str) -> list[Row]:
    told = sorted(runs, key=_ratio)[len(runs) // 2]
    end, state = ENDS[policy]
    # A small herd is run several times for its times alone: nothing may go wrong in any of them.
    missing, wrong = sum(count - run.ends[state] for run in runs), sum(run.wrong for run in runs)
    grown = max(run.grown for run in runs)
    what = f"{count} {'copy wakes' if count == 1 else 'copies wake'}, policy {policy}"
    ratio = _ratio(told)
    healed = percentiles(told.healed)
    return [
        Row(f"{what}: p99 of the original's heartbeats", percentiles(told.meanwhile)["p99_ms"], "ms", "", None),
        Row(f"{what}: the same, against alone", ratio, "times", "≤ 1.5", 1.5),
        Row(f"{what}: until half of them are {end}", healed["p50_ms"] / 1000, "s", "", None),
        Row(f"{what}: until the last", healed["max_ms"] / 1000, "s", "", None),
        Row(f"{what}: copies that are not {end}", missing, "", "0", 0),
        Row(f"{what}: answers with 5xx", wrong, "", "0", 0),
        Row(f"{what}: the hub's memory grows by", grown / 2**20, "MiB", f"≤ {MOST_GROWN_MIB}", MOST_GROWN_MIB),
    ]


async def _herds(site: Site, scale: Scale, policy: str) -> list[Row]:
    site.hub.run("profiles", "set", "default", "--clones", policy)
    rows: list[Row] = []
    herds: tuple[int, ...] = getattr(scale, policy)
    for count in herds:
        runs = []
        for number in range(RUNS_OF_SMALL if count <= SMALL_HERD else 1):
            fleet = site.fleet(f"{policy}-{count}-{number}", 1, Pace())
            await fleet.enrol()
            runs.append(await _herd(site, fleet, count))
            fleet.close()
        rows += _rows(runs, count, policy)
    return rows


def herd(policy: str, scale: Scale) -> list[Row]:
    """Herds of every size with one policy."""
    with driven(Site()) as site:
        return uvloop.run(_herds(site, scale, policy))


PARTS: dict[str, Callable[[Scale], list[Row]]] = {f"herd_{policy}": partial(herd, policy) for policy in ENDS}

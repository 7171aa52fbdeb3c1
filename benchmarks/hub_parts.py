# SPDX-License-Identifier: Apache-2.0
"""What is measured of the hub alone, each part on a hub of its own: check-ins, many records, held connections, changes,
a cold start, fleet queries."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from benchmarks import records
from benchmarks.checkin_load import percentiles
from benchmarks.records import Owned
from benchmarks.report import Row
from benchmarks.simulator import Fleet, Machine, Pace
from benchmarks.simulator.fleet import need_descriptors
from benchmarks.site import Site, cores, driven
from tests.integration.hub_process import HubProcess

ROOT = Path(__file__).resolve().parents[1]
RATE = 333  # 100,000 machines, one check-in in five minutes each
QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"$orderby": "lastHeartbeat desc", "$count": "true"},
    {"status": "Disconnected,Expired", "$orderby": "name desc"},
    {"tag": "env=prod", "osType": "windows"},
    {"search": "srv-00"},
    {"resourceGroup": "group-1-03", "status": "Connected"},
    {"agentVersion": "1.0.0.1", "$orderby": "agentVersion"},
)
PAGES = 10


@dataclass(frozen=True)
class Scale:
    """How much of it: `MODERATE` for `make bench`, `LONG` for `make bench-long`, `SMALL` to see that it works.

    `callers`: machines of the records that really call, each twice. `held`: connections; `changes`: of desired state.
    """

    load_seconds: float
    records: int
    callers: int
    held: int
    changes: int
    queried: int


SMALL = Scale(load_seconds=3, records=2000, callers=1000, held=200, changes=50, queried=2000)
MODERATE = Scale(load_seconds=30, records=100_000, callers=20_000, held=10_000, changes=1000, queried=10_000)
LONG = Scale(load_seconds=600, records=100_000, callers=100_000, held=10_000, changes=1000, queried=10_000)


def _load(fleet: Fleet, *words: str) -> dict[str, Any]:
    """Run checkin_load.py with a fleet on the generator's core."""
    with tempfile.TemporaryDirectory(prefix="hawser-bench-") as directory:
        state = Path(directory) / "fleet.json"
        fleet.save(state)
        argv = [sys.executable, "-m", "benchmarks.checkin_load", "--state", str(state), "--cpu", str(cores()[1])]
        done = subprocess.run([*argv, *words], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _failed(found: dict[str, Any]) -> int:
    return int(found["broken"]) + sum(int(count) for status, count in found["statuses"].items() if status != "200")


def checkins(scale: Scale) -> list[Row]:
    """As many check-ins as one core answers; nobody waits on purpose."""
    site = Site()
    try:
        fleet = site.fleet("load", 64)
        uvloop.run(_enrol(fleet))
        before = site.cpu_seconds()
        found = _load(fleet, "--seconds", str(scale.load_seconds), "--connections", "64")
        busy = (site.cpu_seconds() - before) / found["seconds"]
    finally:
        site.stop()
    return [
        Row(
            "hub, check-ins on one core, 64 TLS connections kept alive",
            found["per_second"],
            "a second",
            "≥ 2000",
            -2000,
        ),
        Row("hub, p50 of these check-ins", found["p50_ms"], "ms", "", None),
        Row("hub, p99 of these check-ins", found["p99_ms"], "ms", "< 50", 50),
        Row("hub, its core's use meanwhile", 100 * busy, "%", "", None),
        Row("hub, check-ins that failed meanwhile", _failed(found), "", "0", 0),
    ]


async def _enrol(fleet: Fleet) -> None:
    await fleet.enrol(keep=False)


def many_records(scale: Scale) -> list[Row]:
    """A database of many machines; some of them check in at the rate of a whole fleet, twice: first unknown to the
    process, then known."""
    owned: list[Owned] = []
    site = Site(lambda made: owned.append(records.write(made, scale.records, scale.callers, tokens=True)))
    try:
        fleet = owned[0].fleet(site)
        before = site.cpu_seconds()
        found = _load(fleet, "--rate", str(RATE), "--rounds", "2", "--connections", "64")
        busy = (site.cpu_seconds() - before) / (found["seconds"] + found["again"]["seconds"])
        memory = site.memory()
    finally:
        site.stop()
    again, what = found["again"], f"{scale.records} records, {RATE} check-ins/s by {scale.callers} machines"
    return [
        Row(f"hub, {what}: rate reached at the first call of each", found["per_second"], "a second", "≥ 330", -330),
        Row(f"hub, {what}: p99 of first calls", found["p99_ms"], "ms", "", None),
        Row(f"hub, {what}: rate reached at the second", again["per_second"], "a second", "≥ 330", -330),
        Row(f"hub, {what}: p99 of second calls", again["p99_ms"], "ms", "< 50", 50),
        Row(f"hub, {what}: use of its core", 100 * busy, "%", "", None),
        Row(f"hub, {what}: its memory afterwards", memory / 2**20, "MiB", "", None),
        Row(f"hub, {what}: check-ins that failed", _failed(found) + _failed(again), "", "0", 0),
    ]


def held(scale: Scale) -> list[Row]:
    """Machines that wait on connections of their own; changes that reach them; the hub killed under them."""
    owned: list[Owned] = []

    def fill(made: HubProcess) -> None:
        owned.append(records.write(made, scale.held, scale.held, tokens=False))

    need_descriptors(scale.held + 1000)  # the hub inherits it
    with driven(Site(fill)) as site:
        return uvloop.run(_held(site, owned[0], scale))


async def _held(site: Site, owned: Owned, scale: Scale) -> list[Row]:
    count = scale.held
    empty = site.memory()
    fleet = owned.fleet(site, Pace(spread=count / 100))
    since = time.time()
    await fleet.start()
    try:
        begun = time.monotonic()
        await all_beat(fleet, since)
        first = time.monotonic() - begun
        await asyncio.sleep(5)
        bytes_each = (site.memory() - empty) / count
        connections = await asyncio.to_thread(_established, site.pid)
        rows = [
            Row(f"hub, {count} machines connected for the first time, token included", first, "s", "", None),
            Row("hub, connections held at once", connections, "", f"≥ {count}", -count),
            Row("hub, its memory for each held connection", bytes_each / 1024, "KiB", "", None),
            Row(
                "hub, its memory for 100,000 held connections, extrapolated", bytes_each * 1e5 / 2**30, "GiB", "", None
            ),
        ]
        rows += _spread(await _changes(site, fleet, fleet.machines[: min(scale.changes, 1000)]), min(count, 1000))
        fleet.forget_trouble()
        await asyncio.to_thread(site.kill)
        await asyncio.to_thread(site.start)
        back, begun = time.time(), time.monotonic()
        await all_beat(fleet, back)
        cold = time.monotonic() - begun
        told = fleet.summary()
    finally:
        await fleet.stop()
    wrong = sum(number for status, number in told["statuses"].items() if status >= 500)
    accused = count - told["states"].get("connected", 0)
    return [
        *rows,
        Row(f"hub killed and started with {count} machines: until all are Connected", cold, "s", "", None),
        Row(f"hub killed and started with {count} machines: answers with 5xx", wrong, "", "0", 0),
        Row(f"hub killed and started with {count} machines: machines accused", accused, "", "0", 0),
    ]


async def all_beat(fleet: Fleet, since: float) -> None:
    """Until every machine had a heartbeat after `since` (Unix seconds).

    Errors: RuntimeError after a quarter of an hour.
    """
    count = len(fleet.machines)
    if not await fleet.until(lambda: fleet.beaten_since(since) == count, 900):
        raise RuntimeError(
            f"{count - fleet.beaten_since(since)} machines did not connect in 15 minutes: {fleet.summary()}"
        )


def _established(pid: int) -> int:
    found = psutil.Process(pid).net_connections("tcp")
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in found)


async def arrivals(
    fleet: Fleet, waiting: list[Machine], send: Callable[[Machine, int], None], arrived: dict[str, float]
) -> list[float]:
    """Seconds from `send(machine, number)`, one after another and twenty a second at most, until its machine's name is
    in `arrived` with a later `time.perf_counter()`.

    Errors: RuntimeError when that takes longer than a minute after the last.
    """
    sent: dict[str, float] = {}

    def open_ones() -> list[str]:
        return [name for name, at in sent.items() if arrived.get(name, 0.0) <= at]

    begun = time.perf_counter()
    for number, machine in enumerate(waiting):
        await asyncio.sleep(max(0.0, begun + number / 20 - time.perf_counter()))
        sent[machine.seen.name] = time.perf_counter()
        await asyncio.to_thread(send, machine, number)
    if not await fleet.until(lambda: not open_ones(), 60):
        raise RuntimeError(f"{len(open_ones())} of {len(sent)} changes did not arrive within a minute")
    return [arrived[name] - at for name, at in sent.items()]


async def _changes(site: Site, fleet: Fleet, waiting: list[Machine]) -> list[float]:
    """Seconds from the PATCH to the machine's having its document."""
    arrived: dict[str, float] = {}

    def note(machine: Machine, kind: str, _generation: int) -> None:
        if kind == "resource":
            arrived[machine.seen.name] = time.perf_counter()

    def send(machine: Machine, number: int) -> None:
        site.tag(machine.seen.resource_id, f"change {number}")

    fleet.site.on_document = note
    found = await arrivals(fleet, waiting, send, arrived)
    fleet.site.on_document = None
    return found


def _spread(seconds: list[float], machines: int) -> list[Row]:
    what = f"change at the hub to effect, {len(seconds)} changes over {machines} simulated machines that wait"
    found = percentiles(seconds)
    return [
        Row(f"{what}: p50", found["p50_ms"] / 1000, "s", "", None),
        Row(f"{what}: p95", found["p95_ms"] / 1000, "s", "< 3", 3),
    ]


def queries(scale: Scale) -> list[Row]:
    """The fleet query with filters and orders, page after page."""

    def fill(made: HubProcess) -> None:
        records.write(made, scale.queried, 0, tokens=False)

    site = Site(fill)
    durations: list[float] = []
    try:
        for query in QUERIES:
            parameters = {"subscriptionId": site.hub.subscription_id, "$top": "100", **query}
            path, pages = "/hawser/v1/machines", 0
            while path and pages < PAGES:
                begun = time.perf_counter()
                answer = site.get(path, **parameters).json()
                durations.append(time.perf_counter() - begun)
                path, parameters, pages = answer["nextLink"], {}, pages + 1
    finally:
        site.stop()
    what = (
        f"fleet query over {scale.queried} machines, {len(QUERIES)} filters and orders, {len(durations)} pages of 100"
    )
    return [
        Row(f"{what}: median", statistics.median(durations), "s", "", None),
        Row(f"{what}: slowest page", max(durations), "s", "< 1", 1),
    ]


PARTS: dict[str, Callable[[Scale], list[Row]]] = {
    "checkins": checkins,
    "records": many_records,
    "held": held,
    "queries": queries,
}

# SPDX-License-Identifier: Apache-2.0
"""What is measured of extensions on a hub of their own: wishes that reach waiting machines, and the memory that a large
package takes on its way through a real himds and extd."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks import memory, packages, records
from benchmarks.checkin_load import percentiles
from benchmarks.hub_parts import ROOT, all_beat, arrivals
from benchmarks.records import Owned
from benchmarks.report import Row
from benchmarks.simulator import Machine, Pace
from benchmarks.simulator.fleet import need_descriptors
from benchmarks.site import API, Site, driven
from tests.integration.agent_process import Agent, unpacked
from tests.integration.extension_machine import catalogue_of, package
from tests.integration.extension_site import serving
from tests.integration.hub_machine import Machine as Named
from tests.integration.hub_process import HubProcess

LARGE_BAR_MB = 8
BASELINE = 1_000_000
# The package at its maker's, at the hub, downloaded, and unpacked.
COPIES = 4
PATIENCE_SECONDS = 1800.0
WORKERS = {"fetch-package": "downloading", "unpack-package": "unpacking"}


@dataclass(frozen=True)
class Scale:
    """`waiting`: simulated machines, each of which gets a wish; `ballast`: bytes of the large package."""

    waiting: int
    ballast: int


# A package may have 2 GiB with all that is in it.
SMALL, WHOLE = Scale(waiting=40, ballast=48 << 20), Scale(waiting=1000, ballast=2_000_000_000)


def wishes(scale: Scale) -> list[Row]:
    """Extensions wished of machines that wait, one after another, until the hub knows that enable has begun."""
    owned: list[Owned] = []

    def fill(made: HubProcess) -> None:
        owned.append(records.write(made, scale.waiting, scale.waiting, tokens=False))
        names = (packages.PUBLISHER, packages.TYPE, "1.0.0")
        catalogue_of(made, [package(*names), package(*names, os="windows")])

    need_descriptors(scale.waiting + 1000)  # the hub inherits it
    with driven(Site(fill)) as site:
        return uvloop.run(_wishes(site, owned[0], scale))


async def _wishes(site: Site, owned: Owned, scale: Scale) -> list[Row]:
    fleet = owned.fleet(site, Pace(spread=scale.waiting / 100))
    since = time.time()
    documents: dict[str, float] = {}
    begun: dict[str, float] = {}

    def note(machine: Machine, kind: str, _generation: int) -> None:
        if kind == "extensions":
            documents[machine.seen.name] = time.perf_counter()

    def note_enable(machine: Machine) -> None:
        begun[machine.seen.name] = time.perf_counter()

    def wish(machine: Machine, _number: int) -> None:
        site.write("PUT", f"{machine.seen.resource_id}/extensions/bench", packages.wish("1.0.0"))

    await fleet.start()
    try:
        await all_beat(fleet, since)
        fleet.site.on_document, fleet.site.on_enable = note, note_enable
        fleet.forget_trouble()
        seconds = await arrivals(fleet, fleet.machines, wish, begun)
        await asyncio.sleep(1)  # for the report that the last of them went well
        told = fleet.summary()
        ended = await asyncio.to_thread(_succeeded, site, [machine.seen.resource_id for machine in fleet.machines])
    finally:
        await fleet.stop()
    found = percentiles(seconds)
    report = percentiles([begun[name] - at for name, at in documents.items()])
    what = f"wish for an extension until enable has begun, {scale.waiting} simulated machines that wait"
    return [
        Row(f"{what}: p50", found["p50_ms"] / 1000, "s", "", None),
        Row(f"{what}: p95", found["p95_ms"] / 1000, "s", "< 3", 3),
        Row(f"{what}: of which the report to the hub, p95", report["p95_ms"] / 1000, "s", "", None),
        Row(f"{what}: answers that a healthy hub does not give", told["unexpected"], "", "0", 0),
        Row(f"{what}: wishes that the hub says succeeded", ended, "", f"{scale.waiting}", -scale.waiting),
    ]


def _succeeded(site: Site, machines: list[str]) -> int:
    found = (site.get(f"{machine}/extensions/bench", **API).json() for machine in machines)
    return sum(extension["properties"]["provisioningState"] == "Succeeded" for extension in found)


def large_package(scale: Scale) -> list[Row]:
    """A package published, downloaded, verified and unpacked by extd's workers, against the same with 1 MB in it."""
    folder = Path(tempfile.mkdtemp(prefix="hawser-bench-"))
    site = Site()
    try:
        need = COPIES * scale.ballast
        if (free := shutil.disk_usage(folder).free) < need + (1 << 30):
            raise RuntimeError(f"{need / 1e9:.0f} GB of disk are needed below {folder}, {free / 1e9:.0f} are free")
        site.hub.add_repository(folder / "keys")
        site.hub.publish(folder / "keys")
        agent = Agent(folder / "machine", unpacked(_deb(folder), folder / "package")).start()
        try:
            with serving(agent) as extd:
                return _deliver(site, agent, extd, folder, scale.ballast)
        finally:
            agent.stop()
    finally:
        site.stop()
        shutil.rmtree(folder)


def _publish(hub: HubProcess, folder: Path, version: str, ballast: int) -> None:
    """Make a package and put it in the hub's repository, which has a copy then."""
    path = packages.write(folder / f"{version}.zip", version, ballast=ballast)
    hub.publish(folder / "keys", path, timeout=PATIENCE_SECONDS)
    path.unlink()


def _deb(folder: Path) -> Path:
    builder = [sys.executable, str(ROOT / "packaging" / "build_packages.py"), "--out", str(folder), "--only", "deb"]
    subprocess.run(builder, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.deb"))


def _deliver(site: Site, agent: Agent, extd: int, folder: Path, ballast: int) -> list[Row]:
    hub, machine = site.hub, Named(site.hub, "bench").resource_id
    agent.add_cloud(hub)
    done = agent.connect(hub, hub.token(site.principal), "bench")
    if done.returncode:
        raise RuntimeError(f"the agent did not connect: {done.stdout}")
    taken: list[memory.Peaks] = []
    seconds: list[float] = []
    # The first of all is another: whoever is compared with comes upon metadata that is known, as updates do.
    for version, size in (("1.0.0", BASELINE), ("1.0.1", BASELINE), ("2.0.0", ballast)):
        _publish(hub, folder, version, size)
        with memory.watched(extd) as peaks:
            begun = time.monotonic()
            _carried_out(site, f"{machine}/extensions/bench", version)
            seconds.append(time.monotonic() - begun)
        if missing := set(WORKERS) - set(peaks.workers):
            raise RuntimeError(f"the workers {', '.join(missing)} came and went unseen")
        taken.append(peaks)
        unpacked_at = agent.root / f"var/lib/waagent/{packages.PUBLISHER}.{packages.TYPE}-{version}/ballast"
        if unpacked_at.stat().st_size != size:
            raise RuntimeError(f"{unpacked_at} has {unpacked_at.stat().st_size} bytes of {size}")
    _, small, large = taken
    what = f"package of {ballast / 1e9:.3g} GB against one of 1 MB"
    return [
        Row(
            f"{what}: peak RSS of extd and its largest worker grows by",
            (large.sum - small.sum) / 1e6,
            "MB",
            "< 8",
            LARGE_BAR_MB,
        ),
        Row(f"{what}: of which extd itself", (large.own - small.own) / 1e6, "MB", "", None),
        *(
            Row(
                f"{what}: of which the worker {title}",
                (large.workers[verb] - small.workers[verb]) / 1e6,
                "MB",
                "",
                None,
            )
            for verb, title in WORKERS.items()
        ),
        Row("extd, peak RSS with the small one", small.own / 1e6, "MB", "", None),
        Row("its largest worker, peak RSS with the small one", max(small.workers.values()) / 1e6, "MB", "", None),
        Row(f"package of {ballast / 1e9:.3g} GB, from the wish to its end", seconds[-1], "s", "", None),
    ]


def _carried_out(site: Site, resource_id: str, version: str) -> None:
    """Errors: RuntimeError unless the operation succeeds in time."""
    answer = site.write("PUT", resource_id, packages.wish(version))
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        told = site.get(answer.headers["Azure-AsyncOperation"]).json()
        if told["status"] == "Succeeded":
            return
        if told["status"] != "InProgress":
            raise RuntimeError(f"the extension was not installed: {told}")
        time.sleep(0.5)
    raise RuntimeError(f"the extension was not installed within {PATIENCE_SECONDS:g} s")


PARTS: dict[str, Callable[[Scale], list[Row]]] = {"wishes": wishes, "large_package": large_package}

# SPDX-License-Identifier: Apache-2.0
"""Sets up a hub and real hosts, measures, writes benchmarks/results/ and docs/benchmarks.md, removes everything.

    python -m benchmarks.run [--long] [--hosts 40] [--idle-seconds 600]

Only what was measured in this run is written; the bars stand beside the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report import Row, document
from lab import Host, LabError
from lab.demo.handout import Access, variables
from lab.demo.layout import ROOT, Layout
from lab.demo.start import Steps, start, stop
from lab.fleet import Lab

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PORT = 9447
# After a start the services settle: compiling, first heartbeat, inventory.
SETTLE_SECONDS = 120


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    release = platform.freedesktop_os_release()
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", ""),
        "python": platform.python_version(),
    }


def on_host(host: Host, script: str, *arguments: str, timeout: float) -> dict[str, Any]:
    """Run a measuring script of this directory on a host and read the JSON it prints."""
    done = host.run(
        ["python3", "-I", "-", *arguments], stdin=(HERE / script).read_text(encoding="utf-8"), timeout=timeout
    )
    found: dict[str, Any] = json.loads(done.output)
    return found


def idle(host: Host, seconds: float) -> list[Row]:
    """Memory, CPU time and wake-ups of the three services of a connected host with nothing to do."""
    found = on_host(host, "resident.py", "--seconds", str(seconds), timeout=seconds + 60)
    wakeups = max(found[unit]["wakeups_per_minute"] for unit in ("himdsd", "gcad", "extd"))
    span = f"{seconds / 60:g} min"
    return [
        Row("three idle services, summed PSS", found["sum_pss_kib"] / 1024, "MiB", "≤ 30", 30),
        Row("three idle services, summed RSS", found["sum_rss_kib"] / 1024, "MiB", "", None),
        Row(f"idle CPU over {span}, percent of one core", found["sum_cpu_percent"], "%", "≤ 0.02", 0.02),
        Row(f"wake-ups of the busiest service over {span}", wakeups, "a minute", "≤ 12", 12),
    ]


def tokens(host: Host) -> list[Row]:
    """Challenge and token pairs from the cache; himds on one core, the clients on another."""
    pid = host.run(["systemctl", "show", "--property=MainPID", "--value", "himdsd"]).output.strip()
    cores = sorted(os.sched_getaffinity(0))
    host.run(["taskset", "--cpu-list", "--pid", str(cores[0]), pid])
    try:
        found = on_host(host, "token_load.py", "--seconds", "10", "--cpu", str(cores[-1]), timeout=120)
    finally:
        host.run(["taskset", "--cpu-list", "--pid", ",".join(map(str, cores)), pid])
    if found["errors"]:
        raise LabError(f"{found['errors']} token requests failed.", "See himds.log on the host.")
    return [
        Row("token endpoint, challenge and token pairs", found["pairs_per_second"], "a second", "≥ 2000", -2000),
        Row("token endpoint, p99 of a pair", found["p99_ms"], "ms", "< 10", 10),
    ]


def timed(argv: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds of the controller, output."""
    before, begun = os.times(), time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    wall, after = time.monotonic() - begun, os.times()
    if done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` ended with {done.returncode}.", done.stdout[-2000:])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, done.stdout


def converged(layout: Layout, environment: dict[str, str], hosts: int) -> list[Row]:
    """The converged playbook against one bare command on every host, in turn, three times; medians."""
    bare = [str(layout.programs / "ansible"), "hawser", "-m", "ansible.builtin.raw", "-a", "true"]
    playbook = [str(layout.programs / "ansible-playbook"), "hawser.machine.site"]
    figures: dict[str, list[tuple[float, float]]] = {"raw": [], "site": []}
    for _ in range(3):
        for name, argv in (("raw", bare), ("site", playbook)):
            wall, cpu, output = timed(argv, environment)
            if name == "site" and output.count("changed=0 ") != hosts:
                raise LabError("The playbook changed a converged host.", output[-2000:])
            figures[name].append((wall, cpu))
    raw, site = (statistics.median(wall for wall, _ in figures[name]) for name in ("raw", "site"))
    raw_cpu, site_cpu = (statistics.median(cpu for _, cpu in figures[name]) for name in ("raw", "site"))
    return [
        Row(f"`ansible -m raw -a true`, {hosts} hosts", raw, "s", "", None),
        Row(f"converged playbook, {hosts} hosts", site, "s", "≤ twice raw", 2 * raw),
        Row("controller's CPU, raw", raw_cpu, "s", "", None),
        Row("controller's CPU, converged playbook", site_cpu, "s", "", None),
    ]


def measure(layout: Layout, hosts: int, seconds: float, report: Callable[[str], None]) -> list[Row]:
    """All rows, on a fleet that is made for it."""
    start(layout, hosts, PORT)
    access = Access(**json.loads(layout.principal.read_text(encoding="utf-8")))
    secret = layout.secret.read_text(encoding="utf-8").strip()
    environment = {**os.environ, **variables(access, layout, secret)}
    first = next(iter(Lab.attach(layout.top, cache=layout.cache).hosts.values()))
    report(f"letting the services settle for {SETTLE_SECONDS} s")
    time.sleep(SETTLE_SECONDS)
    report(f"idle services for {seconds:g} s")
    rows = idle(first, seconds)
    report("token endpoint")
    rows += tokens(first)
    report("converged playbook against raw")
    return rows + converged(layout, environment, hosts)


def main() -> int:
    """Command line; 1 when a bar is missed or something could not be measured."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="Measure, and write the figures down.")
    parser.add_argument("--long", action="store_true", help="watch the idle services for an hour")
    parser.add_argument("--hosts", type=int, default=40)
    parser.add_argument("--idle-seconds", type=float)
    options = parser.parse_args()
    seconds = options.idle_seconds or (3600.0 if options.long else 600.0)
    layout, report = Layout(top=ROOT / ".cache" / "bench", name="bench"), Steps()
    try:
        rows = measure(layout, options.hosts, seconds, report)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        stop(layout, report)
    found = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": [row.as_dict() for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    text = document(found)
    (ROOT / "docs" / "benchmarks.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

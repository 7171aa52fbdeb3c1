# SPDX-License-Identifier: Apache-2.0
"""Memory, CPU time and wake-ups of the agent's resident processes, read from /proc on the managed host.

Runs on the managed host, needs the standard library only, and prints one JSON object: for each unit ``{"pid", "comm",
"pss_kib", "rss_kib", "cpu_percent", "wakeups_per_minute", "descriptors"}``, and ``"sum_pss_kib"``, ``"sum_rss_kib"``,
``"sum_cpu_percent"``, ``"seconds"``. CPU is the kernel's own account (``schedstat``, nanoseconds on a processor) in
percent of one core; a wake-up is a voluntary context switch. Workers are processes of their own and not counted: the
figures are those of the residents.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time

UNITS = ("himdsd", "gcad", "extd")


def main_pid(unit: str) -> int:
    shown = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", unit], check=True, capture_output=True, text=True
    )
    pid = int(shown.stdout)
    if pid == 0:
        raise SystemExit(f"{unit} does not run: nothing to measure")
    return pid


def field(pid: int, name: str, key: str) -> int:
    with open(f"/proc/{pid}/{name}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith(key + ":"):
                return int(line.split()[1])
    raise SystemExit(f"/proc/{pid}/{name} has no {key}")


def on_processor_ns(pid: int) -> int:
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as line:
        return int(line.read().split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    pids = {unit: main_pid(unit) for unit in UNITS}
    before = {
        unit: (on_processor_ns(pid), field(pid, "status", "voluntary_ctxt_switches")) for unit, pid in pids.items()
    }
    begun = time.monotonic()
    time.sleep(options.seconds)
    elapsed = time.monotonic() - begun
    result: dict[str, object] = {}
    sums = {"sum_pss_kib": 0.0, "sum_rss_kib": 0.0, "sum_cpu_percent": 0.0}
    for unit, pid in pids.items():
        with open(f"/proc/{pid}/comm", encoding="ascii") as name:
            comm = name.read().strip()
        row: dict[str, float | str] = {
            "pid": pid,
            "comm": comm,
            "pss_kib": field(pid, "smaps_rollup", "Pss"),
            "rss_kib": field(pid, "smaps_rollup", "Rss"),
            "cpu_percent": round((on_processor_ns(pid) - before[unit][0]) / elapsed / 1e7, 4),
            "wakeups_per_minute": round(
                (field(pid, "status", "voluntary_ctxt_switches") - before[unit][1]) * 60 / elapsed, 2
            ),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        }
        result[unit] = row
        for key in sums:
            sums[key] += float(row[key.removeprefix("sum_")])
    print(json.dumps({**result, **{key: round(value, 4) for key, value in sums.items()}, "seconds": round(elapsed, 1)}))


if __name__ == "__main__":
    main()

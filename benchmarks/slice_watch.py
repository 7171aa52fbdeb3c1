# SPDX-License-Identifier: Apache-2.0
"""How much of one core a slice takes, by the kernel's own account, and what it may take.

Runs on the managed host, needs the standard library only, and prints one JSON object: ``{"writable": false}`` where the
kernel limits no group's time on the processor (there is no ``cpu.max`` in the slice's control group), else
``{"writable": true, "limit_percent", "used_percent", "seconds"}``; per cents are of one core, the limit is null where
there is none. Time is the host's own, as the kernel's account is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time

ROOT = "/sys/fs/cgroup"


def used_us(folder: str) -> int:
    with open(f"{folder}/cpu.stat", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("usage_usec "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slice", required=True)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    shown = subprocess.run(
        ["systemctl", "show", "--property=ControlGroup", "--value", options.slice],
        check=True,
        capture_output=True,
        text=True,
    )
    folder = ROOT + shown.stdout.strip()
    try:
        with open(f"{folder}/cpu.max", encoding="ascii") as line:
            quota, period = line.read().split()
    except FileNotFoundError:
        print(json.dumps({"writable": False}))
        return
    begun, before = time.monotonic(), used_us(folder)
    time.sleep(options.seconds)
    elapsed, used = time.monotonic() - begun, used_us(folder) - before
    limit = None if quota == "max" else 100 * int(quota) / int(period)
    result = {"writable": True, "limit_percent": limit, "used_percent": round(used / elapsed / 1e4, 3)}
    print(json.dumps({**result, "seconds": round(elapsed, 3)}))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""How much of one core a slice takes, by the kernel's own account, and what it may take.

Runs on the managed host, needs the standard library only, and prints one JSON object: ``{"writable": false}`` where the
host's control groups have no cpu controller, so that nobody's time on the processor can be limited, else
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


def limit_percent(folder: str) -> float | None:
    try:
        with open(f"{folder}/cpu.max", encoding="ascii") as line:
            quota, period = line.read().split()
    except FileNotFoundError:
        return None  # nothing asks for one there, and systemd has taken the controller off the group
    return None if quota == "max" else 100 * int(quota) / int(period)


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
    with open(f"{ROOT}/cgroup.controllers", encoding="ascii") as line:
        if "cpu" not in line.read().split():
            print(json.dumps({"writable": False}))
            return
    limit = limit_percent(folder)
    begun, before = time.monotonic(), used_us(folder)
    time.sleep(options.seconds)
    elapsed, used = time.monotonic() - begun, used_us(folder) - before
    result = {"writable": True, "limit_percent": limit, "used_percent": round(used / elapsed / 1e4, 3)}
    print(json.dumps({**result, "seconds": round(elapsed, 3)}))


if __name__ == "__main__":
    main()

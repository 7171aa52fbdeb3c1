# SPDX-License-Identifier: Apache-2.0
"""States of the agent's services for `show` (agent-surface.md section 5.4: the words of the service manager)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

# Display name, unit; names of agent-overview.txt.
SERVICES = (
    ("Agent Service", "himdsd"),
    ("Azure Arc Proxy", "arcproxyd"),
    ("Extension Service", "extd"),
    ("GC Service", "gcad"),
)
SYSTEMCTL = ("/usr/bin/systemctl", "/bin/systemctl")
TIMEOUT = 5.0


def states(known: Any, himds_answers: bool) -> list[dict[str, str]]:
    """`displayName`, `serviceName`, `status` of every service.

    On Windows the words are those of its service manager. Where systemd does not run, himds knows the services that are
    connected to it (`known`, the member of `status`).
    """
    if sys.platform == "win32":
        from agent_runtime.platform import windows

        return windows.services()
    told = ask_systemd()
    if told is None:
        told = {}
        for item in known if isinstance(known, list) else ():
            if isinstance(item, dict):
                told[str(item.get("serviceName"))] = str(item.get("status"))
        told["himdsd"] = "active" if himds_answers else "inactive"
    return [{"displayName": n, "serviceName": u, "status": told.get(u, "unknown")} for n, u in SERVICES]


def ask_systemd() -> dict[str, str] | None:
    """The state of every unit, in one call; None where systemd does not run."""
    program = next((path for path in SYSTEMCTL if os.access(path, os.X_OK)), None)
    if program is None or not os.path.isdir("/run/systemd/system"):
        return None
    units = [unit for _, unit in SERVICES]
    try:
        done = subprocess.run(
            [program, "is-active", *(f"{unit}.service" for unit in units)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.decode("ascii", "replace").split()
    return dict(zip(units, words)) if len(words) == len(units) else None

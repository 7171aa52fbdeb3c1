# SPDX-License-Identifier: Apache-2.0
"""Becomes another program after it has written itself into the ledger.

    python3 -IS launch.py LEDGER NAME [CGROUP...] -- PROGRAM [ARGUMENT...]

The ledger thus knows every process before that process does anything, whatever happens to the one that asked for it.
Runs as a plain file in an isolated interpreter: it imports nothing of this project.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Record, enter the control groups, become the program. Ends with an error when the ledger is gone."""
    ledger, name, *rest = arguments
    split = rest.index("--")
    cgroups, argv = rest[:split], rest[split + 1 :]
    pid = os.getpid()
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    entry = {"kind": "process", "name": name, "pid": pid, "started": int(stat.rpartition(")")[2].split()[19])}
    # No O_CREAT: where the ledger is gone the lab has been destroyed and nothing may start any more.
    handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    os.write(handle, json.dumps(entry).encode("ascii") + b"\n")
    os.fsync(handle)
    for cgroup in cgroups:
        Path(cgroup, "cgroup.procs").write_text(str(pid), encoding="ascii")
    os.execvp(argv[0], argv)  # noqa: S606 - becoming that program is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])

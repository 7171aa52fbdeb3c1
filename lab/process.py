# SPDX-License-Identifier: Apache-2.0
"""Processes, told apart by pid and start time: a pid alone may belong to somebody else tomorrow."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path


def boot_id() -> str:
    """Identity of this boot of the machine; start times count from it (proc(5), random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def parse_start_time(stat: str) -> int:
    """Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)).

    The second field is the command in parentheses and may hold blanks and parentheses itself.
    """
    return int(stat.rpartition(")")[2].split()[19])


def parse_state(stat: str) -> str:
    """State letter: field 3 of /proc/PID/stat."""
    return stat.rpartition(")")[2].split()[0]


def _stat(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_time(pid: int) -> int | None:
    """Start time of a process, None when there is none of that number."""
    stat = _stat(pid)
    return None if stat is None else parse_start_time(stat)


def alive(pid: int, started: int) -> bool:
    """Whether that very process still runs; a zombie does not."""
    stat = _stat(pid)
    return stat is not None and parse_start_time(stat) == started and parse_state(stat) not in "ZX"


def children(pid: int) -> list[int]:
    """Direct children of the process (its main thread)."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in text.split()]


def end(pid: int, started: int, *, grace: float) -> bool:
    """End that very process: SIGTERM, after `grace` seconds SIGKILL. True when it is gone.

    The handle is opened before the start time is looked at, so the number cannot change hands in between.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not alive(pid, started):
            return True
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            if patience <= 0:
                continue
            signal.pidfd_send_signal(handle, number)
            if _wait(handle, pid, started, patience):
                return True
        return False
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def _wait(handle: int, pid: int, started: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while alive(pid, started):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        poll.poll(remaining * 1000)
    return True

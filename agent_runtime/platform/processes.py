# SPDX-License-Identifier: Apache-2.0
"""Processes that are not ours to wait for in the ordinary way: told apart by start time and command line,
waited for by a descriptor, ended as a group."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Optional

from agent_runtime import errors

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def spawn(argv: Sequence[str]) -> int:
    """Starts a program in a session of its own, without input and output, with the plainest of environments; its
    number. Errors: OSError."""
    if sys.platform == "win32":
        raise errors.NotSupported("this release has no services on Windows")
    return os.posix_spawn(
        argv[0],
        list(argv),
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGINT],
    )


def boot_id() -> str:
    """Identifier of this boot; empty where there is none."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def boot_seconds() -> float:
    """Seconds since the boot that boot_id names: no setting of the clock moves it, and every process has the same."""
    if sys.platform == "win32":
        return time.monotonic()
    else:  # noqa: RET505 - mypy judges each system's branch by itself
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_time(pid: int) -> Optional[str]:
    """When a process began, in the kernel's own count; None when it is not there, or has ended and was not waited
    for (proc(5), fields 3 and 22 of stat)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
    except (OSError, IndexError):
        return None


def is_alive(pid: int, start: str, word: str) -> bool:
    """Whether the very process goes on, and not another that was given its number: its command line has `word` in
    it, so that also after a reboot, when times begin anew, it is none else."""
    if pid <= 0 or start_time(pid) != start:
        return False
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return word.encode("utf-8", "surrogateescape") in file.read()
    except OSError:
        return False


def is_there(pid: int) -> bool:
    """Whether some process of this number goes on."""
    return pid > 0 and start_time(pid) is not None


def handle_of(pid: int) -> Optional[int]:
    """A descriptor that can be read once the process has ended (pidfd_open(2)); None where the kernel has none, or the
    process is gone."""
    if sys.platform == "win32" or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def kill_group(pid: int) -> None:
    """Ends a process and everybody in its group."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def reap(pid: int) -> Optional[int]:
    """The exit code of a child that has ended; None when it is no child of ours, or goes on."""
    if sys.platform == "win32":
        return None
    with contextlib.suppress(ChildProcessError):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == pid:
            return os.waitstatus_to_exitcode(status)
    return None

# SPDX-License-Identifier: Apache-2.0
"""What root's programs need of the operating system: who runs them, files in folders of others, one at a time."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator


def is_administrator() -> bool:
    """Whether this process may change the agent's state."""
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.shell32.IsUserAnAdmin())
    else:  # noqa: RET505 - mypy judges each system's branch by itself
        return os.geteuid() == 0


def caller() -> str:
    """Who runs this, for logs: the user id behind sudo, or the process's; on Windows the account's name."""
    if sys.platform == "win32":
        return os.environ.get("USERNAME", "unknown")
    else:  # noqa: RET505
        told = os.environ.get("SUDO_UID", "")
        return told if told.isdigit() else str(os.geteuid())


def open_plain(path: str, flags: int, mode: int = 0o640) -> int:
    """A descriptor of an ordinary file, for root in a folder that another user owns.

    No link is followed, a pipe holds nobody up, and a file with a second name, which could be one of root's own, is
    refused. Errors: OSError.
    """
    if sys.platform == "win32":
        return os.open(path, flags | os.O_BINARY | os.O_NOINHERIT, mode)
    else:  # noqa: RET505
        handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
        known = os.fstat(handle)
        if not stat.S_ISREG(known.st_mode) or known.st_nlink != 1:
            os.close(handle)
            raise OSError(0, "not an ordinary file")
        return handle


@contextlib.contextmanager
def alone(folder: str, *, waits: bool = False) -> Iterator[None]:
    """Holds the lock of a folder. Errors: BlockingIOError while another process holds it: at once, or with `waits`
    never (on Windows after ten seconds)."""
    if sys.platform == "win32":
        import msvcrt

        handle = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT)
        try:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
            except OSError as problem:
                raise BlockingIOError(problem.errno, "locked") from None
            yield
        finally:
            os.close(handle)
    else:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(handle)


@contextlib.contextmanager
def in_turn(folder: str) -> Iterator[None]:
    """Holds the lock of a folder, waiting for whoever has it. Errors: OSError."""
    if sys.platform == "win32":
        import msvcrt

        handle = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
            yield
        finally:
            os.close(handle)
    else:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def group_of(name: str) -> int:
    """Number of a group; -1 (leave as it is) where there is none, as in a checkout, or where groups are no numbers."""
    if sys.platform == "win32":
        return -1
    else:  # noqa: RET505
        import grp

        try:
            return int(grp.getgrnam(name).gr_gid)
        except KeyError:
            return -1


def give(handle: int, mode: int, group: int, owner: int = -1) -> None:
    """Set exactly these rights on an open file, whatever the umask was; -1 leaves owner or group as they are. On
    Windows a file has the rights of its folder."""
    if sys.platform != "win32":
        os.fchmod(handle, mode)
        if group >= 0 or owner >= 0:
            os.fchown(handle, owner, group)


def owner_of(folder: str) -> tuple[int, int]:
    """Number of the user and of the group that own a folder; -1 where owners are no numbers. Errors: OSError."""
    if sys.platform == "win32":
        return -1, -1
    else:  # noqa: RET505
        known = os.stat(folder, follow_symlinks=False)
        return known.st_uid, known.st_gid


def forbids_programs(folder: str) -> bool:
    """Whether its file system was mounted noexec. Errors: OSError."""
    if sys.platform == "win32":
        return False
    else:  # noqa: RET505
        return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)


def sync_folder(folder: str) -> None:
    """Make renames and removals in a folder survive a power cut. NTFS journals them."""
    if sys.platform != "win32":
        handle = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def architecture() -> str:
    """The processor's kind as packages name it in lower case; empty where that is not known."""
    if sys.platform == "win32":
        return os.environ.get("PROCESSOR_ARCHITECTURE", "").lower()
    else:  # noqa: RET505
        return os.uname().machine.lower()


def operating_system() -> dict[str, str]:
    """`osName`, `osVersion`, `osKernel`, `osArchitecture`, `osHostname`; empty where unknown."""
    if sys.platform == "win32":
        from agent_runtime.platform import windows

        return windows.operating_system()
    import platform

    release: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                pairs = (line.strip().partition("=") for line in file)
                release = {key: value.strip("'\"") for key, _, value in pairs if value}
            break
    return {
        "osName": release.get("NAME", platform.system()),
        "osVersion": release.get("VERSION_ID", ""),
        "osKernel": platform.release(),
        "osArchitecture": platform.machine(),
        "osHostname": platform.node(),
    }

# SPDX-License-Identifier: Apache-2.0
"""The package managers of Linux, as far as an upgrade of the agent needs them.

dpkg is used as apt uses it: whoever holds the frontend's lock has it to himself (dpkg's `DPKG_FRONTEND_LOCKED`). rpm
waits for its own lock.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Optional, Protocol

from agent_runtime import errors
from agent_runtime.platform import processes

NAME = "azcmagent"
INSTALL_SECONDS = 900.0
ASK_SECONDS = 60.0
PAUSE = 5.0
_WORDS = 400
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "DPKG_FRONTEND_LOCKED": "true",
}
_WHOLE = ("installed", "triggers-awaited", "triggers-pending")
_GONE = ("not-installed", "config-files", "")


class Found(NamedTuple):
    """What is installed: version, empty where nothing is, and whether it is configured."""

    version: str
    whole: bool


class Manager(Protocol):
    """One package manager. `format`: deb or rpm, the end of a package's name."""

    format: str

    def installed(self) -> Found:
        """The agent's package. Errors: AZCM0002 when nobody says."""

    def describe(self, path: str) -> tuple[str, str]:
        """Name and version in a package's file. Errors: AZCM0074 when it is no package."""

    def install(self, path: str, waits: Callable[[], None]) -> str:
        """Install a package over whatever version is there; what went wrong, empty for nothing. `waits` is called while
        another holds the package manager. Errors: OSError."""


class Dpkg:
    """Debian's. `root`: another system's root, for tests."""

    format = "deb"

    def __init__(self, root: str = "") -> None:
        self._options = [f"--root={root}"] if root else []
        self._locks = [f"{root}/var/lib/dpkg/{name}" for name in ("lock-frontend", "lock")]

    def installed(self) -> Found:
        shape = "${db:Status-Status} ${Version}"
        done = _ask(["dpkg-query", *self._options, "--show", f"--showformat={shape}", NAME])
        if done.returncode not in (0, 1):
            raise errors.InternalError(f"dpkg-query does not say what is installed: {_last(done.stderr)}")
        state, _, version = done.stdout.partition(" ")
        return Found("" if state in _GONE else version.strip(), state in _WHOLE)

    def describe(self, path: str) -> tuple[str, str]:
        done = _ask(["dpkg-deb", "--show", "--showformat=${Package} ${Version}", path])
        return _named(path, done)

    def install(self, path: str, waits: Callable[[], None]) -> str:
        with self._alone(waits):
            argv = ["dpkg", *self._options, "--force-confdef", "--force-confold", "--install", path]
            return run(argv, INSTALL_SECONDS)

    @contextlib.contextmanager
    def _alone(self, waits: Callable[[], None]) -> Iterator[None]:
        """Holds the frontend's lock, and sees that no dpkg works on, such as one whose frontend was killed."""
        if sys.platform == "win32":
            raise errors.NotSupported("dpkg is no package manager of Windows")
        import fcntl

        while True:
            handles = []
            try:
                for path in self._locks:
                    handles.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640))
                    fcntl.lockf(handles[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.close(handles.pop())  # dpkg takes that one itself
                yield
                return
            except (BlockingIOError, PermissionError):
                waits()
            finally:
                for handle in handles:
                    os.close(handle)
            time.sleep(PAUSE)


class Rpm:
    """That of Red Hat and its family."""

    format = "rpm"

    def installed(self) -> Found:
        done = _ask(["rpm", "--query", "--queryformat", "%{VERSION}", NAME])
        return Found(done.stdout.strip(), True) if done.returncode == 0 else Found("", False)

    def describe(self, path: str) -> tuple[str, str]:
        done = _ask(["rpm", "--query", "--package", "--nosignature", "--queryformat", "%{NAME} %{VERSION}", path])
        return _named(path, done)

    def install(self, path: str, waits: Callable[[], None]) -> str:
        # The package is signed by the repository's metadata, and its hash was just compared.
        return run(["rpm", "--upgrade", "--oldpackage", "--replacepkgs", "--nosignature", path], INSTALL_SECONDS)


def here() -> Manager:
    """The package manager that has installed the agent. Errors: AZCM0003 when none has, or systemd does not run."""
    if sys.platform == "win32":
        raise errors.NotSupported("the agent does not upgrade itself on Windows in this release", "See docs/windows.md")
    if not os.path.isdir("/run/systemd/system"):
        raise errors.NotSupported(
            "the agent cannot upgrade itself where systemd does not run: nobody would see that the new version works",
            "Install the new package by hand",
        )
    for program, manager in (("dpkg-query", Dpkg()), ("rpm", Rpm())):
        if _program(program) and manager.installed().version:
            return manager
    raise errors.NotSupported(
        "the agent was not installed from its deb or rpm, so nothing can upgrade it", "Install it from its package"
    )


def run(argv: Sequence[str], seconds: float) -> str:
    """Run a program to its end; what went wrong, empty for nothing. Errors: OSError."""
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_ENVIRONMENT,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        processes.kill_group(child.pid)
        child.wait()
        return f"{os.path.basename(argv[0])} took longer than {seconds:g} s"
    if child.returncode == 0:
        return ""
    return f"{os.path.basename(argv[0])} ended with {child.returncode}: {_last(output)}"


def _program(name: str) -> Optional[str]:
    for folder in ("/usr/bin", "/bin"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    return None


def _ask(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=_ENVIRONMENT,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise errors.InternalError(f"{argv[0]} cannot be asked: {type(problem).__name__}") from None


def _named(path: str, done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    name, _, version = done.stdout.strip().partition(" ")
    if done.returncode != 0 or not version:
        raise errors.ExtensionNotAdded(f"{path} is no package of this system: {_last(done.stderr)}")
    return name, version


def _last(output: str) -> str:
    """The last words of a program, in one line."""
    words = " ".join(output.split())
    return words if len(words) <= _WORDS else f"…{words[-_WORDS:].partition(' ')[2]}"

# SPDX-License-Identifier: Apache-2.0
"""The package managers of Linux, as far as an upgrade of the agent needs them.

dpkg is used as apt uses it: whoever holds the frontend's lock has it to himself (dpkg's `DPKG_FRONTEND_LOCKED`). rpm
takes its own lock, which is looked at before.
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

    def is_held(self) -> bool:
        """Whether somebody uses the package manager, so that a package may be half there. Errors: OSError."""

    def install(self, path: str, waits: Callable[[], None], ready: Callable[[], bool], output: str) -> Optional[str]:
        """Install a package over whatever version is there; what went wrong, empty for nothing. `waits` is called while
        another holds the package manager; `ready` once nobody else does: False, and nothing is done (None). `output`:
        the file for what the package manager says. Errors: OSError; of `ready`."""


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

    def is_held(self) -> bool:
        return _is_held(self._locks)

    def install(self, path: str, waits: Callable[[], None], ready: Callable[[], bool], output: str) -> Optional[str]:
        with self._alone(waits):
            if not ready():
                return None
            argv = ["dpkg", *self._options, "--force-confdef", "--force-confold", "--install", path]
            return run(argv, INSTALL_SECONDS, output)

    @contextlib.contextmanager
    def _alone(self, waits: Callable[[], None]) -> Iterator[None]:
        """Holds the frontend's lock, and sees that no dpkg works on, such as one whose frontend was killed."""
        while True:
            handles = _locked(self._locks)
            if handles is not None:
                break
            waits()
            time.sleep(PAUSE)
        try:
            os.close(handles.pop())  # dpkg takes that one itself
            yield
        finally:
            _close(handles)


class Rpm:
    """That of Red Hat and its family."""

    format = "rpm"
    _LOCKS = ("/usr/lib/sysimage/rpm/.rpm.lock", "/var/lib/rpm/.rpm.lock")

    def installed(self) -> Found:
        done = _ask(["rpm", "--query", "--queryformat", "%{VERSION}\n", NAME])
        if done.returncode != 0:
            if "is not installed" in done.stdout:
                return Found("", False)
            raise errors.InternalError(f"rpm does not say what is installed: {_last(done.stderr or done.stdout)}")
        found = done.stdout.split()
        # Two are there while one takes the other's place, and after that was cut off: the newer came last.
        return Found(found[-1], len(found) == 1)

    def describe(self, path: str) -> tuple[str, str]:
        done = _ask(["rpm", "--query", "--package", "--nosignature", "--queryformat", "%{NAME} %{VERSION}", path])
        return _named(path, done)

    def is_held(self) -> bool:
        # It is there once rpm has been used, and is nobody's to make.
        return _is_held([path for path in self._LOCKS if os.path.exists(path)][:1])

    def install(self, path: str, waits: Callable[[], None], ready: Callable[[], bool], output: str) -> Optional[str]:
        while self.is_held():
            waits()
            time.sleep(PAUSE)
        if not ready():
            return None
        # The package is signed by the repository's metadata, and its hash was just compared.
        argv = ["rpm", "--upgrade", "--oldpackage", "--replacepkgs", "--nosignature", path]
        return run(argv, INSTALL_SECONDS, output)


def _locked(paths: Sequence[str]) -> Optional[list[int]]:
    """Descriptors that hold these locks; None when somebody else holds one. Errors: OSError."""
    if sys.platform == "win32":
        raise errors.NotSupported("Windows has no package manager with locks")
    import fcntl

    handles: list[int] = []
    try:
        for path in paths:
            handles.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640))
            try:
                fcntl.lockf(handles[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _close(handles)
                return None
    except BaseException:
        _close(handles)
        raise
    return handles


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


def _is_held(paths: Sequence[str]) -> bool:
    handles = _locked(paths)
    _close(handles or ())
    return handles is None


def of_format(form: str) -> Manager:
    """The package manager of an upgrade that has begun, whatever is installed by now. Errors: AZCM0003."""
    if form not in ("deb", "rpm"):
        raise errors.NotSupported(f"there is no package manager for {form!r} here")
    return Dpkg() if form == "deb" else Rpm()


def run(argv: Sequence[str], seconds: float, output: str) -> str:
    """Run a program to its end; what went wrong, empty for nothing. What it says goes to the file `output`: it goes on
    when this process is killed, and whoever inherits its streams keeps nobody waiting. Errors: OSError."""
    with open(output, "w+b") as said:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            processes.kill_group(child.pid)
            child.wait()
            return f"{os.path.basename(argv[0])} took longer than {seconds:g} s"
        if code == 0:
            return ""
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4 * _WORDS))
        return f"{os.path.basename(argv[0])} ended with {code}: {_last(said.read().decode('utf-8', 'replace'))}"


def _close(handles: Sequence[int]) -> None:
    for handle in handles:
        os.close(handle)


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

# SPDX-License-Identifier: Apache-2.0
"""Runs one command of a handler so that it outlives this process, and picks up its end afterwards.

A small wrapper in sh runs the command and writes, below `running/ID/`, `pid` (its number and start time) before and
`exit` after it. Whoever writes `pid` first owns the run: a wrapper that comes late finds it taken and does nothing, so
no command runs twice. Under systemd the wrapper is a transient service in the handler's slice, outside extd's own
walls; elsewhere, and when systemd refuses, a session of its own.
Output goes to files, never to pipes: children that a handler leaves behind hold them open (extension-handler.md 7).
The command, its arguments and its variables come in one file, for they may be secrets: it lies in memory, never on a
disk, and is gone before the command begins.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from agent_runtime.extensions import governance, texts
from agent_runtime.platform import processes
from agent_runtime.platform.paths import Paths
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop, Timeout, TimeoutExpired, readable, sleep
from agent_runtime.state import atomic

# Of each stream that is kept: half of it from its beginning, half from its end, where what went wrong is said.
OUTPUT_LIMIT = 64 * 1024
# The wrapper is there at once, or never: the machine is too loaded to start a shell.
CLAIM_SECONDS, CLAIM_PAUSE = 30.0, 0.05
# Where the kernel has no pidfd (before 5.3).
LOOK_PAUSE = 5.0
# What a shell says of a command that was killed.
KILLED_CODE = 128 + 9
# A command has ended, and what with could not be written: the disk failed, or has no room even for what was reserved.
LOST_CODE = -1
# Room for an exit code, which a full disk has to take at the end.
_RESERVED = b" " * 15 + b"\n"
# `run`, `given` and `folder` are set before it. It is a file, for systemd expands what begins with $ in arguments. What
# the command is given is set in a process of its own, where no name of it is one of ours.
WRAPPER = """
umask 077
read -r stat </proc/$$/stat
set -- ${stat##*) }
echo "$$ ${20}" >"$run/pid.$$" && ln "$run/pid.$$" "$run/pid" || exit 0
rm -f "$run/pid.$$"
(umask 022 && cd "$folder" && . "$given") </dev/null >>"$run/stdout" 2>>"$run/stderr"
code=$?
echo "$code" 1<>"$run/exit.new" && sync "$run/exit.new" 2>/dev/null
mv "$run/exit.new" "$run/exit"
"""


class Command(NamedTuple):
    """`text` for the shell with `arguments`, run in `folder` with `environment`, at most `seconds` long. `handler`
    names the slice."""

    handler: str
    text: str
    folder: str
    environment: Mapping[str, str]
    seconds: float
    arguments: Sequence[str] = ()


class Ended(NamedTuple):
    """How a command ended: its exit code (None: its time was over and it was killed; LOST_CODE: it is not known), what
    it wrote: of very much beginning and end (OUTPUT_LIMIT), with a line between."""

    code: Optional[int]
    out: str
    err: str
    seconds: float


class Runner:
    """Runs commands, each in a folder of its own below `folder`; what they are given lies in `memory` until then.
    `systemd_run`, `systemctl`: programs, empty where there is no systemd; names of units begin with `prefix`."""

    def __init__(
        self,
        loop: Loop,
        folder: str,
        memory: str,
        log: Log,
        systemd_run: str = "",
        systemctl: str = "",
        prefix: str = "hawser-extension",
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._memory = memory
        self._log = log
        self._systemd_run = systemd_run
        self._systemctl = systemctl
        self._prefix = prefix

    async def run(self, ident: str, command: Command) -> Ended:
        """Runs the command unless it has been begun already under this `ident`; its end. Errors: OSError."""
        if self.started(ident) is None:
            await self.begin(ident, command)
        return await self.end(ident, command.seconds)

    async def begin(self, ident: str, command: Command) -> float:
        """Starts the command; when that was (Unix seconds). Errors: OSError, and then `started` tells whether it was
        started all the same."""
        started = time.time()
        await self._start(ident, self._place(ident), command, started)
        return started

    async def end(self, ident: str, seconds: float) -> Ended:
        """Waits for the end of a command that was started, or ends it when it is so old."""
        folder = self._place(ident)
        code: Optional[int] = None
        try:
            with Timeout(self._loop, max(0.0, seconds - self.age(ident))):
                code = await self._end(folder)
        except TimeoutExpired:
            code = self._exit_code(folder)
            if code is None:
                await self.kill(ident)
        out, err = (_excerpt(os.path.join(folder, name)) for name in ("stdout", "stderr"))
        return Ended(code, out, err, self.age(ident))

    def age(self, ident: str) -> float:
        """Seconds since the run began. A clock that is set in between gives no command more time, or less."""
        begun = self._begun(ident)
        if begun is None:
            return 0.0
        if begun["boot"] == processes.boot_id():
            return max(0.0, processes.boot_seconds() - float(begun["clock"]))
        return max(0.0, time.time() - float(begun["started"]))

    def started(self, ident: str) -> Optional[float]:
        """When the run began (Unix seconds); None when no wrapper has claimed it, and then none will: it may begin."""
        folder, known = self._place(ident), self._begun(ident)
        if known is None:
            return None
        claim = os.path.join(folder, f"pid.{os.getpid()}.engine")
        try:
            with open(claim, "x", encoding="ascii"):
                pass
            os.link(claim, os.path.join(folder, "pid"))
        except FileExistsError:
            return float(known["started"]) if self._is_whole(folder, str(known["boot"])) else None
        finally:
            atomic.unlink(claim)
        return None

    def _begun(self, ident: str) -> Optional[dict[str, Any]]:
        """What was written down before the run began."""
        try:
            return atomic.read_json(os.path.join(self._place(ident), "command.json"))
        except (OSError, ValueError):
            return None

    def tails(self, ident: str, limit: int) -> tuple[bytes, bytes]:
        """The last `limit` bytes of output and error so far."""
        out, err = (_tail(os.path.join(self._place(ident), name), limit) for name in ("stdout", "stderr"))
        return out, err

    def _is_whole(self, folder: str, boot: str) -> bool:
        """Whether the run of a claimed folder has ended, goes on or was killed; not after a reboot in the middle of it.
        `boot`: as this service saw it when it began; within its walls systemd may show another than outside."""
        return self._exit_code(folder) is not None or (_claim(folder)[0] > 0 and boot == processes.boot_id())

    def forget(self, ident: str) -> None:
        """Removes what a run has left."""
        atomic.unlink(self._given(ident))
        _remove(self._place(ident))

    def forget_others(self, *idents: Optional[str]) -> None:
        """Removes what other runs have left."""
        for folder, remove in ((self._folder, _remove), (self._memory, atomic.unlink)):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for name in os.listdir(folder):
                if name not in idents:
                    remove(os.path.join(folder, name))

    def is_running(self) -> bool:
        """Whether a command that was begun goes on."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                folder = self._place(name)
                if self._exit_code(folder) is None and processes.is_alive(*_claim(folder), folder):
                    return True
        return False

    def _place(self, ident: str) -> str:
        return os.path.join(self._folder, ident)

    def _given(self, ident: str) -> str:
        return os.path.join(self._memory, ident)

    async def _start(self, ident: str, folder: str, command: Command, started: float) -> None:
        if os.path.lexists(folder):
            # A late wrapper of the former attempt holds the old folder open by no name that is used again.
            _remove(folder)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # In a file: a proxy's URL may hold a password, and command lines are everybody's to read.
        path = self._given(ident)
        os.makedirs(self._memory, mode=0o700, exist_ok=True)
        atomic.write_bytes(path, _given(path, command).encode("utf-8", "surrogateescape"), durable=False)
        told = (("run", folder), ("given", path), ("folder", command.folder))
        script = "".join(f"{name}={shlex.quote(value)}\n" for name, value in told) + WRAPPER
        atomic.write_bytes(os.path.join(folder, "script"), script.encode("utf-8", "surrogateescape"))
        atomic.write_bytes(os.path.join(folder, "exit.new"), _RESERVED)
        begun = {"started": started, "boot": processes.boot_id(), "clock": processes.boot_seconds()}
        atomic.write_json(os.path.join(folder, "command.json"), begun)
        argv = ["/bin/sh", os.path.join(folder, "script")]
        unit = self._unit(ident)
        if not self._systemd_run:
            processes.spawn(argv)
        elif not await self._start_unit(unit, command, argv):
            # Should it have been started all the same, the wrapper that comes second does nothing.
            self._log.warning(f"systemd does not run {unit}; running it plainly")
            processes.spawn(argv)
        end = time.monotonic() + CLAIM_SECONDS
        while not self._is_claimed(folder):
            if time.monotonic() > end:
                raise OSError(0, "the command could not be started")
            await sleep(CLAIM_PAUSE)

    def _is_claimed(self, folder: str) -> bool:
        return os.path.exists(os.path.join(folder, "pid"))

    async def _start_unit(self, unit: str, command: Command, argv: Sequence[str]) -> bool:
        words = [self._systemd_run, *governance.starting(unit, command.handler), *argv]
        return await self.call(words) == 0

    async def limit(self, calls: Sequence[Sequence[str]]) -> None:
        """Puts limits in force or lifts them. What fails is logged and blocks nothing."""
        if not self._systemctl:
            return
        for words in calls:
            if await self.call([self._systemctl, "--quiet", "--no-ask-password", *words]) != 0:
                self._log.warning(f"systemctl {' '.join(words)} failed; going on without this limit")

    async def call(self, argv: Sequence[str], seconds: float = 30.0) -> Optional[int]:
        """Exit code of a short program; None when it cannot be run or takes too long."""
        try:
            child = processes.spawn(argv)
        except OSError:
            return None
        try:
            with Timeout(self._loop, seconds):
                await self._gone(child)
        except TimeoutExpired:
            processes.kill_group(child)
        return processes.reap(child)

    async def _end(self, folder: str) -> int:
        """Waits for the wrapper's end; the command's exit code."""
        pid, start = _claim(folder)
        while True:
            code = self._exit_code(folder)
            if code is not None:
                processes.reap(pid)
                return code
            if not processes.is_alive(pid, start, folder):
                # Between the two looks it may have ended well.
                code = self._exit_code(folder)
                return KILLED_CODE if code is None else code
            await self._gone(pid)

    async def _gone(self, pid: int) -> None:
        """Waits until a process has ended, or for a while where the kernel cannot tell."""
        handle = processes.handle_of(pid)
        if handle is None:
            if processes.is_there(pid):
                await sleep(LOOK_PAUSE)
            return
        try:
            await readable(handle)
        finally:
            os.close(handle)

    async def kill(self, ident: str) -> None:
        """Ends a command that was started, and what it has started."""
        folder = self._place(ident)
        pid, start = _claim(folder)
        if self._systemctl:
            await self.call([self._systemctl, "--quiet", "kill", "--signal=SIGKILL", self._unit(ident)])
        if processes.is_alive(pid, start, folder):
            processes.kill_group(pid)
        processes.reap(pid)

    def _unit(self, ident: str) -> str:
        return f"{self._prefix}-{ident}.service"

    def _exit_code(self, folder: str) -> Optional[int]:
        try:
            return int(atomic.read_bytes(os.path.join(folder, "exit"), 64))
        except OSError:
            return None
        except ValueError:
            return LOST_CODE


def _remove(folder: str) -> None:
    """A run's folder, which holds files alone; the wrapper may still write there."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            atomic.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def _given(path: str, command: Command) -> str:
    """Content of the file at `path` that the wrapper reads."""
    exports = [f"export {name}={shlex.quote(value)}\n" for name, value in command.environment.items()]
    words = ["/bin/sh", "-c", command.text, "sh", *command.arguments]
    return f"rm -f {shlex.quote(path)}\n{''.join(exports)}exec {' '.join(map(shlex.quote, words))}\n"


def _claim(folder: str) -> tuple[int, str]:
    """Number and start time of the wrapper; 0 where there is none."""
    try:
        pid, start = atomic.read_bytes(os.path.join(folder, "pid"), 256).decode("ascii").split()
        return int(pid), start
    except (OSError, ValueError):
        return 0, ""


def _excerpt(path: str) -> str:
    """A file of output; of one beyond OUTPUT_LIMIT beginning and end, and between them how much is left out."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= OUTPUT_LIMIT:
                return file.read(OUTPUT_LIMIT).decode("utf-8", "replace")
            head = file.read(OUTPUT_LIMIT // 2)
    except OSError:
        return ""
    end = texts.from_a_word(_tail(path, OUTPUT_LIMIT // 2))
    mark = f"\n[{size - len(head) - len(end)} bytes left out]\n".encode("ascii")
    return (head + mark + end).decode("utf-8", "replace")


def _tail(path: str, limit: int) -> bytes:
    """The last part of a file of output."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit)
    except OSError:
        return b""


def places(paths: Paths, name: str) -> tuple[str, str]:
    """The folders `folder` and `memory` of the Runner `name`."""
    return os.path.join(paths.extensions, name), os.path.join(paths.memory, name)


def systemd() -> dict[str, str]:
    """The programs of systemd where it runs this machine, as arguments of Runner."""
    if not os.path.isdir("/run/systemd/system"):
        return {}
    return {"systemd_run": program("systemd-run"), "systemctl": program("systemctl")}


def program(name: str) -> str:
    """The path of a program of the system; empty when it is missing, and then commands run plainly."""
    return next((path for path in (f"/usr/bin/{name}", f"/bin/{name}") if os.access(path, os.X_OK)), "")

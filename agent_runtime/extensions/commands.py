# SPDX-License-Identifier: Apache-2.0
"""Carries run commands out: beside each other, AT_ONCE at most, and beside extensions (docs/protocol.md section 15.5).

runcommands.py decides. An entry names its run in runcommands.json before the run begins, and an end is written there
before it is reported and what the run has left is removed: a service that was killed picks up what goes on, and nothing
runs twice.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from agent_runtime import errors
from agent_runtime.extensions import environment, governance, lists, ownkey, reports, runcommands, runner
from agent_runtime.extensions.runcommands import Given, Wish
from agent_runtime.extensions.runner import Command
from agent_runtime.extensions.steps import Call
from agent_runtime.extensions.store import CommandStore
from agent_runtime.extensions.texts import TEXT_LIMIT
from agent_runtime.extensions.timing import Timing
from agent_runtime.platform import processes
from agent_runtime.service.desired import Host
from agent_runtime.service.loop import Event, Task, Timer, sleep
from agent_runtime.state import atomic

WORKER_SECONDS, STOP_SECONDS = 60.0, 10.0
# A signature that the reported end would begin in is found in what stands before it.
TAIL = 2 * TEXT_LIMIT
_UNKNOWN = "What this machine knew of its run commands was damaged: this one may have run. Run it again."
_FORGOTTEN = "The hub was restored from a backup that does not have this script. Run it again."


class Account(NamedTuple):
    """Whom a script runs as, and where."""

    name: str
    uid: int
    gid: int
    home: str


class Commands:
    """`call` runs a worker's verb."""

    def __init__(self, host: Host, call: Call, timing: Timing) -> None:
        folder = host.paths.extensions
        self._host = host
        self._log = host.log
        self._call = call
        self._timing = timing
        self._store = CommandStore(folder)
        self._scripts = os.path.join(folder, "scripts")
        self._key = ownkey.key_path(host.paths)
        places = runner.places(host.paths, "commands")
        self._runner = runner.Runner(host.loop, *places, host.log, **runner.systemd(), prefix="hawser-command")
        self._reporter = reports.Reporter(
            host.loop, timing.report, self._data, lambda data: host.report(runcommands.KIND, data), runcommands.moves
        )
        self._work = Event()
        self._tasks: dict[str, Task] = {}
        self._wishes: dict[str, Wish] = {}
        self._limits: Optional[governance.Limits] = None
        self._is_unknown = False
        # The next round, while something is held back because the document has expired by this machine's clock.
        self._clock: Optional[Timer] = None

    def look(self) -> None:
        """Document, configuration or binding may have changed."""
        self._work.set()

    async def run(self) -> None:
        """Works for ever."""
        damage = self._store.open()
        if damage:
            self._log.error(damage)
            self._is_unknown = True
        os.makedirs(self._scripts, mode=0o700, exist_ok=True)
        for name in filter(atomic.is_temporary, os.listdir(self._scripts)):
            atomic.unlink(os.path.join(self._scripts, name))
        self._pick_up()
        self._work.set()
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._round()
            except OSError as problem:
                self._log.error(f"run commands wait: {problem.filename or ''}: {problem.strerror or problem}")
                self._host.loop.later(self._timing.failure, self._work.set)

    def _pick_up(self) -> None:
        """Goes on with what was begun before this process."""
        now = time.time()
        for ident, entry in self._store.entries.items():
            run = entry["run"]
            if run is None:
                continue
            began = self._runner.started(run)
            if began is not None:
                self._store.entries[ident] = runcommands.started(entry, began, now)
                self._spawn(ident, self._follow(ident))
            else:
                self._store.entries[ident] = runcommands.abandoned(entry, processes.boot_id(), now)

    async def _round(self) -> None:
        """Keeps and reports what has ended, and takes up what is new. Errors: OSError; the next round goes on."""
        self._keep()
        payload, known = self._host.kept(runcommands.KIND), self._host.config()
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if payload is None or known is None or not known[1]["extensions.enabled"]:
            self._reporter.changed()
            return
        machine, generation = str(payload["machine"]).lower(), int(payload["generation"])
        if payload["exp"] <= time.time():
            is_new = (self._store.machine, self._store.generation) != (machine, generation)
            if is_new or runcommands.waiting(self._store.entries, self._tasks):
                # It may have been ahead, and nobody says when it is right again.
                self._clock = self._host.loop.later(self._timing.clock, self._work.set)
            self._reporter.changed()
            return
        try:
            wishes = runcommands.read(payload["content"])
        except ValueError as problem:
            self._log.error(f"the document of run commands cannot be carried out: {problem}")
            return
        await self._take(wishes, machine, generation)
        config = known[1]
        for ident in runcommands.waiting(self._store.entries, self._tasks):
            self._spawn(ident, self._carry_out(self._wishes[ident], config))
        self._reporter.changed()

    async def _take(self, wishes: dict[str, Wish], machine: str, generation: int) -> None:
        """Brings the entries to what is wished."""
        if self._store.machine != machine:
            # Sequences of a former connection are none of this one.
            for ident in list(self._store.entries):
                await self._stop(ident)
        decision = runcommands.decide(self._store.entries, wishes)
        for ident in decision.stop:
            await self._stop(ident)
        now = time.time()
        for wish in decision.take:
            entry = runcommands.blank(wish, now)
            self._store.entries[wish.ident] = (
                runcommands.not_started(entry, _UNKNOWN, now) if self._is_unknown else entry
            )
        for ident in decision.lost:
            if ident not in self._tasks:  # one that is being begun has its script
                self._store.entries[ident] = runcommands.not_started(self._store.entries[ident], _FORGOTTEN, now)
        self._wishes = wishes
        self._store.machine, self._store.generation = machine, generation
        self._keep()
        self._is_unknown = False

    def _keep(self) -> None:
        """Writes down what is known, then removes what ended runs have left. Errors: OSError."""
        self._store.save()
        runs = [entry["run"] for entry in self._store.entries.values()]
        self._runner.forget_others(*runs)
        for name in os.listdir(self._scripts):
            # A worker may be writing.
            if name not in runs and not atomic.is_temporary(name):
                atomic.unlink(os.path.join(self._scripts, name))

    async def _stop(self, ident: str) -> None:
        """Ends a command, whatever it is at, and forgets it."""
        task = self._tasks.pop(ident, None)
        if task is not None:
            task.cancel()
            await task.finished.wait()
        entry = self._store.entries[ident]
        run = entry["run"]
        began = None if run is None else self._runner.started(run)
        if run is not None and began is not None:
            await self._runner.kill(run)
            await self._runner.end(run, self._runner.age(run) + STOP_SECONDS)
            self._log.info(f"run command {entry['name']} ({entry['sequence']}) is stopped")
        self._store.entries.pop(ident)

    def _spawn(self, ident: str, work: Any) -> None:
        self._tasks[ident] = self._host.loop.spawn(work, f"run command {ident}")

    # -- one command

    async def _carry_out(self, wish: Wish, config: Mapping[str, Any]) -> None:
        ident, run = wish.ident, os.urandom(16).hex()
        seconds = float(wish.seconds or self._timing.command)
        try:
            began = await self._begin(wish, run, seconds, config)
        except (errors.AgentError, ValueError, OSError) as problem:
            self._say(ident, runcommands.not_started(self._store.entries[ident], _sentence(problem), time.time()))
            self._tasks.pop(ident, None)
            self._work.set()
            return
        self._say(ident, runcommands.started(self._store.entries[ident], began, time.time()))
        self._work.set()
        await self._follow(ident)

    async def _begin(self, wish: Wish, run: str, seconds: float, config: Mapping[str, Any]) -> float:
        """Starts the script; when that was. Errors: AgentError, ValueError (a sentence) and OSError: it is not
        started."""
        refusal = wish.fault or lists.refusal(runcommands.PUBLISHER, runcommands.TYPE, config)
        if refusal:
            raise ValueError(refusal)
        protected = await self._protected(wish)
        given = runcommands.given((*wish.parameters, *protected))
        account = _account(wish.user)
        # From here on what this run leaves on the disk has its name.
        entry = self._store.entries[wish.ident]
        self._store.entries[wish.ident] = {**entry, "run": run, "seconds": seconds, "boot": processes.boot_id()}
        path = os.path.join(self._scripts, run)
        await self._place(wish, path, config)
        if account is not None and sys.platform != "win32":
            os.chown(path, account.uid, account.gid)
        await self._govern()
        self._store.save()
        try:
            return await self._runner.begin(run, self._command(path, given, account, seconds, config))
        except OSError:
            began = self._runner.started(run)
            if began is None:
                raise
            return began

    async def _protected(self, wish: Wish) -> tuple[tuple[str, str], ...]:
        if wish.protected is None:
            return ()
        answer = await self._call("open-envelope", {"key": self._key, "envelope": wish.protected}, WORKER_SECONDS)
        pairs = runcommands.pairs_of(answer["content"].get("protectedParameters"))
        if pairs is None:
            raise ValueError("The protected parameters have another form than documented.")
        return pairs

    async def _place(self, wish: Wish, path: str, config: Mapping[str, Any]) -> None:
        """Puts the script where it is run from."""
        if wish.script:
            atomic.write_bytes(path, wish.script.encode("utf-8"), mode=0o700)
            return
        from agent_runtime.hub.proxy import proxy_for  # not before there is something to fetch

        proxy, _ = proxy_for("", config, os.environ, wish.uri)
        asked = {"url": wish.uri, "proxy": proxy, "path": path}
        await self._call("fetch-script", asked, self._timing.script)

    async def _govern(self) -> None:
        own, _ = self._host.config() or ({}, {})
        limits = governance.limits(runcommands.TYPE, {}, own)
        if limits != self._limits:
            self._limits = limits
            await self._runner.limit(governance.enforcing(runcommands.HANDLER, limits))

    @staticmethod
    def _command(
        path: str, given: Given, account: Optional[Account], seconds: float, config: Mapping[str, Any]
    ) -> Command:
        variables = environment.surroundings(os.environ, config, runcommands.PUBLISHER)
        text, folder = f'exec {shlex.quote(path)} "$@"', variables["HOME"]
        if account is not None:
            # Nobody but root gets to the folder of scripts; the file itself is the user's, and comes opened. The
            # agent's proxy may have a password that is not.
            plain = environment.surroundings({"LANG": variables["LANG"]}, {}, runcommands.PUBLISHER)
            variables = {**plain, "HOME": account.home, "USER": account.name, "LOGNAME": account.name}
            folder = account.home if os.path.isdir(account.home) else "/"
            words = [runner.program("setpriv"), f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups"]
            text = f'exec 9<{shlex.quote(path)} && exec {" ".join(words)} -- /dev/fd/9 "$@"'
        variables.pop("PYTHONPATH", None)
        return Command(runcommands.HANDLER, text, folder, {**variables, **given.variables}, seconds, given.arguments)

    async def _follow(self, ident: str) -> None:
        """Waits for the end of a script that was started."""
        entry = self._store.entries[ident]
        self._log.info(f"run command {entry['name']} ({entry['sequence']}) has started")
        watching = self._host.loop.spawn(self._show(ident), f"output of run command {ident}")
        try:
            end = await self._runner.end(entry["run"], entry["seconds"])
        finally:
            watching.cancel()
        now = time.time()
        told = runcommands.ended(self._with_output(ident, now), end.code, now)
        self._say(ident, told)
        self._log.info(f"run command {told['name']} ({told['sequence']}): {told['executionState']}, {end.code}")
        self._tasks.pop(ident, None)
        self._work.set()

    async def _show(self, ident: str) -> None:
        """Reports what a script writes while it runs."""
        while True:
            await sleep(self._timing.report)
            self._say(ident, self._with_output(ident, time.time()))
            self._reporter.changed()

    def _with_output(self, ident: str, now: float) -> runcommands.Entry:
        entry = self._store.entries[ident]
        return runcommands.written(entry, *self._runner.tails(entry["run"], TAIL), now)

    def _say(self, ident: str, entry: runcommands.Entry) -> None:
        self._store.entries[ident] = entry

    # -- the report

    def _data(self) -> Optional[dict[str, Any]]:
        known = self._host.config()
        if known is None or not known[1]["extensions.enabled"]:
            return None
        if not self._host.serves(runcommands.KIND, self._store.machine):
            return None
        return runcommands.assemble(self._store.generation, self._store.entries.values())


def _account(user: Optional[str]) -> Optional[Account]:
    """The account to run as; None for root's. Errors: ValueError, a sentence."""
    if user is None or user == "root":
        return None
    if sys.platform == "win32":
        raise errors.NotSupported("this release has no services on Windows")
    import pwd  # not before somebody asks for it

    try:
        found = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise ValueError(f"There is no user {user[:80]!r} on this machine. Make it, or leave runAsUser away.") from None
    if not runner.program("setpriv"):
        raise ValueError("setpriv is not installed on this machine. Install util-linux, or leave runAsUser away.")
    return Account(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)


def _sentence(problem: Exception) -> str:
    if isinstance(problem, errors.AgentError):
        return f"{problem.message}. {problem.remedy}."
    if isinstance(problem, OSError):
        return f"The script could not be started: {problem.strerror or problem}."
    return str(problem)

# SPDX-License-Identifier: Apache-2.0
"""A fleet of simulated machines: bulk enrolment, running, what the machines saw, a state file."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

from agent_runtime.hub import backoff
from benchmarks.simulator.client import Pace, Refusal, Site
from benchmarks.simulator.keys import Pool
from benchmarks.simulator.machine import Machine, State
from benchmarks.simulator.wire import Broken, connect, trust

T = TypeVar("T")
# At most so many machines in a bulk operation at once: one hub is busy with fewer, more would only wait in it.
CONCURRENCY = 8
ATTEMPTS = 20
# A heartbeat is at most 300 s apart (docs/protocol.md section 13); two of them make a machine late.
HEARTBEAT = 300.0


class Fleet:
    """`count` machines NAME0000… of one resource group.

    `url`: the hub's, or a list of addresses over which the machines are spread; the first names the authority.
    `credential`: `{"clientId", "clientSecret"}` of a principal that may create machines (what
    `hawser-hub principal create --json` prints), or an access token for ARM. A machine starts with key number
    `index % keys` of the pool.
    """

    def __init__(
        self,
        url: str | list[str],
        ca_file: str,
        tenant: str,
        subscription: str,
        group: str,
        credential: Mapping[str, Any] | str,
        count: int,
        *,
        prefix: str = "sim",
        location: str = "local",
        keys: int = 8,
        pace: Pace | None = None,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        self.site = Site(urls, trust(ca_file), tenant, pace or Pace())
        self.subscription, self.group, self.location = subscription, group, location
        self._ca_file = ca_file
        self._credential = credential
        self._token = ""
        self._token_ends = 0.0
        base = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines"
        width = max(4, len(str(count - 1)))
        self.machines = [
            Machine(self.site, State(name, str(uuid4()), f"{base}/{name}", index % keys), index)
            for index, name in enumerate(f"{prefix}{number:0{width}}" for number in range(count))
        ]
        self._tasks: list[asyncio.Task[None]] = []
        need_descriptors(count + 256)

    # The principal

    async def arm_token(self) -> str:
        """An access token for ARM of the fleet's principal.

        Errors: Refusal, Broken.
        """
        if isinstance(self._credential, str):
            return self._credential
        if time.time() >= self._token_ends:
            form = {
                "grant_type": "client_credentials",
                "client_id": self._credential["clientId"],
                "client_secret": self._credential["clientSecret"],
                "scope": f"{self.site.urls[0]}/.default",
            }
            connection = await connect(self.site.urls[0], self.site.tls, self.site.pace.connect)
            names = {"Host": self.site.urls[0].split("//")[1], "Content-Type": "application/x-www-form-urlencoded"}
            answer = await connection.exchange("POST", self.site.token_path, names, urlencode(form).encode())
            connection.close()
            if answer.status != 200:
                raise Refusal(answer)
            told = json.loads(answer.body)
            self._token, self._token_ends = told["access_token"], time.time() + 0.8 * told["expires_in"]
        return self._token

    # Many machines at once

    async def each(
        self,
        work: Callable[[Machine], Awaitable[T]],
        machines: Iterable[Machine] | None = None,
        *,
        concurrency: int = CONCURRENCY,
        attempts: int = 1,
    ) -> list[T]:
        """`work` on every machine (or those given), `concurrency` at once; results in order. With more than one
        attempt, lost connections and passing refusals (408, 429, 5xx) are tried again with back-off.

        Errors: the first Refusal, Broken or other exception; work that has not begun is left then.
        """
        todo = list(self.machines if machines is None else machines)
        done: dict[int, T] = {}
        numbers = iter(range(len(todo)))

        async def worker() -> None:
            for number in numbers:
                done[number] = await self._patiently(work, todo[number], attempts)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(todo))):
                group.create_task(worker())
        return [done[number] for number in range(len(todo))]

    async def _patiently(self, work: Callable[[Machine], Awaitable[T]], machine: Machine, attempts: int) -> T:
        pace = self.site.pace
        for failures in range(1, attempts + 1):
            after = None
            try:
                return await work(machine)
            except Refusal as refusal:
                if failures == attempts or not (refusal.status in (408, 429) or refusal.status >= 500):
                    raise
                after = refusal.after
            except Broken:
                if failures == attempts:
                    raise
            await asyncio.sleep(backoff.delay(failures, random.random(), after, first=pace.first, last=pace.last))
        raise AssertionError("the last attempt returns or raises")

    async def enrol(
        self, *, concurrency: int = CONCURRENCY, keep: bool = True, tags: dict[str, str] | None = None
    ) -> float:
        """Connect every machine that is not connected yet: PUT, enrolment, channel token, first check-in with its
        documents. `keep`: connections stay open for `run`. Returns the seconds it took.

        Errors: ExceptionGroup of Refusal or Broken, after ATTEMPTS.
        """
        begun = time.monotonic()
        fresh = [machine for machine in self.machines if machine.seen.state == "new"]
        for number in {machine.seen.key for machine in fresh}:
            await asyncio.to_thread(lambda number=number: self.site.keys[number].csr)  # type: ignore[misc]

        async def one(machine: Machine) -> None:
            await machine.connect(await self.arm_token(), self.location, tags)
            if not keep:
                machine.close()

        await self.arm_token()
        await self.each(one, fresh, concurrency=concurrency, attempts=ATTEMPTS)
        return time.monotonic() - begun

    async def checkin(self, hold: int = 0, *, concurrency: int = CONCURRENCY) -> None:
        """One check-in of every machine, with what it brings."""

        async def one(machine: Machine) -> None:
            await machine.take_over(await machine.checkin(hold))

        await self.each(one, concurrency=concurrency)

    # Life

    async def start(self) -> None:
        """Every machine lives from now on, until `stop`: check-ins, desired state, renewal, back-off."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(machine.live()) for machine in self.machines]

    async def stop(self) -> None:
        """End the machines' lives and their connections.

        Errors: whatever ended a life before: a defect of the simulator, not an answer of the hub.
        """
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        self.close()
        for problem in ended:
            if isinstance(problem, Exception):
                raise problem

    async def until(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `condition()`, looked at ten times a second. Returns whether it became true within `seconds`."""
        ends = None if seconds is None else time.monotonic() + seconds
        while True:
            held = condition()
            if held or (ends is not None and time.monotonic() >= ends):
                return held
            await asyncio.sleep(0.1)

    async def run(self, seconds: float | None = None, until: Callable[[], bool] = lambda: False) -> bool:
        """`start`, live for `seconds` (for ever if None) or until `until()`, `stop`. Returns whether it became true."""
        await self.start()
        try:
            return await self.until(until, seconds)
        finally:
            await self.stop()

    def close(self) -> None:
        """End every connection."""
        for machine in self.machines:
            machine.close()

    # What they saw

    def beaten_since(self, at: float) -> int:
        """How many machines had a heartbeat taken after `at` (Unix seconds)."""
        return sum(machine.seen.last_beat > at for machine in self.machines)

    def summary(self) -> dict[str, Any]:
        """Counts over the fleet: machines by `states`, `connected` (with a heartbeat in the last 600 s), `beats`,
        answers by `statuses`, refusals by `codes`, `broken` connections, and `unexpected`: answers 401, 403, 404, 409
        and 5xx, which a healthy hub gives to no machine."""
        states: dict[str, int] = {}
        for machine in self.machines:
            states[machine.seen.state] = states.get(machine.seen.state, 0) + 1
        late = time.time() - 2 * HEARTBEAT
        statuses = dict(sorted(self.site.statuses.items()))
        return {
            "machines": len(self.machines),
            "states": states,
            "connected": sum(m.seen.state == "connected" and m.seen.last_beat > late for m in self.machines),
            "beats": sum(machine.seen.beats for machine in self.machines),
            "statuses": statuses,
            "codes": dict(sorted(self.site.codes.items())),
            "broken": self.site.broken,
            "unexpected": sum(n for status, n in statuses.items() if status in (401, 403, 404, 409) or status >= 500),
        }

    def forget_trouble(self) -> None:
        """Set the counts of `summary` to nought, and each machine's."""
        self.site.statuses.clear()
        self.site.codes.clear()
        self.site.broken = 0
        for machine in self.machines:
            machine.seen.beats, machine.seen.broken = 0, 0
            machine.seen.errors.clear()

    # The state file

    def save(self, path: Path) -> None:
        """Write the fleet, with its keys and without the principal's credential, to a file (0600) that `load` reads."""
        content = {
            "v": 1,
            "urls": self.site.urls,
            "caFile": self._ca_file,
            "tenant": self.site.tenant,
            "subscription": self.subscription,
            "group": self.group,
            "location": self.location,
            "keys": self.site.keys.pems(),
            "machines": [machine.seen.as_dict() for machine in self.machines],
        }
        partial = path.with_name(f"{path.name}.partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def load(
        cls,
        path: Path,
        credential: Mapping[str, Any] | str = "",
        *,
        pace: Pace | None = None,
        urls: list[str] | None = None,
        connections: int | None = None,
    ) -> Fleet:
        """A fleet as it was saved; `urls` in the place of its addresses; `connections`: that it opens at once, None for
        one each. The credential is needed for `enrol` alone."""
        found = json.loads(path.read_text(encoding="utf-8"))
        where = (found["tenant"], found["subscription"], found["group"])
        fleet = cls(
            urls or found["urls"], found["caFile"], *where, credential, 0, location=found["location"], pace=pace
        )
        fleet.site.keys = Pool(found["keys"])
        states = [State.from_dict(item) for item in found["machines"]]
        fleet.machines = [Machine(fleet.site, state, index) for index, state in enumerate(states)]
        need_descriptors((len(states) if connections is None else connections) + 256)
        return fleet


def need_descriptors(count: int) -> None:
    """Allow this process `count` open files.

    Errors: ValueError when the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise ValueError(f"{count} open files are needed and {hard} allowed. Raise the limit with ulimit -Hn.")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@contextmanager
def background() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """For programs that are not asynchronous: an event loop in a thread. Gives a function that runs a coroutine there
    and returns its result; what `Fleet.start` started there goes on meanwhile."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator", daemon=True)
    thread.start()

    def call(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        yield call
    finally:
        with suppress(RuntimeError):
            call(_end_tasks())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_tasks() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

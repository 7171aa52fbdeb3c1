# SPDX-License-Identifier: Apache-2.0
"""A hub of its own for a measurement: one core for it, the other for who asks it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import requests

from benchmarks.simulator import Fleet, Pace
from tests.integration import hub_process

API = {"api-version": "2026-07-15"}


@cache
def cores() -> tuple[int, int]:
    """The hub's core and the generator's; the same on a machine with one. As this process could choose at first: it
    keeps to one of them later."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def pin(pid: int, core: int) -> None:
    """Keep every thread of a process on one core; threads that it makes later stay there too."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


class Site:
    """A hub in a temporary directory and a principal with the role Owner. `fill` may write rows before it starts."""

    def __init__(self, fill: Callable[[hub_process.HubProcess], None] | None = None) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="hawser-bench-"))
        self.hub = hub_process.make(self._directory / "data", "--location", "local=Bench")
        self.principal = self.hub.principal("bench", "Owner")
        if fill is not None:
            fill(self.hub)
        self.start()
        self.session = self.hub.session()
        self.session.headers["Authorization"] = f"Bearer {self.hub.token(self.principal)}"

    def start(self) -> None:
        """Start the hub on its core."""
        self.hub.start()
        pin(self.pid, cores()[0])

    def kill(self) -> None:
        """SIGKILL, as a loss of power ends it but for what the system still writes."""
        self.hub.stop(signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Process id of the running hub."""
        if self.hub.process is None:
            raise RuntimeError("the hub does not run")
        return self.hub.process.pid

    def fleet(self, group: str, count: int, pace: Pace | None = None) -> Fleet:
        """Simulated machines that are not enrolled yet."""
        where = (self.hub.url, self.hub.ca_file, self.hub.tenant_id, self.hub.subscription_id, group)
        return Fleet(*where, self.principal, count, pace=pace)

    def get(self, path: str, **parameters: Any) -> requests.Response:
        """A GET as the principal. `path`: a path, or an address out of an answer."""
        url = path if path.startswith("https:") else f"{self.hub.url}{path}"
        answer = self.session.get(url, params=parameters, timeout=60)
        answer.raise_for_status()
        return answer

    def write(self, method: str, resource_id: str, body: dict[str, Any]) -> requests.Response:
        """A PUT, PATCH or DELETE at ARM as the principal; its answer, which is no error."""
        answer = self.session.request(method, f"{self.hub.url}{resource_id}", params=API, json=body, timeout=60)
        answer.raise_for_status()
        return answer

    def tag(self, resource_id: str, value: str) -> None:
        """PATCH the tags of a machine."""
        self.write("PATCH", resource_id, {"tags": {"bench": value}})

    def cpu_seconds(self) -> float:
        """Processor time of the hub so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Bytes of the hub's own memory (unique set size)."""
        return int(psutil.Process(self.pid).memory_full_info().uss)

    def stop(self) -> None:
        """End the hub and remove everything."""
        self.hub.stop()
        shutil.rmtree(self._directory)


@contextmanager
def driven(site: Site) -> Iterator[Site]:
    """This process on the generator's core while it plays the machines; the site is ended afterwards."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores()[1]})
    try:
        yield site
    finally:
        os.sched_setaffinity(0, everywhere)
        site.stop()

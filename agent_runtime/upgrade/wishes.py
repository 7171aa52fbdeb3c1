# SPDX-License-Identifier: Apache-2.0
"""extd's part in upgrades of the agent: takes the hub's wish, has a worker begin, and reports how it goes.

The upgrade itself is the watchdog's, which outlives extd (watchdog.py). While one is under way the journal is looked at
every five seconds; at other times nothing here wakes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Optional

from agent_runtime import errors
from agent_runtime.service import worker
from agent_runtime.service.desired import Host
from agent_runtime.service.loop import Event
from agent_runtime.state import atomic
from agent_runtime.upgrade import plan
from agent_runtime.upgrade.journal import Files
from agent_runtime.version import VERSION

KIND = "agent"
LOOK_SECONDS = 5.0
RESUME_SECONDS = 60.0
FAILURE_SECONDS = 60.0
CLOCK_SECONDS = 60.0
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){3}", re.ASCII)


def wish_of(payload: Mapping[str, Any], cloud: str, installed: str) -> Optional[plan.Wish]:
    """What a verified document of kind `agent` wishes; None: nothing, or nothing that can be understood. Pure."""
    content = payload.get("content")
    if not isinstance(content, dict):
        return None
    version, correlation = content.get("desiredVersion"), content.get("correlationId")
    deadline = content.get("deadlineSeconds", plan.DEADLINE)
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        return None
    if not isinstance(deadline, int) or not plan.DEADLINES[0] <= deadline <= plan.DEADLINES[1]:
        deadline = plan.DEADLINE
    return plan.Wish(
        by="hub",
        machine=str(payload.get("machine")).lower(),
        cloud=cloud,
        installed=installed,
        version=version,
        format="",
        deadline=deadline,
        generation=int(payload["generation"]),
        correlation=correlation if isinstance(correlation, str) else None,
        automatic=content.get("enableAutomaticUpgrade") is True,
    )


class Upgrades:
    """Runs beside the extensions of extd."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._files = Files(host.paths)
        self._root = host.paths.program[: -len("/opt/azcmagent")]
        self._work = Event()
        self._told: Optional[dict[str, Any]] = None
        self._resumed = float("-inf")

    def look(self) -> None:
        """The document, the binding or the journal may have changed."""
        self._work.set()

    async def run(self) -> None:
        """Works for ever."""
        self._work.set()
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._round()
            except (OSError, errors.AgentError) as problem:
                self._host.log.error(f"the upgrade of the agent waits: {getattr(problem, 'message', problem)}")
                self._host.loop.later(FAILURE_SECONDS, self._work.set)

    async def _round(self) -> None:
        journal = self._journal()
        if journal is None or plan.is_final(journal):
            wish = self._wish()
            if wish is not None and plan.is_settled(wish, journal):
                self._files.take(plan.mark(wish))
            elif wish is not None and not self._files.was_taken(plan.mark(wish)) and not self._has_expired():
                self._host.log.info(f"the hub wishes version {wish.version} of the agent in the place of {VERSION}")
                members = {name: value for name, value in wish._asdict().items() if name != "format"}
                arguments = {"root": self._root, "wish": members}
                journal = (await worker.run(self._host.loop, "begin-upgrade", arguments))["journal"]
                self._files.take(plan.mark(wish))
                self._resumed = time.monotonic()
        if journal is None:
            return
        self._report(journal)
        if plan.is_final(journal):
            return
        if time.monotonic() - self._resumed > RESUME_SECONDS:
            # Whoever carries it out may have been lost with its unit: what is missing is made again.
            self._resumed = time.monotonic()
            await worker.run(self._host.loop, "resume-upgrade", {"root": self._root})
        self._host.loop.later(LOOK_SECONDS, self._work.set)

    def _journal(self) -> Optional[plan.Journal]:
        try:
            return self._files.read()
        except ValueError as problem:
            self._host.log.error(f"{problem}; it is put aside")
            self._files.put_aside()
            return None

    def _wish(self) -> Optional[plan.Wish]:
        payload, profile, known = self._host.kept(KIND), self._host.profile(), self._host.config()
        if payload is None or profile is None or known is None:
            return None
        if not known[1]["automaticupgrade.enabled"] or not known[1]["extensions.enabled"]:
            return None
        return wish_of(payload, str(profile["name"]), VERSION)

    def _has_expired(self) -> bool:
        """Whether the document has, by this machine's clock, which may be ahead: then it is looked at again, because
        nobody says when the clock is right."""
        payload = self._host.kept(KIND)
        if payload is not None and payload["exp"] > time.time():
            return False
        self._host.loop.later(CLOCK_SECONDS, self._work.set)
        return True

    def _report(self, journal: plan.Journal) -> None:
        try:
            machine = str(atomic.read_json(self._host.paths.binding, 65536)["vmId"]).lower()
        except (OSError, ValueError, KeyError):
            return
        data = plan.report(journal)
        if journal["machine"] == machine and data != self._told:
            self._told = data
            self._host.report(KIND, data)

# SPDX-License-Identifier: Apache-2.0
"""A copy of a simulated machine's disk that wakes on other hardware (docs/protocol.md section 14)."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import uuid4

from benchmarks.simulator.client import Refusal
from benchmarks.simulator.machine import Machine
from benchmarks.simulator.wire import Broken

SHORTEST = 5.0


class Twin(Machine):
    """Holds the identity, certificate and lease of `original` and asks whose they are. Ends `connected` under a name of
    its own, or `quarantined`."""

    def __init__(self, original: Machine, number: int) -> None:
        fresh: dict[str, Any] = {"identity": dict(original.seen.identity), "generations": {}, "errors": Counter()}
        # Another vmId is other evidence too: the simulator's one signal comes from it.
        seen = replace(original.seen, vm_id=str(uuid4()), state="parked", token="", beats=0, **fresh)
        super().__init__(original.site, seen, original.address)
        self.hostname = f"{original.seen.name}-copy{number:05}"

    async def ask(self) -> dict[str, Any]:
        """Section 14.2. An answer means that this is the machine after all; the other answers are Refusals."""
        seen, path = self.seen, "/channel/v1/identity"
        about = {"slot": seen.slot, "resourceId": seen.resource_id}
        body = {
            "protocol": 1,
            "requestId": str(uuid4()),
            "assertion": self.site.keys[seen.key].assertion(
                seen.identity["clientId"], seen.identity["certificate"], f"{self.site.urls[0]}{path}", about
            ),
            "slot": seen.slot,
            "epoch": seen.epoch,
            "nonce": seen.nonce,
            "bootId": None,
            "reason": "evidence",
            "evidence": seen.evidence,
            "hostname": self.hostname,
            "imageId": None,
            "csr": None,
        }
        return await self._call("identity", "POST", path, None, body)

    async def adopt(self, offer: dict[str, Any]) -> None:
        """Become the machine of an offer: section 5 with its ticket, up to the first heartbeat."""
        self.seen.resource_id, self.seen.name = offer["resourceId"], offer["resourceId"].rpartition("/")[2]
        self.seen.token = ""
        await self.put(offer["ticket"], offer["location"], offer["tags"])
        await self.enrol(offer["ticket"])
        await self.take_over(await self.checkin(0))
        self.seen.state = "connected"

    async def heal(self) -> None:
        """Ask until there is an answer, as agent_runtime/himds/asking.py does. No connection is kept in between."""
        failures = 0
        while self.seen.state == "parked":
            pause = SHORTEST
            try:
                await self.ask()
                raise ValueError(f"{self.hostname} was taken for {self.seen.name}")
            except Refusal as refusal:
                if refusal.code == "quarantined":
                    self.seen.state = "quarantined"
                elif refusal.body.get("enrolment") is not None:
                    failures, pause = await self._adopted(refusal.body["enrolment"], failures)
                elif "retryAfter" in refusal.body:
                    pause = max(SHORTEST, float(refusal.body["retryAfter"]))
                else:
                    failures += 1
                    pause = self._delay(failures, refusal.after)
            except Broken:
                failures += 1
                pause = self._delay(failures, None)
            self.close()
            if self.seen.state == "parked":
                await asyncio.sleep(pause)

    async def _adopted(self, offer: dict[str, Any], failures: int) -> tuple[int, float]:
        held = self.seen.resource_id, self.seen.name
        try:
            await self.adopt(offer)
        except (Refusal, Broken) as problem:
            self.seen.resource_id, self.seen.name = held
            after = problem.after if isinstance(problem, Refusal) else None
            return failures + 1, self._delay(failures + 1, after)
        return 0, 0.0

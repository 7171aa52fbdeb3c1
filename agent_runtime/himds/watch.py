# SPDX-License-Identifier: Apache-2.0
"""Whether this is still the machine that was connected: evidence is read and compared before the identity is used, at
the start, after a sleep and when told (docs/protocol.md section 14.1)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from agent_runtime.himds.identity import Known
from agent_runtime.identity import evidence
from agent_runtime.platform.base import Machine

SLEPT_SECONDS = 2.0


def drift() -> float:
    """Seconds that this machine was asleep since it booted: the boot-time clock counts them, the monotonic one does
    not."""
    if sys.platform != "linux":
        return 0.0
    else:  # noqa: RET505 - mypy judges each system's branch by itself
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Watch:
    """`items` and `digest`: the last look. `report` is given a vector that differs, but accuses nobody."""

    def __init__(self, known: Known, computer: Machine, report: Callable[[list[dict[str, Any]]], None]) -> None:
        self.items: list[dict[str, Any]] = []
        self.digest = ""
        self._known = known
        self._computer = computer
        self._report = report
        self._drift = drift()

    def slept(self) -> bool:
        """Whether the machine was asleep since the last look."""
        return abs(drift() - self._drift) > SLEPT_SECONDS

    def read(self, tenant_id: str) -> list[dict[str, Any]]:
        """The vector as it is now."""
        self._drift = drift()
        self.items = evidence.vector(tenant_id, self._computer.signals())
        self.digest = evidence.digest(self.items)
        return self.items

    def look(self) -> None:
        """Read the vector; a strong difference parks a connected identity. Errors: OSError when that cannot be kept."""
        known = self._known
        if not known.identity:
            return
        items = self.read(str(known.identity["tenantId"]))
        if known.state != "connected" or known.recorded is None:
            return
        found = evidence.compare(known.recorded, items)
        if found.strong:
            names = ", ".join(found.strong)
            known.hold(
                "park",
                "evidence",
                f"this is not the machine that was connected ({names} differ); its identity is not used before the "
                "hub has decided",
                differs=list(found.strong),
            )
        elif found.altered:
            self._report(items)

    def accepted(self) -> None:
        """The hub has answered a heartbeat with this vector: a machine that an older version connected has none yet."""
        if self._known.recorded is None and self._known.state == "connected":
            self._known.keep_evidence(self.items)

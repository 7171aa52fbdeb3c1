# SPDX-License-Identifier: Apache-2.0
"""Reports on their way to the hub: stored first, sent, removed when acknowledged (docs/protocol.md section 8)."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any

from agent_runtime.state import atomic

REPORTS = 32
BATCH_LIMIT = 400 * 1024
KEEP = 1000


class Outbox:
    """Files of a folder, oldest first."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def put(self, kind: str, data: dict[str, Any]) -> str:
        """Store a report; its id. Where too many wait the oldest go. Errors: OSError."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        number = str(uuid.uuid4())
        created = time.time()
        report = {
            "id": number,
            "kind": kind,
            "createdAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created)),
            "data": data,
        }
        # Behind all that wait, also when the clock was set back meanwhile.
        turn = max(int(created * 1000), *(_turn(name) + 1 for name in self._names()), 0)
        atomic.write_json(os.path.join(self._folder, f"{turn:015d}-{number}.json"), report)
        for name in self._names()[:-KEEP]:
            atomic.unlink(os.path.join(self._folder, name))
        return number

    def batch(self, limit: int = REPORTS) -> list[dict[str, Any]]:
        """The `limit` reports to send next at most, within the protocol's limits. What cannot be read is removed."""
        found: list[dict[str, Any]] = []
        size = 0
        for name in self._names()[:limit]:
            path = os.path.join(self._folder, name)
            try:
                report = atomic.read_json(path)
            except (OSError, ValueError):
                atomic.unlink(path)
                continue
            size += len(json.dumps(report))
            if found and size > BATCH_LIMIT:
                break
            found.append(report)
        return found

    def acknowledge(self, numbers: list[str]) -> None:
        """Remove reports that the hub has."""
        done = set(numbers)
        for name in self._names():
            if name[16:-5] in done:
                atomic.unlink(os.path.join(self._folder, name))

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._folder) if name.endswith(".json") and name[0] != ".")
        except FileNotFoundError:
            return []


def _turn(name: str) -> int:
    """The number that a file's name begins with; 0 for a name of somebody else's."""
    digits = name.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) == 15 else 0

# SPDX-License-Identifier: Apache-2.0
"""The report of kind `extensions` (docs/protocol.md section 15.2): built here, sent on change and not too often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional

from agent_runtime.extensions import status, texts
from agent_runtime.service.loop import Loop, Timer

# Below the 512 KiB that a report may have, with what himds wraps around it.
LIMIT = 380 * 1024
FINAL = ("succeeded", "failed")
_MEMBERS = (
    "name",
    "publisher",
    "type",
    "version",
    "sequence",
    "state",
    "operation",
    "code",
    "message",
    "handler",
    "status",
    "at",
)


def assemble(generation: int, results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The report's data, within LIMIT: where there is too much to say, everybody's texts are cut alike. Pure."""
    entries = [{name: result[name] for name in _MEMBERS} for result in results]
    made = {"generation": generation, "extensions": sorted(entries, key=lambda entry: str(entry["name"]).lower())}
    return within(made, "extensions", _shortened, status.LIMIT)


def within(
    made: dict[str, Any], member: str, shortened: Callable[[Mapping[str, Any], int], dict[str, Any]], limit: int
) -> dict[str, Any]:
    """A report within LIMIT: `shortened` cuts the texts of an entry of `member` to half of `limit`, or less. Pure."""
    while status.size(made) > LIMIT and limit > 32:
        limit //= 2
        made = {**made, member: [shortened(entry, limit) for entry in made[member]]}
    return made


def _shortened(entry: Mapping[str, Any], limit: int) -> dict[str, Any]:
    told = entry["status"]
    handler = {**entry["handler"], "message": texts.cut(str(entry["handler"]["message"]), min(limit, texts.TEXT_LIMIT))}
    return {
        **entry,
        "message": texts.cut(str(entry["message"]), min(limit, texts.TEXT_LIMIT)),
        "handler": handler,
        "status": None if told is None or limit < 256 else status.shortened(told, limit),
    }


class Reporter:
    """Sends what differs from the last report: at once where `ends` says so of the last and the new one, else after a
    pause. `data` gives None while there is nothing to say."""

    def __init__(
        self,
        loop: Loop,
        pause: float,
        data: Callable[[], Optional[dict[str, Any]]],
        send: Callable[[dict[str, Any]], None],
        ends: Callable[[Mapping[str, Any], Mapping[str, Any]], bool],
    ) -> None:
        self._loop = loop
        self._pause = pause
        self._data = data
        self._send = send
        self._ends = ends
        self._last: Optional[dict[str, Any]] = None
        self._last_at = float("-inf")
        self._timer: Optional[Timer] = None

    def changed(self) -> None:
        """Something may have changed."""
        data = self._data()
        if data is None or data == self._last:
            return
        left = self._last_at + self._pause - time.monotonic()
        if left <= 0 or self._ends(self._last or {}, data):
            self._now(data)
        elif self._timer is None:
            self._timer = self._loop.later(left, self._later)

    def _later(self) -> None:
        self._timer = None
        data = self._data()
        if data is not None and data != self._last:
            self._now(data)

    def _now(self, data: dict[str, Any]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._last, self._last_at = data, time.monotonic()
        self._send(data)


def ends(last: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether an extension is final that was not, or has failed on its way out, or is gone. One that is gone after such
    a failure is told later: of reports that come together the hub takes the last. Pure."""
    before = {entry["name"]: entry for entry in last.get("extensions", ())}
    now = {entry["name"]: entry for entry in data["extensions"]}
    gone = [entry for name, entry in before.items() if name not in now and not _has_failed_leaving(entry)]
    told = {name: entry for name, entry in now.items() if entry["state"] in FINAL or _has_failed_leaving(entry)}
    return bool(gone) or any(_end(entry) != _end(before.get(name)) for name, entry in told.items())


def _has_failed_leaving(entry: Mapping[str, Any]) -> bool:
    return bool(entry["state"] == "removing" and entry["code"])


def _end(entry: Optional[Mapping[str, Any]]) -> Any:
    return entry and [entry[name] for name in ("state", "version", "sequence", "code")]

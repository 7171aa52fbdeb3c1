# SPDX-License-Identifier: Apache-2.0
"""What the extension service keeps on disk: handlers and results, and the plan that is being carried out.

Below the service's folder (docs/protocol.md section 15.4): `handlers.json` `{"v": 1, "handlers": {key: record of
plan.py}, "results": {ident: entry of the report}, "certificates", "generation", "machine"}`; `plan.json`: the plan that
is being carried out, see carrier.py. `runcommands.json` `{"v": 1, "commands": {ident: entry of runcommands.py},
"generation", "machine"}`.
A step's effect is written to handlers.json before plan.json says that it is done, so a crash between them applies it
twice; `plan.applied` may be.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from agent_runtime.extensions import plan, status
from agent_runtime.state import atomic

HANDLERS, PLAN, COMMANDS = "handlers.json", "plan.json", "runcommands.json"
LIMIT = 16 * 1024 * 1024


class Store:
    """Files below `folder`. `records` by handler key, `results` by ident: what is reported; `certificates`:
    thumbprints of those that were put where handlers look; `generation` of the document that was carried out last, for
    the machine `machine`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.records: dict[str, plan.Record] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.certificates: list[str] = []
        self.generation = 0
        self.machine = ""

    def open(self) -> str:
        """Reads handlers.json; a sentence when it was damaged and is moved aside. Errors: OSError."""
        for name in os.listdir(self._folder):
            if name.endswith(".tmp"):
                atomic.unlink(os.path.join(self._folder, name))
        try:
            self.read()
        except ValueError as problem:
            path = os.path.join(self._folder, HANDLERS)
            os.replace(path, f"{path}.damaged")
            self.records, self.results, self.certificates = {}, {}, []
            return f"{HANDLERS} was damaged and is moved aside ({problem}); what is wished is installed again"
        return ""

    def read(self) -> None:
        """Reads handlers.json and changes nothing. Errors: OSError; ValueError when it is damaged."""
        try:
            found = atomic.read_json(os.path.join(self._folder, HANDLERS), LIMIT)
            self.generation, self.machine = int(found["generation"]), str(found["machine"])
            # Records of the former version do not say whose they are.
            blank = plan.blank("", "", self.machine)
            self.records = {str(key): {**blank, **record} for key, record in found["handlers"].items()}
            self.results = {str(ident): dict(result) for ident, result in found["results"].items()}
            self.certificates = [str(name) for name in found["certificates"]]
        except FileNotFoundError:
            return
        except (LookupError, TypeError, AttributeError) as problem:
            raise ValueError(f"{type(problem).__name__}: {problem}") from None

    def own(self) -> dict[str, plan.Record]:
        """Records of the handlers that `machine` wished."""
        return plan.own(self.records, self.machine)

    def thumbprints(self) -> set[str]:
        """Of the certificates that were put where handlers look, as far as is known."""
        known = (one["thumbprint"] for record in self.records.values() for one in record["extensions"].values())
        return {*self.certificates, *(name for name in known if name)}

    def save(self) -> None:
        """Writes handlers.json, not longer than it is read. Errors: OSError."""
        made = {
            "v": 1,
            "handlers": self.records,
            "results": _within(self.results),
            "certificates": self.certificates,
            "generation": self.generation,
            "machine": self.machine,
        }
        atomic.write_json(os.path.join(self._folder, HANDLERS), made)

    def plan(self) -> Optional[dict[str, Any]]:
        """The plan that was being carried out, if there is one; a damaged one counts as none: handlers.json alone
        leads to what is wished. Errors: OSError."""
        path = os.path.join(self._folder, PLAN)
        try:
            found = atomic.read_json(path, LIMIT)
        except FileNotFoundError:
            return None
        except ValueError:
            atomic.unlink(path)
            return None
        return found if found.get("v") == 1 and isinstance(found.get("chains"), list) else None

    def save_plan(self, journal: Mapping[str, Any]) -> None:
        """Errors: OSError."""
        atomic.write_json(os.path.join(self._folder, PLAN), dict(journal))

    def drop_plan(self) -> None:
        atomic.unlink(os.path.join(self._folder, PLAN))


def _within(results: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results whose statuses leave room for all the rest of the file: of many, each has its share of it. Pure."""
    # A third of the limit: the file's indentation may double them.
    share = LIMIT // 3 // max(1, len(results))
    if share >= status.LIMIT:
        return dict(results)
    made = {}
    for ident, result in results.items():
        told = result["status"]
        told = None if told is None else status.shortened(told, share)
        made[ident] = {**result, "status": told if status.size(told) <= share else None}
    return made


class CommandStore:
    """runcommands.json in `folder`: `entries` by ident, `generation` of the document that was carried out last, for the
    machine `machine`."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, COMMANDS)
        self._kept: Optional[dict[str, Any]] = None
        self.entries: dict[str, dict[str, Any]] = {}
        self.generation = 0
        self.machine = ""

    def open(self) -> str:
        """Reads the file; a sentence when it was damaged and is moved aside. Errors: OSError."""
        try:
            found = atomic.read_json(self._path, LIMIT)
            self.entries = {str(ident): dict(entry) for ident, entry in found["commands"].items()}
            self.generation, self.machine = int(found["generation"]), str(found["machine"])
        except FileNotFoundError:
            return ""
        except (ValueError, LookupError, TypeError, AttributeError) as problem:
            os.replace(self._path, f"{self._path}.damaged")
            self.entries = {}
            return f"{COMMANDS} was damaged and is moved aside ({problem}); what is wished is not run, it may have been"
        return ""

    def save(self) -> None:
        """Writes the file where it would change. Errors: OSError."""
        commands = {ident: dict(entry) for ident, entry in self.entries.items()}
        made = {"v": 1, "commands": commands, "generation": self.generation, "machine": self.machine}
        if made != self._kept:
            atomic.write_json(self._path, made)
            self._kept = made

# SPDX-License-Identifier: Apache-2.0
"""Files of an upgrade of the agent: below `/var/lib/GuestConfig/upgrade`, root's, outside the package.

`journal.json`: the upgrade under way, or the last one (plan.py); `kept.json` `{"v": 1, "version", "path", "sha256"}`:
the package of the version that the last upgrade installed; `taken.json` `{"v": 1, "machine", "version",
"correlationId"}`: the hub's last wish that was taken up, whatever came of it; `packages/`: packages; `tuf/`: their
signed metadata; `package.out`: what the package manager said last; `watchdog.pyz`: the program that carries it out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any, Optional

from agent_runtime import errors
from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic
from agent_runtime.upgrade import plan

LIMIT = 1 << 20
_TEXTS = ("id", "by", "machine", "cloud", "from", "to", "format", "program", "begun", "at", "message")


class Files:
    """Files of upgrades on this machine."""

    def __init__(self, paths: Paths) -> None:
        self.folder = paths.upgrade
        self.journal = os.path.join(self.folder, "journal.json")
        self.kept = os.path.join(self.folder, "kept.json")
        self.taken = os.path.join(self.folder, "taken.json")
        self.packages = os.path.join(self.folder, "packages")
        self.metadata = os.path.join(self.folder, "tuf")
        self.program = os.path.join(self.folder, "watchdog.pyz")
        self.log = os.path.join(self.folder, "upgrade.log")
        self.output = os.path.join(self.folder, "package.out")

    def make(self) -> None:
        """Errors: OSError."""
        os.makedirs(os.path.dirname(self.folder), mode=0o755, exist_ok=True)
        for folder in (self.folder, self.packages, self.metadata):
            os.makedirs(folder, mode=0o700, exist_ok=True)

    def read(self) -> Optional[plan.Journal]:
        """The upgrade under way, or the last one; None before the first. Errors: OSError; ValueError when the file is
        damaged."""
        try:
            found = atomic.read_json(self.journal, LIMIT)
        except FileNotFoundError:
            return None
        return checked(found)

    def write(self, journal: Mapping[str, Any]) -> None:
        """Errors: OSError."""
        atomic.write_json(self.journal, dict(journal))

    def put_aside(self) -> None:
        """A damaged journal must not stand in the way of the next upgrade. Errors: OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.journal, f"{self.journal}.damaged")

    def check_idle(self) -> None:
        """Errors: AZCM0027 while an upgrade is under way; OSError."""
        try:
            last = self.read()
        except ValueError:
            return  # whoever begins the next one puts it aside
        if last is not None and not plan.is_final(last):
            raise errors.ConfigurationConflict(
                f"an upgrade of the agent is under way, from {last['from']} to {last['to']}: {last['state']}",
                f"Wait for its end; see {self.log}",
            )

    def was_taken(self, mark: Mapping[str, Any]) -> bool:
        """Whether the hub's last wish that was taken up is this one; a damaged file counts as none."""
        try:
            found = atomic.read_json(self.taken, LIMIT)
        except (OSError, ValueError):
            return False
        return {name: found.get(name) for name in mark} == dict(mark)

    def take(self, mark: Mapping[str, Any]) -> None:
        """Notes that a wish was taken up. Errors: OSError."""
        if not self.was_taken(mark):
            self.make()
            atomic.write_json(self.taken, {"v": 1, **mark})

    def kept_package(self, version: str) -> Optional[dict[str, str]]:
        """The package of a version that an upgrade has brought, `{"path", "sha256"}`, if it is there and whole."""
        try:
            found = atomic.read_json(self.kept, LIMIT)
            package = {"path": str(found["path"]), "sha256": str(found["sha256"])}
            is_it = found["version"] == version and digest(package["path"]) == package["sha256"]
        except (OSError, ValueError, LookupError):
            return None
        return package if is_it else None

    def keep(self, version: str, package: Mapping[str, str]) -> None:
        """Notes the package that is in force now, and removes all others. Errors: OSError."""
        atomic.write_json(self.kept, {"v": 1, "version": version, **package})
        for name in os.listdir(self.packages):
            path = os.path.join(self.packages, name)
            if path != package["path"]:
                atomic.unlink(path)


def checked(found: Mapping[str, Any]) -> plan.Journal:
    """A journal whose members make sense; members that a newer version has added stay. Pure. Errors: ValueError."""
    ok = (
        all(isinstance(found.get(name), str) for name in _TEXTS)
        and found.get("state") in plan.STATES
        and all(isinstance(found.get(name), int) for name in ("deadline", "tries", "boots"))
        and all(isinstance(found.get(name), list) for name in ("services", "steps"))
        and isinstance(found.get("connected"), bool)
        and all(_is_package(found.get(name)) for name in ("new", "old"))
        and (found["state"] in (plan.DOWNLOADING, plan.FAILED) or bool(found.get("new") and found.get("old")))
        and _is_clock(found.get("clock"))
        and _is_clock(found.get("well"))
        and all(name in found for name in ("generation", "correlationId", "error"))
    )
    if not ok:
        raise ValueError("the journal of the upgrade is damaged")
    return dict(found)


def _is_package(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and isinstance(value.get("path"), str) and isinstance(value.get("sha256"), str)
    )


def _is_clock(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and isinstance(value.get("boot"), str)
        and isinstance(value.get("seconds"), (int, float))
    )


def digest(path: str) -> str:
    """SHA-256 of a file, hex. Errors: OSError."""
    import hashlib  # extd reads journals alone

    made = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            block = file.read(1 << 16)
            if not block:
                return made.hexdigest()
            made.update(block)

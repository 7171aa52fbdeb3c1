# SPDX-License-Identifier: Apache-2.0
"""What gcad and extd keep on disk: pushed documents, accepted documents, the highest generations, reports to send.

Layout below the service's folder (docs/protocol.md section 12), all of it root's:
`queue/KIND.jws` pushed and not judged yet, or expired by this machine's clock, one a kind, the newest;
`queue/report-KIND.json` the last verdict over a document and `queue/report-state-KIND.json` the last state of what is
carried out of a kind, not yet handed to himds; `desired/KIND.jws` the last accepted document; `floor.json`
`{"v": 1, "floors": {vmId: {kind: generation}}}`.
Every write is whole or absent, and each step may be repeated after a crash. What the disk has no room for is kept in
memory until it is judged or handed over: himds pushes to a service that begins anew, and its work reports anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from agent_runtime.state import atomic

DOCUMENT_LIMIT = 1024 * 1024
# A machine that is connected anew gets a new vmId; floors of so many are kept.
MACHINES_KEPT = 8
# The kind that says which keys may sign documents; both services have it.
TRUST = "trust"
# Names of what is reported beside verdicts over documents begin with it; no kind does.
STATE = "state-"


class Store:
    """Files of one service below `folder`, for documents of `kinds`."""

    def __init__(self, folder: str, kinds: Iterable[str]) -> None:
        self.kinds = tuple(kinds)
        self._queue = os.path.join(folder, "queue")
        self._desired = os.path.join(folder, "desired")
        self._floors_path = os.path.join(folder, "floor.json")
        self._folders = (folder, self._queue, self._desired)
        self._floors: dict[str, dict[str, int]] = {}
        # What could not be written, in the place of whatever lies in its file.
        self._unwritten: dict[str, str] = {}
        self._unwritten_reports: dict[str, dict[str, Any]] = {}

    def open(self) -> str | None:
        """Makes the folders and reads the floors; a sentence when the file of the floors was damaged.

        Without floors an old document could come back, so the damaged file's place is taken by the generations of the
        kept documents, which the next verification of theirs sets again.
        """
        for folder in self._folders:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        for folder in (self._queue, self._desired):
            for name in os.listdir(folder):
                if name.endswith(".tmp"):
                    atomic.unlink(os.path.join(folder, name))
        try:
            self._floors = floors_of(atomic.read_json(self._floors_path))
        except FileNotFoundError:
            self._floors = {}
        except (OSError, ValueError) as problem:
            # What is kept is judged once more, from the floor 0, and raises the floor to where it was.
            for kind in self.kinds:
                kept = self.kept(kind)
                if kept is not None and self.queued(kind) is None:
                    self.enqueue(kind, kept)
                atomic.unlink(self._desired_path(kind))
            os.replace(self._floors_path, f"{self._floors_path}.damaged")
            return f"floor.json was damaged and is moved aside ({problem}); kept documents are judged again"
        return None

    def floor(self, vm_id: str, kind: str) -> int:
        """The highest generation accepted for this machine and kind; 0 before the first."""
        return self._floors.get(vm_id.lower(), {}).get(kind, 0)

    def enqueue(self, kind: str, document: str) -> None:
        """Keeps a pushed document until it is judged; a newer one of its kind takes its place. Errors: OSError, and
        then it is kept in memory."""
        self._unwritten[kind] = document
        atomic.write_bytes(self._queue_path(kind), document.encode("utf-8", "replace"))
        del self._unwritten[kind]

    def queued(self, kind: str) -> str | None:
        """The document of this kind that waits, if there is one."""
        return self._unwritten.get(kind) or _text(self._queue_path(kind))

    def kept(self, kind: str) -> str | None:
        """The accepted document of this kind, if there is one."""
        return _text(self._desired_path(kind))

    def accept(self, vm_id: str, kind: str, generation: int, document: str) -> None:
        """Raises the floor, keeps the document, takes it out of the queue; in this order, for a crash anywhere. Errors:
        OSError, and then it may be done again."""
        if generation > self.floor(vm_id, kind):
            floors = raised(self._floors, vm_id, kind, generation)
            atomic.write_json(self._floors_path, {"v": 1, "floors": floors})
            self._floors = floors
        if self.kept(kind) != document:
            atomic.write_bytes(self._desired_path(kind), document.encode())
        self.dismiss(kind, document)

    def dismiss(self, kind: str, document: str) -> None:
        """Takes a judged document out of the queue, unless a newer one has taken its place. Errors: OSError."""
        if self.queued(kind) == document:
            # What lies in the file of one that could not be written is older.
            atomic.unlink(self._queue_path(kind))
            self._unwritten.pop(kind, None)

    def drop_kept(self, kind: str) -> bool:
        """Removes the accepted document of a machine that is no more; the floor stays."""
        return atomic.unlink(self._desired_path(kind))

    def keep_report(self, kind: str, data: Mapping[str, Any]) -> None:
        """Keeps the last verdict of a kind, or its last state (STATE + kind), until himds has it. Errors: OSError, and
        then it is kept in memory."""
        self._unwritten_reports[kind] = dict(data)
        atomic.write_json(self._report_path(kind), dict(data))
        del self._unwritten_reports[kind]

    def reports(self) -> list[tuple[str, dict[str, Any]]]:
        """Verdicts, and states, that himds does not have yet."""
        found = []
        for kind in (*self.kinds, *(f"{STATE}{kind}" for kind in self.kinds)):
            data = self._unwritten_reports.get(kind) or self._report(kind)
            if data is not None:
                found.append((kind, data))
        return found

    def _report(self, kind: str) -> dict[str, Any] | None:
        try:
            return atomic.read_json(self._report_path(kind))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            atomic.unlink(self._report_path(kind))
            return None

    def report_sent(self, kind: str, data: Mapping[str, Any]) -> None:
        """Forgets a report that himds has stored, unless a newer one has taken its place. Errors: OSError."""
        if (kind, dict(data)) in self.reports():
            atomic.unlink(self._report_path(kind))
            self._unwritten_reports.pop(kind, None)

    def drop_state(self, kind: str) -> None:
        """Forgets the last state of what is carried out of a kind, though himds does not have it. Errors: OSError."""
        atomic.unlink(self._report_path(f"{STATE}{kind}"))
        self._unwritten_reports.pop(f"{STATE}{kind}", None)

    def _queue_path(self, kind: str) -> str:
        return os.path.join(self._queue, f"{kind}.jws")

    def _desired_path(self, kind: str) -> str:
        return os.path.join(self._desired, f"{kind}.jws")

    def _report_path(self, kind: str) -> str:
        return os.path.join(self._queue, f"report-{kind}.json")


def floors_of(found: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """The floors in the object of the file. Errors: ValueError when it has another shape. Pure."""
    floors = found.get("floors")
    if found.get("v") != 1 or not isinstance(floors, dict):
        raise ValueError("not a file of floors")
    for kinds in floors.values():
        if not isinstance(kinds, dict) or not all(type(number) is int and number >= 0 for number in kinds.values()):
            raise ValueError("not a file of floors")
    return floors


def raised(
    floors: Mapping[str, Mapping[str, int]], vm_id: str, kind: str, generation: int
) -> dict[str, dict[str, int]]:
    """`floors` with one raised; it never falls. Of other machines MACHINES_KEPT - 1 stay. Pure."""
    made = {key: dict(kinds) for key, kinds in floors.items() if key != vm_id.lower()}
    mine = dict(floors.get(vm_id.lower(), {}))
    mine[kind] = max(generation, mine.get(kind, 0))
    made[vm_id.lower()] = mine
    for key in list(made)[:-MACHINES_KEPT]:
        del made[key]
    return made


def _text(path: str) -> str | None:
    try:
        return atomic.read_bytes(path, DOCUMENT_LIMIT).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        atomic.unlink(path)
        return None

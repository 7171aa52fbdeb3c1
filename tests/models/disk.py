# SPDX-License-Identifier: Apache-2.0
"""A file system that loses what was not synced.

`Recorder` writes down what real code does to the files below a folder, and `survivors` says what a machine may find
there after it lost its power in the midst of it. Source of the rules: ext4 (data=ordered) and xfs commit changes of
names in the order in which they were made, and `fsync` of a folder commits all that were made before it; the content of
a file is safe after its own `fsync` alone. Until then a write may be there, be missing, or have left zeros, whatever
became of the file's name. A file's `fsync` commits no name here, although ext4's does: less is promised than is kept.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Files = Mapping[str, bytes]
"""Content by path below the recorder's folder."""


@dataclass(frozen=True)
class Op:
    """One step. `kind`: make, write, sync, sync_folder, rename, link, remove, told. `node`: number of a file; `path`,
    `target`: below the folder; `at`, `data`: of a write. `memory`: of `told`, what
    somebody else, who is not on this disk, remembers from here on."""

    kind: str
    node: int = -1
    path: str = ""
    target: str = ""
    at: int = 0
    data: bytes = b""
    memory: Any = None


@dataclass
class Recorder:
    """Records while `recording`. `remembers`: what is not on the disk (a hub), copied whenever `tell` is called."""

    folder: str
    start: dict[str, bytes] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    _nodes: dict[str, int] = field(default_factory=dict)
    _open: dict[int, tuple[int, str]] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=dict)
    _real: dict[str, Callable[..., Any]] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self.start = read(self.folder)
        for path in self.start:
            self._nodes[path] = self._count
            self._count += 1

    def tell(self, memory: object) -> None:
        """Somebody else remembers `memory` from now on, whatever becomes of this disk."""
        self.ops.append(Op("told", memory=memory))

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """What is done in the block to files below the folder is done and recorded."""
        ours: dict[str, Callable[..., Any]] = {
            "open": self._opened,
            "write": self._written,
            "fsync": self._synced,
            "close": self._closed,
            "replace": self._renamed,
            "rename": self._renamed,
            "link": self._linked,
            "unlink": self._removed,
            "remove": self._removed,
        }
        self._real = {name: getattr(os, name) for name in ours}
        try:
            for name, function in ours.items():
                setattr(os, name, function)
            yield
        finally:
            for name, function in self._real.items():
                setattr(os, name, function)

    def _opened(self, path: Any, flags: int, mode: int = 0o777, **named: Any) -> int:
        below = self._below(path)
        is_new = below is not None and not os.path.lexists(path)
        handle: int = self._real["open"](path, flags, mode, **named)
        self._open.pop(handle, None)  # of a descriptor that a file object has closed
        if below is not None and flags & os.O_DIRECTORY:
            self._open[handle] = (-1, below)
        elif below is not None:
            if is_new:
                self._nodes[below] = self._count
                self._count += 1
                self.ops.append(Op("make", self._nodes[below], below))
            elif flags & os.O_TRUNC:
                raise NotImplementedError("truncation is not modelled; nothing of the agent's truncates")
            self._open[handle] = (self._nodes[below], "")
            self._places[handle] = 0
        return handle

    def _written(self, handle: int, data: Any) -> int:
        done: int = self._real["write"](handle, data)
        if handle in self._open:
            place = self._places[handle]
            self.ops.append(Op("write", self._open[handle][0], at=place, data=bytes(data[:done])))
            self._places[handle] = place + done
        return done

    def _synced(self, handle: int) -> None:
        if handle in self._open:
            node, folder = self._open[handle]
            self.ops.append(Op("sync", node) if node >= 0 else Op("sync_folder", path=folder))

    def _closed(self, handle: int) -> None:
        self._open.pop(handle, None)
        self._real["close"](handle)

    def _renamed(self, source: Any, target: Any) -> None:
        self._real["replace"](source, target)
        one, other = self._below(source), self._below(target)
        if one is not None and other is not None:
            self._nodes[other] = self._nodes.pop(one)
            self.ops.append(Op("rename", path=one, target=other))

    def _linked(self, source: Any, target: Any, **named: Any) -> None:
        self._real["link"](source, target, **named)
        one, other = self._below(source), self._below(target)
        if one is not None and other is not None:
            self._nodes[other] = self._nodes[one]
            self.ops.append(Op("link", path=one, target=other))

    def _removed(self, path: Any, **named: Any) -> None:
        self._real["unlink"](path, **named)
        below = self._below(path)
        if below is not None:
            self._nodes.pop(below)
            self.ops.append(Op("remove", path=below))

    def _below(self, path: Any) -> str | None:
        text = os.fspath(path) if not isinstance(path, int) else ""
        if not isinstance(text, str) or not (text + "/").startswith(self.folder + "/"):
            return None
        return text[len(self.folder) + 1 :]


def read(folder: str) -> dict[str, bytes]:
    """Every file below a folder."""
    found = {}
    for at, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            found[os.path.relpath(path, folder)] = Path(path).read_bytes()
    return found


def write(folder: str, files: Files, folders: Sequence[str] = ()) -> None:
    """Make a folder hold these files, and these empty folders, alone."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in folders:
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class _Content:
    """A file's bytes as they were synced, and the writes since then."""

    def __init__(self, synced: bytes) -> None:
        self.synced = synced
        self.since: list[Op] = []

    def sync(self) -> None:
        self.synced, self.since = self.all(), []

    def all(self) -> bytes:
        return _written(self.synced, self.since)

    def after(self, dice: random.Random) -> bytes:
        """What may be left of it."""
        if not self.since:
            return self.synced
        kept = [op for op in self.since if dice.random() < dice.choice((0.0, 0.5, 1.0))]
        found = _written(self.synced, kept)
        if dice.random() < 0.3:
            # The size was committed and the blocks were not.
            found += bytes(max(0, len(self.all()) - len(found)))
        return found


def _written(content: bytes, ops: Sequence[Op]) -> bytes:
    found = bytearray(content)
    for op in ops:
        found += bytes(max(0, op.at - len(found)))
        found[op.at : op.at + len(op.data)] = op.data
    return bytes(found)


def survivors(start: Files, ops: Sequence[Op], dice: random.Random) -> dict[str, bytes]:
    """What the next boot finds when the power is lost after `ops`, of which everything before `start` was synced."""
    contents = {number: _Content(content) for number, content in enumerate(start.values())}
    names = {path: number for number, path in enumerate(start)}
    journal: list[Op] = []
    safe = 0
    for op in ops:
        if op.kind == "make":
            contents[op.node] = _Content(b"")
            journal.append(op)
        elif op.kind in ("rename", "link", "remove"):
            journal.append(op)
        elif op.kind == "write":
            contents[op.node].since.append(op)
        elif op.kind == "sync":
            contents[op.node].sync()
        elif op.kind == "sync_folder":
            safe = len(journal)
    for op in journal[: dice.randint(safe, len(journal))]:
        if op.kind == "make":
            names[op.path] = op.node
        elif op.kind == "rename":
            names[op.target] = names.pop(op.path)
        elif op.kind == "link":
            names[op.target] = names[op.path]
        else:
            del names[op.path]
    return {path: contents[node].after(dice) for path, node in names.items()}


def freed(start: Files, ops: Sequence[Op]) -> list[tuple[str, bytes]]:
    """What lies in blocks that no name leads to any more, after all of `ops`: a file's last name, and its content as it
    was on the disk when that went."""
    contents = {number: _Content(content) for number, content in enumerate(start.values())}
    names = {path: number for number, path in enumerate(start)}
    found = []
    for op in ops:
        if op.kind == "make":
            contents[op.node], names[op.path] = _Content(b""), op.node
        elif op.kind == "write":
            contents[op.node].since.append(op)
        elif op.kind == "sync":
            contents[op.node].sync()
        elif op.kind in ("rename", "link", "remove"):
            last = op.path if op.kind == "remove" else op.target
            lost = names.pop(last, None)
            if op.kind != "remove":
                names[last] = names.pop(op.path) if op.kind == "rename" else names[op.path]
            if lost is not None and lost not in names.values():
                found.append((last, contents[lost].synced))
    return found


def completed(start: Files, ops: Sequence[Op]) -> dict[str, bytes]:
    """What is there when nothing was lost: by this the model itself is checked."""
    calm = random.Random(0)
    flushed: list[Op] = []
    for op in ops:
        flushed += [op, Op("sync", op.node)] if op.kind == "write" else [op]
    return survivors(start, [*flushed, Op("sync_folder")], calm)


def memory_at(ops: Sequence[Op], otherwise: object) -> Any:
    """What others remember after `ops`."""
    for op in reversed(ops):
        if op.kind == "told":
            return op.memory
    return otherwise

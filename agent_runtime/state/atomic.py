# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent: written beside their place, synced, renamed; read without following links."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from typing import Any

from agent_runtime.platform import local

READ_LIMIT = 4 * 1024 * 1024


def write_bytes(
    path: str, content: bytes, mode: int = 0o600, durable: bool = True, group: int = -1, owner: int = -1
) -> None:
    """Replace `path` by `content`. With `durable` it survives a power cut from the return on. Errors: OSError, and then
    the old content is untouched."""
    _write(path, content, os.replace, mode, durable, group, owner)


def create_bytes(path: str, content: bytes, mode: int = 0o600) -> bool:
    """Write `path` durably unless it is there; False when it was. Of several processes that try at once one wins, and
    nobody ever reads half of it. Errors: OSError."""
    try:
        _write(path, content, _give_name, mode)
    except FileExistsError:
        return False
    return True


def beside(path: str) -> str:
    """A name for something temporary in the same folder."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(6).hex()}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `beside` named: half written, if its writer is gone."""
    return name.startswith(".") and name.endswith(".tmp")


def _give_name(temporary: str, path: str) -> None:
    os.link(temporary, path)
    os.unlink(temporary)


def _write(
    path: str,
    content: bytes,
    name_it: Callable[[str, str], None],
    mode: int,
    durable: bool = True,
    group: int = -1,
    owner: int = -1,
) -> None:
    folder = os.path.dirname(path)
    temporary = beside(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            local.give(descriptor, mode, group, owner)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        name_it(temporary, path)
    except BaseException:
        unlink(temporary)
        raise
    if durable:
        local.sync_folder(folder)


def write_json(
    path: str, value: Any, mode: int = 0o600, durable: bool = True, group: int = -1, owner: int = -1
) -> None:
    """`write_bytes` of JSON with a final newline."""
    content = json.dumps(value, indent=1, sort_keys=True).encode("ascii") + b"\n"
    write_bytes(path, content, mode, durable, group, owner)


def read_bytes(path: str, limit: int = READ_LIMIT) -> bytes:
    """Content of a regular file that is no link. Errors: OSError; ValueError when it is longer than `limit` or no
    file."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        # Before anything is made of the descriptor: what refuses a folder leaves it open.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise ValueError(f"{path} is longer than {limit} bytes")
    return content


def read_json(path: str, limit: int = READ_LIMIT) -> dict[str, Any]:
    """A JSON object. Errors: OSError; ValueError when it is none."""
    try:
        value = json.loads(read_bytes(path, limit))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def unlink(path: str) -> bool:
    """Remove a file; False when there was none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def erase(path: str) -> None:
    """Overwrite and remove: what held a key must not be found in a free block (best effort on copy-on-write disks). A
    link, or a file with a second name, is removed and not written through. Errors: OSError."""
    try:
        descriptor = local.open_plain(path, os.O_WRONLY)
    except OSError:
        unlink(path)
        return
    try:
        left = os.fstat(descriptor).st_size
        while left > 0:
            left -= os.write(descriptor, bytes(min(left, 65536)))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unlink(path)

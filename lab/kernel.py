# SPDX-License-Identifier: Apache-2.0
"""Kernel settings that many hosts on one machine need, raised once for all labs and given back by the last one.

Without them PID 1 of about the twentieth host dies of 'Too many open files': every host's services take inotify
instances of the one user that they share, and every session takes a keyring.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RAISED: Mapping[str, int] = {
    "fs.inotify.max_user_instances": 8192,
    "fs.inotify.max_user_watches": 1048576,
    "kernel.keys.maxkeys": 20000,
}
_REGISTER = Path("/run/hawser-lab")


def needed(current: Mapping[str, int]) -> dict[str, int]:
    """Which settings are below what the lab needs, with the value to write."""
    return {key: value for key, value in RAISED.items() if current[key] < value}


def _path(key: str) -> Path:
    return Path("/proc/sys", *key.split("."))


@contextmanager
def locked() -> Iterator[Path]:
    """Hold the machine's register of labs: what every lab of the machine shares is looked at and changed under it."""
    while True:
        _REGISTER.mkdir(mode=0o755, exist_ok=True)
        handle = os.open(_REGISTER, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # The last lab may have removed the register while this one waited for its lock.
            if os.fstat(handle).st_nlink == 0:
                continue
            yield _REGISTER
            return
        finally:
            os.close(handle)


def raise_for(lab: str) -> None:
    """Raise what is too low and note that this lab (a name) uses it."""
    with locked() as register:
        before = register / "kernel.json"
        current = {key: int(_path(key).read_text(encoding="ascii")) for key in RAISED}
        wanted = needed(current)
        if wanted and not before.exists():
            before.write_text(json.dumps({key: current[key] for key in wanted}), encoding="ascii")
        (register / f"{lab}.lab").touch()
        for key, value in wanted.items():
            _path(key).write_text(str(value), encoding="ascii")


def give_back(lab: str) -> str | None:
    """Forget this lab; the last one to go writes the former values back."""
    if not _REGISTER.is_dir():
        return None
    with locked() as register:
        (register / f"{lab}.lab").unlink(missing_ok=True)
        if any(register.glob("*.lab")):
            return None
        before = register / "kernel.json"
        restored = before.exists()
        if restored:
            for key, value in json.loads(before.read_text(encoding="ascii")).items():
                if key in RAISED:
                    _path(key).write_text(str(value), encoding="ascii")
            before.unlink()
        register.rmdir()
    return "kernel settings given back" if restored else None

# SPDX-License-Identifier: Apache-2.0
"""CommandExecution.log of a handler: what was run, how it ended, what it said (extension-handler.md section 23)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Optional

from agent_runtime.extensions import texts
from agent_runtime.extensions.runner import LOST_CODE, Ended
from agent_runtime.platform import local

LIMIT = 10 * 1024 * 1024


def entry(at: float, command: str, variables: Mapping[str, str], ended: Ended) -> str:
    """One entry. `variables`: those of the contract alone; what else a handler is given may hold a proxy's password.
    Pure."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    unusual = {None: "killed at its time limit", LOST_CODE: "exit code not known"}
    end = unusual.get(ended.code, f"exit code {ended.code}")
    lines = [f"{stamp} {command}", *(f"  {name}={value}" for name, value in sorted(variables.items()))]
    lines.append(f"  {end} after {ended.seconds:.1f} s")
    for name, text in (("stdout", ended.out), ("stderr", ended.err)):
        if text:
            lines += [f"[{name}]", text.rstrip("\n")]
    return texts.redacted("\n".join(lines)) + "\n"


def write(folder: str, extension: Optional[str], command: str, variables: Mapping[str, str], ended: Ended) -> None:
    """Writes down a command that has ended now. A log that cannot be written keeps nothing from being installed."""
    with contextlib.suppress(OSError):
        append(folder, extension, entry(time.time(), command, variables, ended))


def append(folder: str, extension: Optional[str], text: str) -> None:
    """Adds an entry to the log of a handler, or of one of its extensions; kept are the last 10 MB. Errors: OSError."""
    os.makedirs(folder, mode=0o750, exist_ok=True)
    name = "CommandExecution.log" if extension is None else f"CommandExecution_{extension}.log"
    handle = local.open_plain(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with os.fdopen(handle, "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(text.encode("utf-8", "replace"))
        size = file.tell()
        if size > LIMIT:
            file.seek(size - LIMIT // 2)
            kept = file.read().partition(b"\n")[2]
            file.truncate(0)
            file.write(kept)

# SPDX-License-Identifier: Apache-2.0
"""How a handler's command ended, in words (extension-handler.md section 9)."""

from __future__ import annotations

import os
import shlex
import stat
from typing import Optional

from agent_runtime.extensions import environment, texts
from agent_runtime.extensions.runner import LOST_CODE, Ended

_MEANS = {
    51: "this operating system is not supported by it",
    52: "something it depends on is missing",
    64: "its folder is on a file system that is mounted noexec",
    126: "the command is not executable: look at its mode and at how {folder} is mounted",
    127: "the command, or the interpreter that its first line names, is not on this machine",
}
_LINE = 256
# Bytes of the end of what a command wrote; all that is said fits into a text of the report.
_QUOTED = 1500


def sentence(verb: str, what: str, folder: str, command: str, ended: Ended, seconds: float) -> str:
    """What is said of a command that did not end with 0; `command` as the shell was given it, empty where it is not
    known any more; `seconds` it was given."""
    said = texts.tail((ended.err.strip() or ended.out.strip()).encode("utf-8"), _QUOTED)
    if ended.code is None:
        message = f"{verb} of {what} was killed after {seconds:g} s"
    elif ended.code == LOST_CODE:
        message = f"{verb} of {what} has ended, but its exit code could not be written: see that the disk has room"
    else:
        means = _MEANS.get(ended.code, "").format(folder=folder)
        if ended.code == 127:
            means = lacking(command) or means
        message = f"{verb} of {what} failed with exit code {ended.code}" + (f" ({means})" if means else "")
    return texts.cut(f"{message}: {said}" if said else message)


def lacking(command: str) -> Optional[str]:
    """What keeps the program of a command from being started, as far as its first line tells."""
    import shutil  # a resident's memory: not before a command has failed so

    try:
        program = shlex.split(command)[0]
        line = _beginning(program).split(b"\n", 1)[0].decode("utf-8", "replace")
    except (OSError, ValueError, LookupError):
        return None
    if not line.startswith("#!"):
        return None
    name = os.path.basename(program)
    if line.endswith("\r"):
        return f"the first line of {name} ends with a carriage return: convert its line ends"
    words = line[2:].split()
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if not words or shutil.which(words[0], path=environment.PATH):
        return None
    return f"{name} needs {words[0]}, which is not on this machine"


def _beginning(path: str) -> bytes:
    """Of a program, which may be a link; of anything but a file, a pipe too, nothing. Errors: OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.read(descriptor, _LINE) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)

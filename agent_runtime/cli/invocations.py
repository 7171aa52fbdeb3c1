# SPDX-License-Identifier: Apache-2.0
"""azcmagent.log: what was called, by whom, and how it ended; never a secret (agent-surface.md section 4).

The folder belongs to himds, so root opens the file without following a link and writes into an ordinary file only.
"""

from __future__ import annotations

import os
import time
import traceback
from typing import TYPE_CHECKING

from agent_runtime.cli import redact
from agent_runtime.platform import local
from agent_runtime.service import log

if TYPE_CHECKING:
    from agent_runtime.errors import AgentError


class _GuardedFile(log.Log):
    """A log file in a folder that another user owns. What cannot be written is lost: no command fails for its log."""

    def _open(self) -> int:
        return local.open_plain(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, self._mode)

    def _write(self, level: str, message: str) -> None:
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            os.write(self._descriptor, log.line(time.time(), level, message).encode("utf-8", "backslashreplace"))
            if os.fstat(self._descriptor).st_size > log.SIZE_LIMIT:
                self._rotate()
        except OSError:
            return


class Log:
    """One invocation in azcmagent.log. Users who may not write there leave no trace."""

    def __init__(self, path: str):
        self._file = _GuardedFile(path)
        self._began = time.monotonic()

    def begin(self, command: str, argv: list[str]) -> None:
        words = f"{command} {redact.command_line(argv)}".strip()
        self._file.info(f"{words} (pid {os.getpid()}, user {local.caller()})")

    def end(self, code: int) -> None:
        self._file.info(f"ended with exit code {code} after {self._seconds()} s")

    def failed(self, problem: AgentError) -> None:
        text = redact.without_userinfo(f"{problem.code}: {problem.message}")
        self._file.error(f"{text} (after {self._seconds()} s)")

    def exception(self, problem: BaseException) -> None:
        """The place of an error that nobody expected, without its text, which could hold anything."""
        frames = traceback.extract_tb(problem.__traceback__)
        where = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames))
        self._file.error(f"{type(problem).__name__} at {where}")

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began:.2f}"

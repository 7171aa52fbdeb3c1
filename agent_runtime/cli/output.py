# SPDX-License-Identifier: Apache-2.0
"""How azcmagent speaks: text or one JSON object, progress, warnings, errors.

Source: agent-surface.md section 5.0. Everything goes to standard output; with `--log-stderr` errors, warnings and
verbose lines go to standard error. In JSON mode standard output holds one object and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from agent_runtime.errors import AgentError

_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


class Output:
    """Writes what a command has to say. `text` is written in text mode, objects in JSON mode."""

    def __init__(self, *, json: bool = False, verbose: bool = False, log_stderr: bool = False, color: bool = True):
        self.json = json
        self.is_verbose = verbose
        self.warnings: list[str] = []
        self._aside: TextIO = sys.stderr if log_stderr else sys.stdout
        self._log_stderr = log_stderr
        self._color = color and "NO_COLOR" not in os.environ
        self._live = False

    def result(self, data: Any, text: str) -> None:
        """The outcome of the command: `data` as JSON, or `text`."""
        self._end_live()
        if self.json:
            self.print_json(data)
        elif text:
            self._write(sys.stdout, text)

    def print_json(self, data: Any) -> None:
        """`data` as ASCII JSON, whatever the mode."""
        from json import dumps

        self._write(sys.stdout, dumps(data, indent=2, ensure_ascii=True))

    def line(self, text: str) -> None:
        """A line for people; nothing in JSON mode."""
        if not self.json:
            self._end_live()
            self._write(sys.stdout, text)

    def verbose(self, text: str) -> None:
        """A line that `--verbose` asks for."""
        if self.is_verbose and (self._log_stderr or not self.json):
            self._end_live()
            self._write(self._aside, text)

    def warn(self, text: str) -> None:
        """A warning, now for people and as a member of the object for programs."""
        self.warnings.append(text)
        if self._log_stderr or not self.json:
            self._end_live()
            self._write(self._aside, f"{self._paint('warning:', _YELLOW, self._aside)} {text}")

    def progress(self, percent: int, step: str) -> None:
        """One line that is rewritten on a terminal, else one line for each step; nothing in JSON mode."""
        if self.json:
            return
        text = f"{percent:3d} %  {step}"
        if not _is_terminal(sys.stdout):
            self._write(sys.stdout, text)
            return
        self._live = True
        self._raw(sys.stdout, f"\r\x1b[K{text}")
        if percent >= 100:
            self._end_live()

    def error(self, error: AgentError) -> None:
        """One sentence with its code and the remedy."""
        self._end_live()
        if self.json:
            self.print_json({"status": "failed", "error": error.as_dict()})
            return
        self._write(self._aside, f"{self._paint('error:', _RED, self._aside)} {error.code}: {error.message}")
        if error.remedy:
            self._write(self._aside, f"remedy: {error.remedy}")

    def _paint(self, text: str, color: str, stream: TextIO) -> str:
        return f"{color}{text}{_PLAIN}" if self._color and _is_terminal(stream) else text

    def _end_live(self) -> None:
        if self._live:
            self._live = False
            self._raw(sys.stdout, "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        self._raw(stream, text + "\n")

    @staticmethod
    def _raw(stream: TextIO, text: str) -> None:
        # A terminal without UTF-8 must not turn a host's name into a traceback.
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def shown(value: Any) -> str:
    """A value as text output shows it: lists by commas, truth in lower case, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(shown(item) for item in value)
    return str(value)


def table(rows: list[tuple[str, str]], width: int | None = None) -> str:
    """Two columns, `name : value`."""
    widest = width or max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{widest}} : {value}".rstrip() for name, value in rows)


def columns(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table with a head, columns as wide as their widest cell."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows]]
    return "\n".join(lines)


def named(mapping: Mapping[str, Any], keys: list[str]) -> dict[str, Any]:
    """The members of `mapping` that `keys` names, in that order."""
    return {key: mapping[key] for key in keys if key in mapping}

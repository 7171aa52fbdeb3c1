# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs azcmagent on the host through the connection of the action: one remote command, JSON on standard input.

No module archive, no Python on the host, no temporary directory. Where the connection or the become method cannot carry
standard input (`su`, paramiko), the JSON travels as a file in a 0700 directory and is removed; that costs three
commands more.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from ansible import constants as C  # noqa: N812 - the field's name
from ansible_collections.hawser.machine.plugins.plugin_utils._command import (
    Target,
    classify,
    command_line,
    file_command_line,
    input_data,
    is_missing,
)
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import CarriageError

PROGRAM_VARIABLE = "hawser_program"


def carries_stdin(has_pipelining: bool, become_pipelining: bool | None) -> bool:
    """Whether standard input reaches the program: the connection must carry it, and become too (None: no become)."""
    return has_pipelining and become_pipelining is not False


class Carrier:
    """`action` is the action plugin; its connection and its command execution are used as they are."""

    def __init__(self, action: Any, task_vars: dict[str, Any]) -> None:
        self._action = action
        self._connection = action._connection
        self.program: str | None = task_vars.get(PROGRAM_VARIABLE)
        shell_is_windows = bool(getattr(self._connection._shell, "_IS_WINDOWS", False))
        self.target: Target = classify(self._connection.transport, shell_is_windows)
        self._refuse_what_cannot_work()

    def _refuse_what_cannot_work(self) -> None:
        become = self._connection.become
        if become and self.target.windows:
            raise CarriageError(
                "become does not work with this module on Windows",
                "Connect as an administrator and set become to false",
            )
        self._stdin = carries_stdin(bool(self._connection.has_pipelining), become.pipelining if become else None)
        if not self._stdin and self.target.windows:
            raise CarriageError(
                f"the connection {self.target.transport} does not carry standard input",
                "Use winrm, psrp or ssh for this host",
            )

    def run(self, arguments: list[str], text: str | None = None) -> tuple[int, str, str]:
        """Run `azcmagent ARGUMENTS` with `text` on standard input: exit code, standard output, standard error."""
        if text is None or self._stdin:
            command = command_line(self.target, arguments, self.program, carries_input=text is not None)
            with self._no_terminal():
                outcome = self._action._low_level_execute_command(
                    command, in_data=input_data(self.target, text) if text is not None else None
                )
        else:
            outcome = self._by_file(arguments, text)
        return outcome["rc"], outcome["stdout"], outcome["stderr"]

    def missing(self, outcome: tuple[int, str, str]) -> bool:
        """Whether an outcome of `run` means that azcmagent is not installed."""
        return is_missing(self.target, *outcome, self.program)

    @contextlib.contextmanager
    def _no_terminal(self) -> Iterator[None]:
        """`local` gives sudo a terminal for its prompt unless pipelining is on; standard input is lost then."""
        if self.target.transport != "local" or not self._connection.become:
            yield
            return
        before = self._connection.get_option("pipelining")
        self._connection.set_option("pipelining", True)
        try:
            yield
        finally:
            self._connection.set_option("pipelining", before)

    def _by_file(self, arguments: list[str], text: str) -> dict[str, Any]:
        directory = self._action._make_tmp_path()  # 0700
        try:
            path = self._connection._shell.join_path(directory, "input.json")
            descriptor, local = tempfile.mkstemp(prefix="hawser-", dir=C.DEFAULT_LOCAL_TMP)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(text)
                self._action._transfer_file(local, path)
            finally:
                os.unlink(local)
            command = file_command_line(path, arguments, self.program)
            outcome: dict[str, Any] = self._action._low_level_execute_command(command)
        finally:
            # Here and not at the task's end: that knows the last directory only, and a wish may be sent twice.
            self._action._remove_tmp_path(directory, force=True)
        return outcome

# SPDX-License-Identifier: GPL-3.0-or-later
"""How a command line of azcmagent reaches a host: pure functions over the names of connection and shell.

winrm and psrp always run a PowerShell statement, whatever their shell plugin is called; ssh goes by its shell plugin
(ansible-core 2.22 leaves `ansible_shell_type` of winrm unset).
"""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass

POSIX_PROGRAM = "/opt/azcmagent/bin/azcmagent"
WINDOWS_PROGRAM = r"C:\Program Files\AzureConnectedMachineAgent\azcmagent.exe"
NOT_FOUND = 127


@dataclass(frozen=True)
class Target:
    """Decides how a command is written. `kind`: `posix`, `powershell` (winrm, psrp), `encoded` (Windows over ssh)."""

    kind: str
    transport: str

    @property
    def windows(self) -> bool:
        """Whether the host is a Windows host."""
        return self.kind != "posix"


def classify(transport: str, shell_is_windows: bool) -> Target:
    """The target of a connection; `transport` is the connection plugin's name, with or without its collection."""
    short = transport.rsplit(".", 1)[-1]
    if short in {"winrm", "psrp"}:
        return Target("powershell", short)
    return Target("encoded" if shell_is_windows else "posix", short)


def _quoted(text: str) -> str:
    """A PowerShell literal: single quotes, doubled inside. PowerShell takes the typographic ones for quotes too."""
    for quote in "'\u2018\u2019\u201a\u201b":
        text = text.replace(quote, quote * 2)
    return f"'{text}'"


def _statement(program: str, arguments: list[str], carries_input: bool) -> str:
    """One PowerShell statement that ends with the program's exit code; 127 where there is no program, as in `sh`."""
    call = " ".join(["&", _quoted(program), *(_quoted(argument) for argument in arguments)])
    if carries_input:
        call = f"$input | {call}"
    test = f"if (-not (Test-Path -LiteralPath {_quoted(program)} -PathType Leaf)) {{ exit {NOT_FOUND} }}"
    return f"{test}; {call}; exit $LASTEXITCODE"


def command_line(target: Target, arguments: list[str], program: str | None = None, carries_input: bool = True) -> str:
    """The command line for `azcmagent ARGUMENTS`, quoted for the target."""
    if target.kind == "posix":
        return shlex.join([program or POSIX_PROGRAM, *arguments])
    statement = _statement(program or WINDOWS_PROGRAM, arguments, carries_input)
    if target.kind == "powershell":
        return statement
    encoded = base64.b64encode(statement.encode("utf-16-le")).decode()
    return f"powershell -NoProfile -NonInteractive -ExecutionPolicy Unrestricted -EncodedCommand {encoded}"


def file_command_line(path: str, arguments: list[str], program: str | None = None) -> str:
    """The same where the connection cannot carry standard input (POSIX): it comes from a file, narrowed first."""
    return (
        f"chmod 0600 {shlex.quote(path)} && {shlex.join([program or POSIX_PROGRAM, *arguments])} < {shlex.quote(path)}"
    )


def input_data(target: Target, text: str) -> bytes | str:
    """Standard input as the connection wants it. psrp splits it into lines; bytes would arrive as numbers."""
    return text if target.transport == "psrp" else text.encode("ascii")


def is_missing(target: Target, rc: int, stdout: str, stderr: str, program: str | None = None) -> bool:
    """The one rule for 'azcmagent is not installed': exit code 127, which no error of azcmagent has.

    On POSIX the shell's complaint must be about our program (`PATH: …`, in whatever language): 127 is also what is
    left when
    sudo itself is missing. With a terminal (`su`) the complaint stands on standard output.
    """
    if rc != NOT_FOUND:
        return False
    if target.windows:
        return not stdout.strip()
    return f"{program or POSIX_PROGRAM}:" in stderr + stdout

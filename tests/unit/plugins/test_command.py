# SPDX-License-Identifier: Apache-2.0
"""Command lines by connection. The POSIX ones are run by a real shell; the PowerShell ones are compared as text."""

from __future__ import annotations

import base64
import subprocess

import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _command as command
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("transport", "windows_shell", "kind"),
    [
        ("ssh", False, "posix"),
        ("ansible.builtin.ssh", False, "posix"),
        ("local", False, "posix"),
        ("paramiko_ssh", False, "posix"),
        ("ssh", True, "encoded"),
        ("winrm", True, "powershell"),
        # From ansible-core 2.22 on the shell plugin of winrm does not say Windows PowerShell.
        ("winrm", False, "powershell"),
        ("ansible.builtin.psrp", False, "powershell"),
    ],
)
def test_classify(transport: str, windows_shell: bool, kind: str) -> None:
    target = command.classify(transport, windows_shell)
    assert target.kind == kind
    assert target.windows == (kind != "posix")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_posix_arguments_survive_a_shell(text: str) -> None:
    line = command.command_line(command.classify("ssh", False), [text], program="/usr/bin/printf")
    # printf with one argument prints its format; %% and backslashes are printf's own.
    if "%" in text or "\\" in text or text.startswith("-"):
        return
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode() == text


def test_posix_default_program() -> None:
    assert (
        command.command_line(command.classify("ssh", False), ["apply", "-"]) == "/opt/azcmagent/bin/azcmagent apply -"
    )


def test_winrm_statement() -> None:
    line = command.command_line(command.classify("winrm", True), ["apply", "-"])
    program = r"'C:\Program Files\AzureConnectedMachineAgent\azcmagent.exe'"
    assert line == (
        f"if (-not (Test-Path -LiteralPath {program} -PathType Leaf)) {{ exit 127 }}; "
        f"$input | & {program} 'apply' '-'; exit $LASTEXITCODE"
    )


def test_winrm_statement_without_input() -> None:
    line = command.command_line(command.classify("psrp", True), ["show", "--json"], carries_input=False)
    assert "$input" not in line
    assert line.endswith("'show' '--json'; exit $LASTEXITCODE")


@pytest.mark.parametrize("quote", ["'", "\u2018", "\u2019", "\u201a", "\u201b"])
def test_powershell_quotes_are_doubled(quote: str) -> None:
    line = command.command_line(command.classify("winrm", True), [f"a{quote}b"], carries_input=False)
    assert f"'a{quote}{quote}b'" in line


def test_windows_over_ssh_is_encoded() -> None:
    line = command.command_line(command.classify("ssh", True), ["plan", "-"])
    head, encoded = line.rsplit(" ", 1)
    assert head == "powershell -NoProfile -NonInteractive -ExecutionPolicy Unrestricted -EncodedCommand"
    assert base64.b64decode(encoded).decode("utf-16-le") == command.command_line(
        command.classify("winrm", True), ["plan", "-"]
    )


def test_psrp_gets_text_and_the_others_bytes() -> None:
    assert command.input_data(command.classify("psrp", True), "{}\n") == "{}\n"
    assert command.input_data(command.classify("winrm", True), "{}\n") == b"{}\n"
    assert command.input_data(command.classify("ssh", False), "{}\n") == b"{}\n"


SSH, WINRM = command.classify("ssh", False), command.classify("winrm", True)
GONE = "/bin/sh: 1: /opt/azcmagent/bin/azcmagent: not found\n"


@pytest.mark.parametrize(
    ("target", "rc", "stdout", "stderr", "missing"),
    [
        (SSH, 127, "", GONE, True),
        (SSH, 127, "", "sh: /opt/azcmagent/bin/azcmagent: Datei oder Verzeichnis nicht gefunden", True),
        (SSH, 127, GONE, "", True),  # with a terminal
        (SSH, 127, "", "/bin/sh: 1: sudo: not found\n", False),
        (SSH, 127, "", "debug1: Sending command: /bin/sh -c 'sudo /opt/azcmagent/bin/azcmagent apply -'\n", False),
        (SSH, 1, "", GONE, False),
        (SSH, 0, "{}", "", False),
        (WINRM, 127, "", "", True),
        (WINRM, 127, "{}", "", False),
        (WINRM, 20, "", "", False),
    ],
)
def test_missing(target: command.Target, rc: int, stdout: str, stderr: str, missing: bool) -> None:
    assert command.is_missing(target, rc, stdout, stderr) is missing


def test_a_real_shell_says_what_the_rule_expects() -> None:
    line = command.command_line(SSH, ["apply", "-"], program="/nonexistent/azcmagent")
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert command.is_missing(SSH, done.returncode, done.stdout, done.stderr, "/nonexistent/azcmagent")


def test_input_from_a_file_is_narrowed_and_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "in put.json"
    path.write_text("{}")
    path.chmod(0o644)
    done = subprocess.run(
        ["/bin/sh", "-c", command.file_command_line(str(path), ["-"], "/bin/cat")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{}"
    assert path.stat().st_mode & 0o777 == 0o600

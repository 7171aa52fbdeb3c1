# SPDX-License-Identifier: Apache-2.0
"""What no host of the lab can show: Windows connections, and connections that carry nothing on standard input."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _carrier as carrier
from ansible_collections.hawser.machine.plugins.plugin_utils import _errors as errors


class Become:
    def __init__(self, pipelining: bool = True) -> None:
        self.pipelining = pipelining


class Shell:
    def __init__(self, windows: bool) -> None:
        self._IS_WINDOWS = windows


class Connection:
    """As much of a connection as decides how it is used."""

    def __init__(
        self, transport: str, windows: bool, has_pipelining: bool = True, become: Become | None = None
    ) -> None:
        self.transport = transport
        self._shell = Shell(windows)
        self.has_pipelining = has_pipelining
        self.become = become


class Action:
    """Keeps what it was told to run and answers like a program that was not found."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.ran: list[tuple[str, Any]] = []

    def _low_level_execute_command(self, command: str, in_data: Any = None) -> dict[str, Any]:
        self.ran.append((command, in_data))
        return {"rc": 127, "stdout": "", "stderr": ""}


@pytest.mark.parametrize(("transport", "windows_shell"), [("winrm", True), ("winrm", False), ("psrp", True)])
def test_windows_gets_one_statement_and_the_json_on_standard_input(transport: str, windows_shell: bool) -> None:
    action = Action(Connection(transport, windows_shell))
    carried = carrier.Carrier(action, {})
    outcome = carried.run(["apply", "-"], '{"schema":1}\n')
    ((command, sent),) = action.ran
    assert command.startswith("if (-not (Test-Path -LiteralPath 'C:\\Program Files\\")
    assert command.endswith("'apply' '-'; exit $LASTEXITCODE")
    assert sent == ('{"schema":1}\n' if transport == "psrp" else b'{"schema":1}\n')
    assert carried.missing(outcome)


def test_another_program_is_named_by_a_variable() -> None:
    action = Action(Connection("winrm", True))
    carrier.Carrier(action, {"hawser_program": "D:\\it's\\azcmagent.exe"}).run(["show", "--json"])
    assert "& 'D:\\it''s\\azcmagent.exe' 'show' '--json'" in action.ran[0][0]


@pytest.mark.parametrize(
    "connection", [Connection("winrm", True, become=Become()), Connection("ssh", True, become=Become())]
)
def test_become_is_refused_on_windows(connection: Connection) -> None:
    with pytest.raises(errors.CarriageError) as caught:
        carrier.Carrier(Action(connection), {})
    assert "administrator" in caught.value.remedy


def test_a_windows_connection_without_standard_input_is_refused() -> None:
    with pytest.raises(errors.CarriageError):
        carrier.Carrier(Action(Connection("ssh", True, has_pipelining=False)), {})


@pytest.mark.parametrize(
    ("has_pipelining", "become", "carries"),
    [(True, None, True), (True, True, True), (True, False, False), (False, None, False), (False, True, False)],
)
def test_standard_input_needs_both(has_pipelining: bool, become: bool | None, carries: bool) -> None:
    assert carrier.carries_stdin(has_pipelining, become) is carries

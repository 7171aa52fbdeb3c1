# SPDX-License-Identifier: Apache-2.0
"""`azcmagent version`: the installed version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime.version import VERSION

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session


def configure(parser: Parser) -> None:
    """No flags of its own."""


def run(session: Session) -> int:
    session.out.result({"version": VERSION}, f"azcmagent version {VERSION}")
    return 0

# SPDX-License-Identifier: Apache-2.0
"""`azcmagent license`: under which terms the agent comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session

_TEXT = """\
The agent is free software under the Apache License, Version 2.0.
You may use, change and pass it on under the terms of that licence; it comes without warranty of any kind.
The full text: {where}"""
_URL = "https://www.apache.org/licenses/LICENSE-2.0"


def configure(parser: Parser) -> None:
    """No flags of its own."""


def run(session: Session) -> int:
    session.out.result({"license": "Apache-2.0", "url": _URL}, _TEXT.format(where=_URL))
    return 0

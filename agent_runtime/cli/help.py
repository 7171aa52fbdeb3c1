# SPDX-License-Identifier: Apache-2.0
"""`azcmagent help [command]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime import errors

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session


def configure(parser: Parser) -> None:
    parser.add_argument("command", nargs="?", help="the command to explain")


def run(session: Session) -> int:
    from agent_runtime.cli.commands import COMMANDS

    name = session.args.command
    if name is None:
        width = max(len(known) for known in COMMANDS)
        lines = [f"  {known:<{width}}  {command.summary}" for known, command in COMMANDS.items()]
        text = "\n".join(
            [
                f"azcmagent {session.version}: connects this machine to a hub and shows how it is.",
                "",
                "usage: azcmagent COMMAND [flags]",
                "",
                *lines,
                "",
                "azcmagent COMMAND --help explains a command and its flags.",
            ]
        )
        session.out.result({"commands": [{"name": n, "summary": c.summary} for n, c in COMMANDS.items()]}, text)
        return 0
    if name not in COMMANDS:
        raise errors.CommandFailed(f"there is no command {name[:40]!r}", "See: azcmagent help")
    import importlib

    from agent_runtime.cli.parsing import Parser

    parser = Parser(name, COMMANDS[name].summary)
    importlib.import_module(f"agent_runtime.cli.{COMMANDS[name].module}").configure(parser)
    session.out.result({"command": name, "help": parser.format_help()}, parser.format_help().rstrip("\n"))
    return 0

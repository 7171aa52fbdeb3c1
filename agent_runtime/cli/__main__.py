# SPDX-License-Identifier: Apache-2.0
"""`azcmagent`: finds the command, judges rights, hands over to the command's module, turns errors into exit codes.

Source: agent-surface.md section 5. Modules of commands are imported when they are asked for: `version` has 60 ms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """`module` below agent_runtime.cli; `summary` for the list of commands; `root`: needs administrative rights."""

    module: str
    summary: str
    root: bool


COMMANDS = {
    "apply": Command("apply", "bring this machine to the state read from standard input", True),
    "check": Command("check", "test whether the hub can be reached", True),
    "cloud": Command("cloud", "add, list or remove cloud profiles", True),
    "config": Command("config", "list, get, set, clear or explain settings", True),
    "connect": Command("connect", "connect this machine to a hub", True),
    "disconnect": Command("disconnect", "disconnect this machine and delete it at the hub", True),
    "help": Command("help", "this list, or the help of a command", False),
    "license": Command("license", "the terms under which the agent comes", False),
    "logs": Command("logs", "collect the agent's logs in an archive", True),
    "plan": Command("plan", "say what apply would do, and change nothing", True),
    "show": Command("show", "status of this machine", False),
    "version": Command("version", "the installed version", False),
}
# Documented commands that come with a later release.
LATER = ("extension", "genkey", "upgrade")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or the number of the AZCM code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv == ["version"]:
        from agent_runtime.version import VERSION

        print(f"azcmagent version {VERSION}")
        return 0
    try:
        return _main(argv)
    except BrokenPipeError:
        # Nobody reads any more. What is still buffered must not raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(argv: list[str]) -> int:
    from agent_runtime import errors
    from agent_runtime.cli import session as sessions
    from agent_runtime.cli.output import Output
    from agent_runtime.service import root as roots

    plain = Output(json=any(w in ("--json", "-j", "-json") for w in argv), log_stderr="--log-stderr" in argv)
    session: sessions.Session | None = None
    problem: errors.AgentError
    name = ""
    try:
        root, argv = roots.take(argv)
        name, rest = split(argv)
        session = sessions.begin(name, rest, root)
        if session is None:
            return 0
        return session.run()
    except errors.AgentError as found:
        problem = found
    except KeyboardInterrupt:
        problem = errors.Cancelled(
            "cancelled by the user; what was already asked of the agent may still complete",
            "See the outcome with: azcmagent show; then run the command again",
        )
    except BrokenPipeError:
        raise
    except OSError as found:
        problem = sessions.disk_error(found)
    except Exception as found:
        if session is not None:
            session.log.exception(found)
        problem = errors.InternalError(f"an error inside azcmagent: {type(found).__name__}", "See azcmagent.log")
    if name in ("apply", "plan"):
        from agent_runtime.cli import apply

        apply.tell({**apply.blank(), "error": problem.as_dict()})
    else:
        (session.out if session is not None else plain).error(problem)
    if session is not None:
        session.log.failed(problem)
    return problem.exit_code


def split(argv: list[str]) -> tuple[str, list[str]]:
    """The command's name and the words without it; general flags may stand before it. Pure. Errors: AZCM0101."""
    from agent_runtime import errors

    skip = False
    for index, word in enumerate(argv):
        if skip or word.startswith("-"):
            skip = word == "--config" and not skip
            continue
        if word in LATER:
            raise errors.NotSupported(f"azcmagent {word} is not supported by this release", "See: azcmagent help")
        if word not in COMMANDS:
            raise errors.CommandFailed(f"there is no command {word[:40]!r}", "See: azcmagent help")
        return word, argv[:index] + argv[index + 1 :]
    return "help", [word for word in argv if word not in ("-h", "--help")]


if __name__ == "__main__":
    sys.exit(main())

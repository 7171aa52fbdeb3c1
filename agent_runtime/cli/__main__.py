# SPDX-License-Identifier: Apache-2.0
"""`azcmagent`: finds the command, judges rights, hands over to the command's module, turns errors into exit codes.

Source: agent-surface.md section 5. Modules of commands are imported when they are asked for: `version` has 60 ms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or the number of the AZCM code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv[-1:] == ["--version"]:  # how the vendor's Ansible role asks whether the agent is there
        argv[-1] = "version"
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
    from agent_runtime.cli import commands
    from agent_runtime.cli import session as sessions
    from agent_runtime.cli.output import Output
    from agent_runtime.service import root as roots

    plain = Output(json=any(w in ("--json", "-j", "-json") for w in argv), log_stderr="--log-stderr" in argv)
    session: sessions.Session | None = None
    problem: errors.AgentError
    name = ""
    try:
        root, argv = roots.take(argv)
        name, rest = commands.split(argv)
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


if __name__ == "__main__":
    sys.exit(main())

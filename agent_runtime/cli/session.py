# SPDX-License-Identifier: Apache-2.0
"""One invocation of azcmagent: flags, output, log, and ways to what the machine knows, fetched when asked for."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.cli import invocations
from agent_runtime.cli.himds_client import HimdsClient
from agent_runtime.cli.output import Output
from agent_runtime.cli.parsing import Parser
from agent_runtime.platform import local
from agent_runtime.platform import paths as places
from agent_runtime.version import VERSION

if TYPE_CHECKING:
    import argparse

    from agent_runtime.platform.paths import Paths


class Session:
    """What a command is given. `argv` are the words of the command line, for judging how a secret came."""

    version = VERSION

    def __init__(self, module: ModuleType, args: argparse.Namespace, argv: list[str], paths: Paths, out: Output):
        self.args = args
        self.argv = argv
        self.paths = paths
        self.out = out
        self.log = invocations.Log(paths.azcmagent_log)
        self._module = module
        self._clouds: dict[str, dict[str, Any]] | None = None

    def run(self) -> int:
        """Runs the command, its invocation logged. Errors: those of the command."""
        self.log.begin(self._module.__name__.rpartition(".")[2], self.argv)
        code: int = self._module.run(self)
        self.log.end(code)
        return code

    def himds(self) -> HimdsClient:
        return HimdsClient(self.paths.socket)

    def status_or_none(self) -> dict[str, Any] | None:
        """What himds says of the machine; None when it does not answer."""
        try:
            return self.himds().status()
        except errors.AgentError:
            return None

    def clouds(self) -> dict[str, dict[str, Any]]:
        """The cloud profiles of this machine. Errors: AZCM0075."""
        if self._clouds is None:
            from agent_runtime.cli import profiles

            self._clouds = profiles.load(self.paths)
        return self._clouds

    def cloud(self, name: str | None) -> dict[str, Any]:
        """The profile called `name`, or the only one, with the anchors in force. Errors: AZCM0075 and others."""
        from agent_runtime.cli import naming
        from agent_runtime.identity import trust

        return trust.read(self.paths, naming.choose_cloud(name, self.clouds()))

    def forget_caches(self) -> None:
        """What was read before a step may no longer be so."""
        self._clouds = None

    def config(self) -> dict[str, Any]:
        """The value in force of every property. Errors: AZCM0070."""
        from agent_runtime.state import config

        return dict(config.effective(config.load(self.paths)))

    def tell_himds(self) -> list[str]:
        """Lets the services read their files again; a warning when himds is away, for it reads them when it starts."""
        try:
            self.himds().call("config_changed", {})
        except errors.AgentError as problem:
            return [f"himds was not told and will see the change when it starts ({problem.message})"]
        return []


def disk_error(problem: OSError) -> errors.AgentError:
    """What people are told of a file that cannot be read or written: the disk is full, or a right is missing."""
    what = problem.filename if isinstance(problem.filename, str) else "a file of the agent"
    return errors.ConfigNotUpdated(f"{what}: {(problem.strerror or 'input or output error').lower()}")


def begin(name: str, rest: list[str], root: str) -> Session | None:
    """The session of the command `name`; None when its help was asked for and printed.

    Errors: AZCM0018 without administrative rights, AZCM0101 and others for flags.
    """
    from agent_runtime.cli.commands import COMMANDS

    command = COMMANDS[name]
    module = importlib.import_module(f"agent_runtime.cli.{command.module}")
    parser = Parser(name, command.summary)
    module.configure(parser)
    if "-h" in rest or "--help" in rest:
        sys.stdout.write(parser.format_help())
        return None
    if command.root and not local.is_administrator():
        raise errors.NotPrivileged(
            f"azcmagent {name} needs administrative rights", f"Run it as root: sudo azcmagent {name}"
        )
    args = parser.parse(rest)
    out = Output(json=args.json, verbose=args.verbose, log_stderr=args.log_stderr, color=not args.no_color)
    session = Session(module, args, rest, places.here(root), out)
    for warning in parser.warnings:
        out.warn(warning)
    return session

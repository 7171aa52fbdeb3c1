# SPDX-License-Identifier: Apache-2.0
"""The table of commands (agent-surface.md section 5), and how a command line names one."""

from __future__ import annotations

from typing import NamedTuple

from agent_runtime import errors


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
    "extension": Command("extension", "list or remove the extensions of this machine", True),
    "help": Command("help", "this list, or the help of a command", False),
    "license": Command("license", "the terms under which the agent comes", False),
    "logs": Command("logs", "collect the agent's logs in an archive", True),
    "plan": Command("plan", "say what apply would do, and change nothing", True),
    "seal": Command("seal", "make this machine an image that can be copied, or check it", True),
    "show": Command("show", "status of this machine", False),
    "specialise": Command("specialise", "give this copy a name of its own, where its image or the hub says so", True),
    "unseal": Command("unseal", "let a sealed machine connect again", True),
    "upgrade": Command("upgrade", "bring the agent to the newest version of the hub, or another", True),
    "version": Command("version", "the installed version", False),
}
# Documented commands that come with a later release.
LATER = ("genkey",)


def split(argv: list[str]) -> tuple[str, list[str]]:
    """The command's name and the words without it; general flags may stand before it. Pure. Errors: AZCM0101."""
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

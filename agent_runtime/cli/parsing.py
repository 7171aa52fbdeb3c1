# SPDX-License-Identifier: Apache-2.0
"""Command lines and `--config` files as one namespace.

Source: agent-surface.md section 5.0: every long flag may stand in a JSON or YAML file without its dashes, and the
command line wins over the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from agent_runtime import errors

# Spellings of old releases (agent-surface.md section 5.0).
_LEGACY = {"-json": "--json", "-useStderr": "--log-stderr"}


class Parser(argparse.ArgumentParser):
    """argparse that reports with the agent's errors and never repeats a value, which could be a secret."""

    def __init__(self, command: str, summary: str):
        super().__init__(prog=f"azcmagent {command}", description=summary, add_help=False, allow_abbrev=False)
        self.warnings: list[str] = []
        general = self.add_argument_group("flags of every command")
        general.add_argument(
            "--config", metavar="FILE", help="read flags from a JSON or YAML file; `-` is standard input"
        )
        general.add_argument("-h", "--help", action="store_true", help="show this help")
        general.add_argument("-j", "--json", action="store_true", help="answer with one JSON object")
        general.add_argument("--log-stderr", action="store_true", help="errors and verbose lines to standard error")
        general.add_argument("--no-color", action="store_true", help="no terminal colours")
        general.add_argument("-v", "--verbose", action="store_true", help="more detail")

    def error(self, message: str) -> NoReturn:
        name, _, problem = message.partition(": ")
        if message.startswith("the following arguments are required: "):
            raise errors.ParameterMissing(f"{self.prog} needs {problem}", f"See: {self.prog} --help")
        if message.startswith("argument ") and problem.startswith(("expected", "not allowed")):
            raise errors.ParameterInvalid(f"{name[9:]}: {problem}", f"See: {self.prog} --help")
        if message.startswith("argument "):
            raise errors.ParameterInvalid(f"{name[9:]} has a value that is not allowed", f"See: {self.prog} --help")
        raise errors.CommandFailed(message, f"See: {self.prog} --help")

    def secret(self, *flags: str, about: str) -> None:
        """A flag whose value is a secret: the value itself, `-` for a line of standard input, `@FILE` for a file."""
        self.add_argument(
            *flags, metavar="SECRET", help=f"{about}; `-` reads it from standard input, `@FILE` from a file"
        )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The namespace of `argv`, completed from its `--config` file.

        Errors: AZCM0101 for what is no flag of this command, AZCM0016, AZCM0019, AZCM0023.
        """
        words = [_LEGACY.get(word, word) for word in argv]
        values, unknown = self.parse_known_args(words)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            what = f"does not know {flags[0][:60]}" if flags else "has more arguments than it takes"
            raise errors.CommandFailed(f"{self.prog} {what}", f"See: {self.prog} --help")
        if values.config is None:
            return values
        from agent_runtime.cli import options_file

        given = options_file.words(options_file.load(values.config), self._flags())
        merged, _ = self.parse_known_args([*given, *words])
        if "service-principal-secret" in given_names(given) and not options_file.is_private(values.config):
            self.warnings.append(f"{values.config} holds a secret and can be read by others; chmod 600 {values.config}")
        return merged

    def _flags(self) -> dict[str, argparse.Action | None]:
        return {
            flag[2:]: action
            for action in self._actions
            for flag in action.option_strings
            if flag.startswith("--") and flag not in ("--config", "--help")
        }


def given_names(words: Sequence[str]) -> set[str]:
    """The long names in words that look like `--name=value`."""
    return {word[2:].partition("=")[0] for word in words if word.startswith("--")}


def truth(text: str) -> bool:
    """`true` or `false`; argparse turns the ValueError into an error of the flag."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError


def switch(parser: Any, flag: str, about: str, default: bool | None = False) -> None:
    """A flag that may stand alone or as `--flag=true|false`."""
    parser.add_argument(flag, nargs="?", const=True, default=default, type=truth, metavar="true|false", help=about)

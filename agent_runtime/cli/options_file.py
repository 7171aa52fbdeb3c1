# SPDX-License-Identifier: Apache-2.0
"""The file of `--config`: JSON or YAML, each key a long flag name without its dashes (agent-surface.md section 5.0)."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Mapping
from typing import Any

from agent_runtime import errors
from agent_runtime.cli import jsoninput

LIMIT = 1024 * 1024


def load(path: str) -> dict[str, Any]:
    """The mapping in the file at `path`; `-` is standard input.

    Errors: AZCM0019 when it cannot be read, AZCM0023 when it is no mapping.
    """
    text = read(path)
    try:
        found = jsoninput.parse(text)
    except errors.ParameterInvalid as problem:
        if text.lstrip()[:1] in (b"{", b"["):
            raise errors.ParameterInvalid(f"the file of --config: {problem}", problem.remedy) from None
        found = _yaml(text)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise errors.ParameterInvalid(
            "the file of --config is not a mapping of flag names to values", 'Write {"location": "…", "tenant-id": "…"}'
        )
    return found


def read(path: str) -> bytes:
    """The bytes of a small file. Errors: AZCM0019."""
    if path == "-":
        content = sys.stdin.buffer.read(LIMIT + 1)
    else:
        try:
            with open(path, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise errors.ConfigFileNotFound(f"{path} is not a file", "Give the path of a regular file")
                content = file.read(LIMIT + 1)
        except (OSError, ValueError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "not a path"
            raise errors.ConfigFileNotFound(f"cannot read {path}: {why}", "Correct the path or its rights") from None
    if len(content) > LIMIT:
        raise errors.ParameterInvalid(f"{path} is larger than {LIMIT} bytes", "Give a smaller file")
    return content


def is_private(path: str) -> bool:
    """Whether nobody but its owner may read the file."""
    return path == "-" or not stat.S_IMODE(os.stat(path).st_mode) & 0o077


def words(given: Mapping[str, Any], flags: Mapping[str, argparse.Action | None]) -> list[str]:
    """`given` as words of a command line. Errors: AZCM0023 for a key that is no flag, or a value of another type."""
    made = []
    for key, value in given.items():
        action = flags.get(key)
        if action is None:
            raise errors.ParameterInvalid(
                f"the file of --config has the key {key[:60]!r}, which is no flag of this command",
                "Use the long names of flags without their dashes",
            )
        if isinstance(value, bool) and action.nargs in (0, "?"):
            if value or action.nargs == "?":
                made.append(f"--{key}" if action.nargs == 0 else f"--{key}={str(value).lower()}")
        elif key == "tags" and isinstance(value, dict):
            made.append("--tags=" + ",".join(f"{_escaped(str(k))}={_escaped(str(v))}" for k, v in value.items()))
        elif isinstance(value, (str, int)) and not isinstance(value, bool) and action.nargs != 0:
            made.append(f"--{key}={value}")
        elif value is not None:
            raise errors.ParameterInvalid(
                f"the file of --config gives {key!r} a value of the wrong type",
                "Switches take true or false, other flags a text",
            )
    return made


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\',= " else letter for letter in text)


def _yaml(text: bytes) -> Any:
    # The launcher runs without the distribution's packages, for speed; here they are wanted.
    import site

    sys.path += [folder for folder in site.getsitepackages() if folder not in sys.path]
    try:
        import yaml
    except ImportError:
        raise errors.ParameterInvalid(
            "the file of --config is not JSON, and YAML cannot be read here",
            "Write it as JSON, or install python3-yaml",
        ) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise errors.ParameterInvalid("the file of --config is neither JSON nor YAML", "Correct its syntax") from None

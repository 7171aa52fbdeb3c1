# SPDX-License-Identifier: Apache-2.0
"""JSON from outside: size, depth and double keys are checked before its content is looked at (protocol section 13)."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from agent_runtime import errors

MAX_DEPTH = 32


def parse(content: bytes, limit: int = 1024 * 1024) -> Any:
    """The value that `content` holds. A byte order mark, which Windows writes, is skipped.

    Errors: AZCM0023, one sentence that never repeats a value.
    """
    if len(content) > limit:
        raise errors.ParameterInvalid(f"the input is larger than {limit} bytes", f"Keep it below {limit} bytes")
    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise errors.ParameterInvalid("the input is not UTF-8", "Send ASCII JSON") from None
    except json.JSONDecodeError as problem:
        what = "the input is empty" if not content.strip() else f"the input is not JSON: {problem.msg}"
        where = f" (line {problem.lineno}, column {problem.colno})" if content.strip() else ""
        raise errors.ParameterInvalid(what + where, "Send one JSON object") from None
    except (RecursionError, ValueError):
        raise errors.ParameterInvalid(
            "the input is nested too deeply or holds a number that is too large", f"Nest at most {MAX_DEPTH} levels"
        ) from None
    if _deeper_than(value, MAX_DEPTH):
        raise errors.ParameterInvalid(f"the input is nested deeper than {MAX_DEPTH} levels", "Send a flatter object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise errors.ParameterInvalid(f"the input names the key {key[:100]!r} twice", "Name every key once")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise errors.ParameterInvalid(f"the input holds {name}, which is not JSON", "Send ordinary numbers")


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, (dict, list)) for item in level)

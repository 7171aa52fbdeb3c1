# SPDX-License-Identifier: Apache-2.0
"""Status files of handlers and what they mean (extension-handler.md section 15). Pure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from agent_runtime.extensions import texts

WORDS = ("transitioning", "warning", "error", "success")
# The host's own codes (extension-handler.md section 9).
BAD, UNREADABLE = 1012, -1
READ_LIMIT = 4 * 1024 * 1024
LIMIT, MESSAGE_LIMIT, FIELD_LIMIT = 128 * 1024, 1024, 10 * 1024
# The hub refuses a body that has a longer text or a larger number in it.
MOST_TEXT, MOST_NUMBER = 64 * 1024, 2**63
_TEXTS = ("name", "operation", "configurationAppliedTime", "status")
_STATE = {"success": "succeeded", "error": "failed", "transitioning": "transitioning", "warning": "transitioning"}


class Verdict(NamedTuple):
    """`state`: succeeded, failed or transitioning; `code`, `message` for the report; `status`: the handler's object."""

    state: str
    code: int
    message: str
    status: Optional[dict[str, Any]]


MISSING = Verdict("transitioning", 0, "the handler has not written a status yet", None)


class NotYet(Exception):
    """What is there may be half of a file that is being written."""


def verdict(content: bytes) -> Verdict:
    """What a status file says. Errors: NotYet when it is no JSON; the caller reads it again before it calls it bad."""
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise NotYet("the status file is not JSON") from None
    try:
        status = _checked(found)
    except ValueError as problem:
        return bad(str(problem))
    word, message = status["status"].lower(), status.get("formattedMessage", {})
    # Any other word counts as an error: the old custom script writes `failed`.
    return Verdict(_STATE.get(word, "failed"), status["code"], texts.cut(message.get("message", "")), shortened(status))


def bad(reason: str) -> Verdict:
    return Verdict("failed", BAD, f"the handler's status file cannot be used: {reason}", None)


def unreadable(reason: str) -> Verdict:
    return Verdict("failed", UNREADABLE, f"the handler's status file cannot be read: {reason}", None)


def _checked(found: Any) -> dict[str, Any]:
    """The object `status`, without what section 15 does not name. Errors: ValueError with the reason."""
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        raise ValueError("it is not an array that begins with an object")
    status = found[0].get("status")
    if not isinstance(status, dict):
        raise ValueError("it has no object status")
    if not isinstance(status.get("status"), str) or not status["status"]:
        raise ValueError("status has no word status")
    _message(status)
    made, parts = _known(status), status.get("substatus")
    if parts is None:
        return made
    if not isinstance(parts, list):
        raise ValueError("substatus is no list")
    parts = [part for part in parts if part is not None]
    for part in parts:
        word = part.get("status") if isinstance(part, dict) else None
        if not isinstance(word, str) or word.lower() not in WORDS:
            raise ValueError("an entry of substatus has none of the four words")
    return {**made, "substatus": [_known(part) for part in parts]}


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    """Members of a status or of a part of one that have a name and a type, the code a number. Any other may be of any
    depth and length, and nobody reads it. Errors: ValueError."""
    made: dict[str, Any] = {name: _text(found[name]) for name in _TEXTS if isinstance(found.get(name), str)}
    made["code"] = _code(found)
    message = found.get("formattedMessage")
    if isinstance(message, dict):
        said = {name: _text(message[name]) for name in ("lang", "message") if isinstance(message.get(name), str)}
        made["formattedMessage"] = said
    return made


def _text(value: str) -> str:
    return texts.cut(texts.redacted(value), MOST_TEXT)


def _message(status: Mapping[str, Any]) -> None:
    message = status.get("formattedMessage")
    if message is None:
        return
    if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("lang", "message")):
        raise ValueError("formattedMessage has no lang and message")


def _code(status: Mapping[str, Any]) -> int:
    value = status.get("code")
    if value is None or value == "":
        return 0
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = int(value.strip()[:20])
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MOST_NUMBER:
        return int(value)
    raise ValueError("code is no number")


def size(value: Any) -> int:
    """Bytes of a value as JSON, as it will travel."""
    return len(json.dumps(value).encode("ascii"))


def shortened(status: Mapping[str, Any], limit: int = LIMIT) -> dict[str, Any]:
    """`status` within `limit` bytes: its message first, then the fields of its parts, then parts from the end."""
    made = dict(status)
    if size(made) <= limit:
        return made
    message = made.get("formattedMessage")
    if isinstance(message, dict):
        made["formattedMessage"] = {
            **message,
            "message": texts.cut(str(message.get("message", "")), min(MESSAGE_LIMIT, limit // 4)),
        }
    made = {name: _short_field(value) if name != "substatus" else value for name, value in made.items()}
    parts = made.get("substatus")
    if isinstance(parts, list):
        made["substatus"] = []
        room = limit + len(", ") - size(made)
        for part in parts:
            short = {name: _short_field(value) for name, value in part.items()}
            room -= size(short) + len(", ")
            if room < 0:
                break
            made["substatus"].append(short)
    return made


def _short_field(value: Any) -> Any:
    if isinstance(value, str):
        return texts.cut(value, FIELD_LIMIT)
    if isinstance(value, dict):
        return {name: _short_field(item) for name, item in value.items()}
    return value

# SPDX-License-Identifier: Apache-2.0
"""Heartbeats of handlers that report one (extension-handler.md section 17). Pure."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Optional

from agent_runtime.extensions import status, texts

FILE = "heartbeat.log"
# Seconds. Between them nobody knows, and what was known holds, unless the file was written since the last look: many
# handlers beat more rarely than once in FRESH, and the looks would meet none of their beats while it is that young.
FRESH, DEAD = 60.0, 600.0
_WORDS = {"ready": "Ready", "notready": "NotReady", "installing": "Installing", "unresponsive": "Unresponsive"}


class Health(NamedTuple):
    """State of a handler, as the report has it: `status` is one of the values of `_WORDS`."""

    status: str
    code: int
    message: str


def health(content: Optional[bytes], age: float, is_new: bool = False) -> Optional[Health]:
    """What a heartbeat file of this age (seconds) says; None: nothing new. `content` None: there is no file; `is_new`:
    it was written since the last look."""
    if content is None:
        return Health("NotReady", 0, "the handler promises a heartbeat and has written none")
    if age > DEAD:
        return Health("Unresponsive", 0, f"the last heartbeat is {int(age // 60)} minutes old")
    if age > FRESH and not is_new:
        return None
    try:
        found = json.loads(content.decode("utf-8-sig"))
        beat = _lower(_lower(found[0])["heartbeat"])
        word = _WORDS[str(beat["status"]).lower().replace(" ", "")]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return Health("NotReady", 0, "the handler's heartbeat cannot be read")
    return Health(word, _code(beat.get("code")), texts.cut(texts.redacted(_message(beat))))


def _lower(value: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): item for name, item in value.items()}


def _code(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return number if abs(number) < status.MOST_NUMBER else 0


def _message(beat: dict[str, Any]) -> str:
    value = beat.get("formattedmessage", beat.get("message", ""))
    if isinstance(value, dict):
        value = _lower(value).get("message", "")
    return value if isinstance(value, str) else ""

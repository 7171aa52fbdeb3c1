# SPDX-License-Identifier: GPL-3.0-or-later
"""`azcmagent check --json` as a task result. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._answer import message_of
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import AnswerError

_MEMBERS = {
    "endpoint": "endpoint",
    "use_case": "useCase",
    "required": "required",
    "reachable": "reachable",
    "private": "private",
    "tls": "tls",
    "proxy": "proxyStatus",
    "latency_ms": "latencyMs",
    "reason": "reason",
}


def arguments(options: Mapping[str, Any]) -> list[str]:
    """The command's arguments; a value stands in one word with its flag, so that it is never taken for one."""
    flags = [f"--{name}={options[name]}" for name in ("cloud", "location") if options.get(name)]
    return ["check", "--json", *flags]


def result(answer: Mapping[str, Any], rc: int, fail_on_unreachable: bool) -> dict[str, Any]:
    """The result for an answer of `check`. Raises AnswerError where no endpoint was asked."""
    error = answer.get("error") or {}
    rows = answer.get("endpoints")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "reachable" in row for row in rows):
        raise AnswerError(
            f"azcmagent check failed with exit code {rc}: {error.get('message', 'it did not say why')}",
            str(error.get("remedy") or "Look at the host's azcmagent.log"),
            error.get("code"),
        )
    found: dict[str, Any] = {
        "reachable": all(row["reachable"] for row in rows if row.get("required")),
        "cloud": answer.get("cloud"),
        "endpoints": [{name: row.get(member) for name, member in _MEMBERS.items()} for row in rows],
    }
    if error:
        found["error"] = error
    if not found["reachable"] and fail_on_unreachable:
        found["failed"] = True
        found["msg"] = message_of(error) if error else "An endpoint that is required cannot be reached."
    return found

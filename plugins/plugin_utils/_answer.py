# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of azcmagent as task results (docs/protocol.md section 11). Pure."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import AnswerError

SHOWN = 500
_MACHINE = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[^/]{1,90}/providers/microsoft\.hybridcompute/machines/[^/]{1,54}",
    re.IGNORECASE,
)
_ANSWER: dict[str, type] = {
    "schema": int,
    "agent_version": str,
    "changed": bool,
    "reasons": list,
    "before": dict,
    "after": dict,
    "steps": list,
    "warnings": list,
    "credential_required": list,
}


def _without_debug(stderr: str) -> str:
    """Standard error without what ssh says about itself when the play runs with -vvv."""
    noise = ("debug1:", "debug2:", "debug3:", "OpenSSH_")
    return "\n".join(line for line in stderr.splitlines() if not line.startswith(noise)).strip()


def parse_object(rc: int, stdout: str, stderr: str) -> dict[str, Any]:
    """Standard output as one JSON object, or an AnswerError with the first 500 characters of what came instead."""
    try:
        answer = json.loads(stdout)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    shown = stdout.strip() or _without_debug(stderr)
    said = f"it said: {shown[:SHOWN]}" if shown else "it said nothing"
    raise AnswerError(
        f"azcmagent on the host did not answer with a JSON object (exit code {rc}); {said}",
        "Look at the host's azcmagent.log, and at what its shell prints when it starts",
    )


def parse_answer(rc: int, stdout: str, stderr: str) -> dict[str, Any]:
    """The answer of `apply` or `plan`, its members checked for their types."""
    answer = parse_object(rc, stdout, stderr)
    error = answer.get("error", False)
    wrong = [key for key, kind in _ANSWER.items() if not isinstance(answer.get(key), kind)]
    if error is not None and not isinstance(error, dict):
        wrong.append("error")
    if wrong:
        raise AnswerError(
            f"azcmagent on the host answered an object of another shape ({', '.join(wrong)}): {stdout.strip()[:SHOWN]}",
            "Install a version of the agent that this version of the collection knows",
        )
    if answer["schema"] != 1:
        raise AnswerError(
            f"azcmagent on the host answers with schema {answer['schema']}, this collection knows schema 1",
            "Upgrade the collection",
        )
    return answer


def as_text(value: dict[str, Any]) -> str:
    """A state as YAML, for `--diff`."""
    return str(yaml.safe_dump(value, default_flow_style=False, sort_keys=True, allow_unicode=True)) if value else ""


def diff_of(before: dict[str, Any], after: dict[str, Any], host: str) -> dict[str, str]:
    """The `diff` member of a result."""
    return {
        "before": as_text(before),
        "after": as_text(after),
        "before_header": f"{host} now",
        "after_header": f"{host} as described",
    }


def reason_text(reason: dict[str, Any]) -> str:
    """One difference as people read it."""
    return f"{reason.get('path')}: expected {reason.get('expected')}, actual {reason.get('actual')}"


def missing_result(check_mode: bool, host: str, diff: bool) -> dict[str, Any]:
    """The result for a host on which azcmagent is not installed. Check mode says that there is something to change."""
    reasons = [{"path": "agent.installed", "expected": True, "actual": False}]
    result: dict[str, Any] = {
        "changed": check_mode,
        "install_required": True,
        "upgrade_required": False,
        "agent_version": None,
        "reasons": reasons,
        "before": {"agent": {"installed": False}},
        "after": {"agent": {"installed": check_mode}},
        "steps": [],
    }
    if diff:
        result["diff"] = diff_of(result["before"], {"agent": {"installed": True}}, host)
    return result


def message_of(error: dict[str, Any]) -> str:
    """An `error` member as one sentence with its code, and the remedy."""
    code, message, remedy = (str(error.get(key) or "").rstrip(". ") for key in ("code", "message", "remedy"))
    return ". ".join(part for part in (f"{code}: {message}", remedy) if part) + "."


def result_of(answer: dict[str, Any], host: str, diff: bool) -> dict[str, Any]:
    """The result for an answer: state, reasons, and on failure one sentence with code and remedy."""
    result: dict[str, Any] = {
        "changed": answer["changed"],
        "install_required": False,
        "upgrade_required": False,
        "agent_version": answer["agent_version"],
        "reasons": answer["reasons"],
        "before": answer["before"],
        "after": answer["after"],
        "steps": answer["steps"],
    }
    if answer["warnings"]:
        result["warnings"] = [str(warning) for warning in answer["warnings"]]
    if diff and answer["before"] != answer["after"]:
        result["diff"] = diff_of(answer["before"], answer["after"], host)
    error = answer.get("error")
    if error:
        result["failed"] = True
        result["error"] = error
        result["msg"] = message_of(error)
    return result


def judge_version(result: dict[str, Any], wanted: str | None, check_mode: bool) -> None:
    """Add to a result whether the installed version is the wanted one.

    Which way it differs is the package manager's business.
    """
    actual = result["agent_version"]
    if not wanted or actual is None or actual == wanted:
        return
    result["upgrade_required"] = True
    result["reasons"] = [{"path": "agent.version", "expected": wanted, "actual": actual}, *result["reasons"]]
    if check_mode:
        result["changed"] = True


def operations_of(answer: dict[str, Any], wished_id: str | None) -> list[dict[str, str]]:
    """What the host asks a ticket for, as the body of `POST /hawser/v1/tickets` wants it (docs/protocol.md section 4).

    A host is not trusted with more than its own place. `connect` and `update` are asked for the wished resource id
    alone (None: for nothing), whatever the host says. One `delete` may be asked: the machine that the host says it was
    until now, which only the hub's rights of the principal can limit further.
    """
    operations: list[dict[str, str]] = []
    for entry in answer["credential_required"]:
        operation, target = (
            str(entry.get(key)) if isinstance(entry, dict) else "" for key in ("operation", "resource_id")
        )
        if operation == "delete":
            allowed = _MACHINE.fullmatch(target) is not None
        else:
            allowed = (
                operation in {"connect", "update"} and wished_id is not None and target.lower() == wished_id.lower()
            )
        if not allowed or operation in {known["operation"] for known in operations}:
            raise AnswerError(
                f"the host asks for the right to {operation} {target}, which it does not need to be as described",
                "Look at the host: azcmagent never asks for this",
            )
        operations.append({"operation": operation, "resourceId": target})
    return operations

# SPDX-License-Identifier: GPL-3.0-or-later
"""A run command as ARM wants it, and what it says of one (identity-and-arm-api.md C.8). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils import _digest
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError

NAME_LIMIT = 36  # on Linux (agent-surface.md section 16)
_ENDED = frozenset({"succeeded", "failed", "timedout", "canceled"})
_PROTECTED = ("protected_parameters", "protected_arguments")


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise OptionError(f"{name} is no text", "Give every parameter a text or a number")
    return str(value)


def pairs(option: str, named: Mapping[str, Any] | None, positional: list[Any] | None) -> list[dict[str, str]]:
    """ARM's list of parameters: named ones become environment variables, nameless ones arguments."""
    found = [{"name": str(name), "value": _value(f"{option} {name}", value)} for name, value in (named or {}).items()]
    if any(not pair["name"] for pair in found):
        raise OptionError(f"{option} has an empty name", "Put what has no name into the list of arguments")
    return found + [{"name": "", "value": _value(f"argument of {option}", value)} for value in positional or []]


def properties_of(options: Mapping[str, Any], script: str) -> dict[str, Any]:
    """ARM's `properties` of a described run command. Raises OptionError."""
    if not script.strip():
        raise OptionError("the script is empty", "Give script or script_file")
    wanted: dict[str, Any] = {
        "source": {"script": script},
        "parameters": pairs("parameters", options.get("parameters"), options.get("arguments")),
        "timeoutInSeconds": options["timeout"],
        "asyncExecution": False,
    }
    protected = pairs("protected_parameters", *(options.get(name) for name in _PROTECTED))
    if protected:
        wanted["protectedParameters"] = protected
    for option, member in (("run_as_user", "runAsUser"), ("run_as_password", "runAsPassword")):
        if options.get(option):
            wanted[member] = options[option]
    return wanted


def secret_part(properties: Mapping[str, Any]) -> dict[str, Any]:
    """What of the properties the hub never returns."""
    return {name: properties[name] for name in ("protectedParameters", "runAsPassword") if name in properties}


def has_run(found: Mapping[str, Any] | None, wanted: Mapping[str, Any], resource_id: str) -> bool:
    """Whether the very same command has run and ended well."""
    if found is None:
        return False
    known = found.get("properties") or {}
    view = known.get("instanceView") or {}
    same = (
        (known.get("source") or {}).get("script") == wanted["source"]["script"]
        and (known.get("parameters") or []) == wanted["parameters"]
        and (known.get("runAsUser") or None) == wanted.get("runAsUser")
    )
    if not same or str(view.get("executionState")).lower() != "succeeded" or view.get("exitCode") not in (0, None):
        return False
    secret, tag = secret_part(wanted), (found.get("tags") or {}).get(_digest.TAG)
    return _digest.matches(tag, secret, resource_id) if secret else tag is None


def ended(found: Mapping[str, Any] | None) -> bool:
    """Whether the script itself has ended."""
    view = ((found or {}).get("properties") or {}).get("instanceView") or {}
    return str(view.get("executionState")).lower() in _ENDED


def outcome_of(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The result's members about the script, named as those of ansible.builtin.command."""
    view = ((found or {}).get("properties") or {}).get("instanceView") or {}
    out, err = (str(view.get(name) or "") for name in ("output", "error"))
    return {
        # Where nobody says otherwise ansible-core takes every rc but 0 for a failure, also one that is not known.
        "failed": False,
        "execution_state": view.get("executionState") or "Unknown",
        "execution_message": view.get("executionMessage") or "",
        "rc": view.get("exitCode"),
        "stdout": out,
        "stderr": err,
        "stdout_lines": out.splitlines(),
        "stderr_lines": err.splitlines(),
        "start": view.get("startTime"),
        "end": view.get("endTime"),
    }


def fault_of(outcome: Mapping[str, Any]) -> str | None:
    """Why a command that has ended counts as failed, as part of a sentence; None when it went well."""
    state = str(outcome["execution_state"])
    if state.lower() == "succeeded" and outcome["rc"] in (0, None):
        return None
    said = str(outcome["execution_message"]).strip().rstrip(".")
    code = f" with the exit code {outcome['rc']}" if outcome["rc"] is not None else ""
    return f"the script ended {state}{code}" + (f": {said}" if said else "")

# SPDX-License-Identifier: Apache-2.0
"""What is said of each extension: the entries of the report, kept by ident (docs/protocol.md section 15.2). Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Optional

from agent_runtime.extensions import heartbeat, plan, status, texts
from agent_runtime.extensions.wishes import Fault, Wish

Result = dict[str, Any]
# State and operation of the report while a chain of each kind is carried out.
BEGINNING = {
    "install": ("installing", "install"),
    "update": ("installing", "update"),
    "enable": ("installing", "enable"),
    "drop": ("removing", "disable"),
    "remove": ("removing", "uninstall"),
}
HOST, HANDLER = "host", "handler"
OPERATIONS = ("download", "install", "enable", "update", "disable", "uninstall")
# Steps without an operation of their own in the report belong to one that has.
_PART_OF = {"unpack": "install", "settings": "enable"}


def stamp(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def blank(name: str, publisher: str, kind: str, version: str, sequence: int, now: float) -> Result:
    return {
        "name": name,
        "publisher": publisher,
        "type": kind,
        "version": version,
        "sequence": sequence,
        "state": "installing",
        "operation": "none",
        "code": 0,
        "message": "",
        "handler": {"status": "NotReady", "code": 0, "message": ""},
        "status": None,
        "at": stamp(now),
        # Who says so, which is not reported: what the host says stands against what the handler said before.
        "by": HANDLER,
    }


def of_wish(wish: Wish, before: Optional[Result], now: float) -> Result:
    """The entry of a wish that is taken up; what the handler has said before stays for a repeat of the same."""
    made = blank(wish.name, wish.publisher, wish.type, wish.version, wish.sequence, now)
    if before is not None and before["sequence"] == wish.sequence:
        made["status"] = before["status"]
    if before is not None:
        made["handler"] = before["handler"]
    return made


def refused(entry: Fault | Wish, reason: str, before: Optional[Result], now: float) -> Result:
    """The entry of a wish that is not acted on: code 1000."""
    made = blank(entry.name, entry.publisher, entry.type, entry.version, entry.sequence, now)
    if before is not None:
        made["handler"] = before["handler"]
        if before["state"] == "failed" and before["message"] == texts.cut(reason):
            made["at"] = before["at"]
    return {**made, "state": "failed", "code": 1000, "message": texts.cut(reason), "by": HOST}


def begun(result: Result, chain: plan.Chain, now: float) -> Result:
    """A chain that concerns the extension begins."""
    state, operation = BEGINNING[chain["kind"]]
    handler = result["handler"]
    if chain["kind"] in ("install", "update"):
        handler = {"status": "Installing", "code": 0, "message": ""}
    told = {"state": state, "operation": operation, "code": 0, "message": "", "by": HANDLER}
    return {**result, **told, "handler": handler, "at": stamp(now)}


def failed(result: Result, verb: str, code: int, message: str, now: float) -> Result:
    """A step that the extension depends on has failed. What the handler has said of it before stands no more."""
    operation = _PART_OF.get(verb, verb)
    operation = operation if operation in OPERATIONS else result["operation"]
    text = texts.cut(texts.redacted(message))
    told = {"state": "failed", "operation": operation, "code": code, "message": text, "status": None, "by": HOST}
    return {**result, **told, "at": stamp(now)}


def waiting(result: Result, verb: str, message: str, now: float) -> Result:
    """A step has failed and will be tried again."""
    return {**failed(result, verb, 0, message, now), "state": "installing"}


def held_up(result: Result, state: str, reason: str, now: float) -> Result:
    """Nothing can be done for it now, and that is not its fault; `state` is what it waits in. What the version that is
    there has said goes on to be shown."""
    made = failed(result, result["operation"], 0, f"this waits and is tried again: {reason}", now)
    return {**made, "state": state, "status": result["status"]}


def unless_same(made: Result, before: Optional[Result]) -> Result:
    """`made`, or `before` where that says the same at another time."""
    return before if before is not None and {**made, "at": before["at"]} == before else made


def going_on(result: Result, verb: str, code: int, message: str, now: float) -> Result:
    """A step of a removal has failed, and the removal goes on."""
    return {**failed(result, verb, code, message, now), "state": "removing"}


def stands(result: Result) -> bool:
    """Whether the host has said that the extension failed: what its handler said before counts no more."""
    return bool(result["state"] == "failed" and result["by"] == HOST)


def judged(result: Result, record: plan.Record, ident: str, verdict: status.Verdict, now: float) -> Result:
    """The handler's own word on an extension that is enabled."""
    known = record["extensions"][ident]
    note = record.get("rejected")
    message = verdict.message
    if note and note[0] != record["version"]:
        message = texts.cut(f"{message} [version {note[0]} was tried and taken back: {note[2]}]".strip())
    made = {
        **result,
        "version": record["version"],
        "sequence": known["sequence"],
        "state": verdict.state,
        "operation": "enable",
        "code": verdict.code,
        "message": message,
        "status": verdict.status,
    }
    return made if made == result else {**made, "at": stamp(now)}


def with_handler(result: Result, told: heartbeat.Health | Mapping[str, Any], now: float) -> Result:
    """The state of the handler as a whole."""
    handler = told._asdict() if isinstance(told, heartbeat.Health) else dict(told)
    return result if result["handler"] == handler else {**result, "handler": handler, "at": stamp(now)}


def handler_of(record: Optional[plan.Record], code: int = 0, message: str = "") -> dict[str, Any]:
    """Handler status by the record's state (extension-handler.md section 16)."""
    ready = record is not None and record["state"] == plan.ENABLED
    return (
        {"status": "Ready", "code": 0, "message": ""}
        if ready
        else {
            "status": "NotReady",
            "code": code,
            "message": texts.cut(texts.redacted(message)),
        }
    )

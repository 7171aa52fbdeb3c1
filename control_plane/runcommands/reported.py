# SPDX-License-Identifier: Apache-2.0
"""Taking reports of kind `runcommands` (docs/protocol.md section 15.5). Their shape is
docs/schemas/report-runcommands.schema.json (shipped beside this module)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from control_plane.extensions import operations, shapes
from control_plane.extensions.progress import FAILED, SUCCEEDED, Wished
from control_plane.runcommands import writing
from control_plane.storage import audit, restored, run_commands
from control_plane.storage.models import Machine

GONE = "Gone"
_SCHEMA = Path(__file__).parent / "report-runcommands.schema.json"
_ENDED = ("Succeeded", "Failed", "TimedOut", "Canceled")


def cleaned(data: dict[str, Any]) -> dict[str, Any]:
    """A report that has its shape.

    Errors: ApiError 400 naming the member.
    """
    data = shapes.mended(data, "runCommands")
    shapes.check(data, _SCHEMA)
    return data


def judge(wished: Wished, item: Mapping[str, Any] | None, generation: int, *, asynchronous: bool) -> str:
    """The provisioningState that a report makes of a command's, or GONE. Pure.

    It says whether the script was started: one that ended badly was. With `asynchronous` it need not have ended.
    """
    if generation < wished.generation:
        return wished.state
    if wished.removed:
        return GONE if item is None else wished.state
    if item is None or not wished.means(item["sequence"]):
        return wished.state
    word, started = item["executionState"], item.get("startTime") is not None
    if word in _ENDED:
        return SUCCEEDED if started or word == "Succeeded" else FAILED
    return SUCCEEDED if asynchronous and word == "Running" else wished.state


def take(session: Session, machine: Machine, data: Mapping[str, Any], at: int) -> None:
    """Take a report that is the newest."""
    if "runCommands" not in data:
        return
    items = {item["name"].lower(): item for item in data["runCommands"]}
    actor = audit.Actor("machine", machine.client_id)
    for kept in run_commands.of_machine(session, machine.id):
        row, item = kept.row, items.get(kept.resource.name.lower())
        asynchronous = bool(kept.resource.properties.get("asyncExecution"))
        behind = restored.may_be_behind(session, kept.resource.created, row.sequence)
        wished = replace(kept.wished, behind=behind)
        state = judge(wished, item, data["generation"], asynchronous=asynchronous)
        if state == GONE:
            writing.forget(session, kept)
            audit.record(session, actor, "machines/runCommands/removed", kept.resource.resource_id)
            continue
        if data["generation"] >= row.generation and item is not None:
            row.reported = item
        if state != row.state:
            row.state, row.code, row.message = state, None, None
            detail = {"state": state, "sequence": row.sequence, "exitCode": (item or {}).get("exitCode")}
            audit.record(session, actor, "machines/runCommands/outcome", kept.resource.resource_id, detail=detail)
    operations.settle(session, machine.id, at)

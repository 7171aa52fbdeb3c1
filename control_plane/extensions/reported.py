# SPDX-License-Identifier: Apache-2.0
"""Taking reports of kind `extensions` (docs/protocol.md section 15.2): what of them reaches the rows of extensions and
ends operations. The shape of a report is docs/schemas/report-extensions.schema.json (shipped beside this module)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from control_plane.errors import bad_content
from control_plane.extensions import operations, shapes, versions, writing
from control_plane.extensions.progress import MISMATCH, SUCCEEDED, Verdict, error_of, judge
from control_plane.storage import audit, extensions, restored
from control_plane.storage.extensions import Kept
from control_plane.storage.models import Machine

_SCHEMA = Path(__file__).parent / "report-extensions.schema.json"


def cleaned(data: dict[str, Any]) -> dict[str, Any]:
    """A report that has its shape.

    Errors: ApiError 400 naming the member.
    """
    data = shapes.mended(data, "extensions")
    shapes.check(data, _SCHEMA)
    for item in data.get("extensions", ()):
        if item["version"] and not versions.is_version(item["version"]):
            raise bad_content("'version' of a reported extension must be a version, or empty for none.", "version")
    return data


def merged(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a kind: `desired` and the rest stand beside one another, each until the next of it. Pure."""
    if old is None:
        return dict(new)
    rest = old if "generation" not in new else {}
    kept = {name: value for name, value in rest.items() if name != "desired"}
    desired = {"desired": old["desired"]} if "desired" in old else {}
    return {**desired, **kept, **new}


def _apply(session: Session, machine: Machine, kept: Kept, verdict: Verdict, at: int) -> None:
    """Write down a verdict that is another than what is there."""
    row, actor = kept.row, audit.Actor("machine", machine.client_id)
    if verdict.gone:
        said = row.reported or {}
        failure = error_of(said) if said.get("state") == "removing" and said["code"] else None
        writing.forget(session, kept)
        audit.record(session, actor, "machines/extensions/removed", kept.resource.resource_id, detail=failure)
        return
    error = verdict.error or {}
    row.state, row.code, row.message = verdict.state, error.get("code"), error.get("message")
    changed = extensions.moved_with(session, kept) if verdict.rolled_back else [kept]
    for item in changed:
        if verdict.rolled_back:
            writing.take_back(session, machine, item, at)
        detail = {"state": item.row.state, "version": item.row.version, "sequence": item.row.sequence}
        audit.record(session, actor, "machines/extensions/outcome", item.resource.resource_id, detail=detail)


def _arrive(all_kept: Iterable[Kept]) -> None:
    """The automatic upgrade of a handler is over when all of its extensions have succeeded with the new version."""
    there = [kept.row for kept in all_kept if kept.row.removed is None]
    waiting = {row.handler_key for row in there if row.state != SUCCEEDED}
    for row in there:
        if row.handler_key not in waiting:
            row.rollback_to = None


def _mismatched(kept: Kept) -> Verdict | None:
    """The verdict of another version than the wished one, where the row says it already."""
    row = kept.row
    if row.code != MISMATCH:
        return None
    return Verdict(row.state, error={"code": MISMATCH, "message": row.message or ""})


def take(session: Session, machine: Machine, data: Mapping[str, Any], at: int) -> bool:
    """Take a report that is the newest. True when the machine's document has changed by it.

    Only what of a report names an extension by name, without case, counts for that extension.
    """
    if "extensions" not in data:
        return False
    before = machine.generations
    items = {item["name"].lower(): item for item in data["extensions"]}
    all_kept = extensions.of_machine(session, machine.id)
    for kept in all_kept:
        item = items.get(kept.resource.name.lower())
        behind = restored.may_be_behind(session, kept.resource.created, kept.row.sequence)
        wished = replace(kept.wished, behind=behind)
        verdict = judge(wished, item, data["generation"])
        if not verdict.gone and data["generation"] >= kept.row.generation:
            kept.row.reported = item
        if verdict not in (Verdict(kept.row.state), _mismatched(kept)):
            _apply(session, machine, kept, verdict, at)
    _arrive(all_kept)
    operations.settle(session, machine.id, at)
    return machine.generations != before

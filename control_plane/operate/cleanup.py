# SPDX-License-Identifier: Apache-2.0
"""Clean-up rules on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import select

from control_plane.api.cleanup import rule_json
from control_plane.arm.roles import Action
from control_plane.clock import now
from control_plane.errors import ApiError, OperatorError
from control_plane.fleet import cleanup
from control_plane.operate.database import opened
from control_plane.setup import operator
from control_plane.storage import audit
from control_plane.storage.fleet_models import CleanupRule

_SEE = "See docs/api.md, Clean-up rules."


def add(data: Path, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Make a rule, off unless the body enables it.

    Errors: OperatorError: cannot be one, or there is one of this name.
    """
    try:
        rule, enabled = cleanup.read(name, body)
    except ApiError as error:
        raise OperatorError(error.message, _SEE) from error
    with opened(data) as (database, _settings), database.write() as session:
        if session.get(CleanupRule, rule.name) is not None:
            raise OperatorError(
                f"There is a clean-up rule '{name}' already.", "Remove it first, or choose another name."
            )
        kept = {key: value for key, value in asdict(rule).items() if key != "name"}
        row = CleanupRule(name=rule.name, rule=kept, enabled=enabled, created=now())
        session.add(row)
        shown = cleanup.shown(rule, enabled)
        audit.record(session, operator(), Action.CLEANUP_WRITE.value, f"/cleanupRules/{rule.name}", detail=shown)
        return rule_json(row)


def every(data: Path) -> list[dict[str, Any]]:
    """All rules, by name."""
    with opened(data) as (database, _settings), database.read() as session:
        return [rule_json(row) for row in session.scalars(select(CleanupRule).order_by(CleanupRule.name))]


def remove(data: Path, name: str) -> bool:
    """False when there was none."""
    with opened(data) as (database, _settings), database.write() as session:
        row = session.get(CleanupRule, name)
        if row is None:
            return False
        session.delete(row)
        target = f"/cleanupRules/{row.name}"
        audit.record(session, operator(), Action.CLEANUP_WRITE.value, target, detail={"removed": True})
        return True


def run(data: Path, name: str, *, dry: bool, force: bool) -> dict[str, Any]:
    """Carry out a rule now. A machine that is deleted is turned away by a running hub when it next asks for a token.

    Errors: OperatorError: no such rule, or the hub has not listened for long enough.
    """
    with opened(data) as (database, _settings):
        with database.read() as session:
            row = session.get(CleanupRule, name)
            if row is None:
                raise OperatorError(f"There is no clean-up rule '{name}'.", "See 'hawser-hub cleanup list'.")
            rule = cleanup.stored(row)
        try:
            result = cleanup.run(database, rule, lambda _machine, _generations: None, dry=dry, force=force)
        except ApiError as error:
            raise OperatorError(error.message, "Let the hub run for an hour, then try again.") from error
        if not dry:
            with database.write() as session:
                detail = {"run": True, "force": force, "matched": result.matched, "done": result.done}
                audit.record(session, operator(), Action.CLEANUP_WRITE.value, f"/cleanupRules/{name}", detail=detail)
        return {**asdict(result), "machines": list(result.machines)}

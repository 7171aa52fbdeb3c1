# SPDX-License-Identifier: Apache-2.0
"""`/hawser/v1/cleanupRules` (docs/api.md). Rules belong to the whole hub: rights are asked for at `/`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from control_plane.arm.roles import HUB, Action
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, bad_content
from control_plane.fleet import cleanup
from control_plane.http import Reply
from control_plane.storage.fleet_models import CleanupRule

MAX_RULES = 50


def rule_json(row: CleanupRule) -> dict[str, Any]:
    """A rule and how its last run ended."""
    return {
        **cleanup.shown(cleanup.stored(row), row.enabled),
        "created": rfc3339(row.created),
        "lastRun": rfc3339(row.last_run) if row.last_run else None,
        "lastResult": row.last_result,
    }


def _missing(name: str) -> ApiError:
    return ApiError(404, "ResourceNotFound", f"There is no clean-up rule '{name[:64]}'.")


def list_rules(call: HubCall) -> Reply:
    """GET /hawser/v1/cleanupRules."""
    call.require(Action.CLEANUP_READ, HUB)
    with call.hub.database.read() as session:
        rows = session.scalars(select(CleanupRule).order_by(CleanupRule.name))
        return Reply(200, {"value": [rule_json(row) for row in rows], "nextLink": None})


def get_rule(call: HubCall) -> Reply:
    """GET of one.

    Errors: ApiError 403, 404.
    """
    call.require(Action.CLEANUP_READ, HUB)
    with call.hub.database.read() as session:
        row = session.get(CleanupRule, call.names[0])
        if row is None:
            raise _missing(call.names[0])
        return Reply(200, rule_json(row))


def put_rule(call: HubCall) -> Reply:
    """PUT: 201 made, 200 changed; what is not sent has its default.

    Errors: ApiError 400, 403, 409 for more than MAX_RULES.
    """
    call.require(Action.CLEANUP_WRITE, HUB)
    rule, enabled = cleanup.read(call.names[0], call.body())
    kept = {name: value for name, value in asdict(rule).items() if name != "name"}
    with call.hub.database.write() as session:
        row = session.get(CleanupRule, rule.name)
        made = row is None
        if row is None:
            if len(session.scalars(select(CleanupRule.name)).all()) >= MAX_RULES:
                raise ApiError(409, "TooManyRules", f"There are {MAX_RULES} rules already; remove one first.")
            row = CleanupRule(name=rule.name, rule=kept, enabled=enabled, created=call.at)
            session.add(row)
        row.rule, row.enabled = kept, enabled
        call.record(session, Action.CLEANUP_WRITE, f"/cleanupRules/{rule.name}", cleanup.shown(rule, enabled))
        return Reply(201 if made else 200, rule_json(row))


def delete_rule(call: HubCall) -> Reply:
    """DELETE: 200, and 204 when there is none.

    Errors: ApiError 400, 403.
    """
    call.require(Action.CLEANUP_WRITE, HUB)
    name = cleanup.check_name(call.names[0])
    with call.hub.database.write() as session:
        row = session.get(CleanupRule, name)
        if row is None:
            return Reply(204)
        answer = rule_json(row)
        session.delete(row)
        call.record(session, Action.CLEANUP_WRITE, f"/cleanupRules/{row.name}", {"removed": True})
        return Reply(200, answer)


def run_rule(call: HubCall) -> Reply:
    """POST /hawser/v1/cleanupRules/{rule}/run, enabled or not.

    Errors: ApiError 400, 403, 404, 409.
    """
    call.require(Action.CLEANUP_WRITE, HUB)
    body = call.body()
    if set(body) - {"dryRun", "force"} or not all(isinstance(value, bool) for value in body.values()):
        raise bad_content("The body may hold 'dryRun' and 'force', true or false.", "dryRun")
    dry, force = body.get("dryRun", False), body.get("force", False)
    with call.hub.database.read() as session:
        row = session.get(CleanupRule, call.names[0])
        if row is None:
            raise _missing(call.names[0])
        rule = cleanup.stored(row)

    live = call.hub.live
    result = cleanup.run(
        call.hub.database, rule, cleanup.teller(rule, live.changed, live.dropped), dry=dry, force=force
    )
    if not dry:
        with call.hub.database.write() as session:
            detail = {"run": True, "force": force, "matched": result.matched, "done": result.done}
            call.record(session, Action.CLEANUP_WRITE, f"/cleanupRules/{rule.name}", detail)
    return Reply(200, {**asdict(result), "machines": list(result.machines)})

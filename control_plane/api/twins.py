# SPDX-License-Identifier: Apache-2.0
"""`/hawser/v1/twins` and `/hawser/v1/images` (docs/api.md)."""

from __future__ import annotations

from control_plane.arm import paging, scopes
from control_plane.arm.roles import HUB, Action
from control_plane.bodies import one_of
from control_plane.call import HubCall
from control_plane.errors import ApiError, bad_content
from control_plane.fleet import profiles, twins
from control_plane.fleet.filters import bad_parameter
from control_plane.http import Reply
from control_plane.storage import twins as rows

PARAMETERS = ("state", "$top", "$skiptoken")


def list_twins(call: HubCall) -> Reply:
    """GET /hawser/v1/twins, the newest first, in pages.

    Errors: ApiError 400, 403.
    """
    wanted = [word for word in call.query.get("state", "").split(",") if word]
    for word in wanted:
        if word not in rows.STATES:
            raise bad_parameter("state", f"one of {', '.join(rows.STATES)}")
    after, size = paging.wanted(call)
    with call.hub.database.read() as session:
        seen = scopes.require(call.caller, Action.TWIN_READ, HUB)
        found, last = twins.page(session, seen, wanted, after or None, size)
        return Reply(200, {"nextLink": None, **paging.page(call, [twins.shown(row) for row in found], last)})


def _number(call: HubCall) -> int:
    text = call.names[0]
    # No database counts further.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << 31):
        raise ApiError(404, "ResourceNotFound", f"There is no twin '{text[:40]}'.")
    return int(text)


def get_twin(call: HubCall) -> Reply:
    """GET of one.

    Errors: ApiError 403, 404.
    """
    seen = scopes.require(call.caller, Action.TWIN_READ, HUB)
    with call.hub.database.read() as session:
        row = twins.find(session, _number(call))
        body = twins.shown(row)
    if not any(_within(scope, body["resourceId"]) for scope in seen):
        raise ApiError(404, "ResourceNotFound", f"There is no twin {call.names[0]}.")
    return Reply(200, body)


def _within(scope: str, resource_id: str) -> bool:
    return f"{resource_id.lower()}/".startswith(f"{scope.lower().rstrip('/')}/")


def decide(call: HubCall) -> Reply:
    """POST /hawser/v1/twins/{twin}/decide.

    Errors: ApiError 400, 403, 404, 409.
    """
    # Whoever may decide nowhere is not told which twins there are.
    seen = scopes.require(call.caller, Action.TWIN_WRITE, HUB)
    body = call.body()
    if set(body) != {"decision"}:
        raise bad_content("The body has exactly 'decision'.", "decision")
    decision = one_of(body, "decision", twins.DECISIONS)
    with call.hub.database.write() as session:
        row = twins.find(session, _number(call))
        target = twins.shown(row)["resourceId"]
        if not any(_within(scope, target) for scope in seen):
            raise ApiError(404, "ResourceNotFound", f"There is no twin {call.names[0]}.")
        answer = twins.decide(session, row, decision, call.actor, call.at)
        machine_id = row[1].id
    call.hub.twins.apply(machine_id)
    return Reply(200, answer)


def list_images(call: HubCall) -> Reply:
    """GET /hawser/v1/images.

    Errors: ApiError 403.
    """
    seen = scopes.require(call.caller, Action.IMAGE_READ, HUB)
    with call.hub.database.read() as session:
        return Reply(200, {"value": twins.images(session, seen), "nextLink": None})


def get_image(call: HubCall) -> Reply:
    """GET of one, with the machines that come from it.

    Errors: ApiError 403, 404.
    """
    seen = scopes.require(call.caller, Action.IMAGE_READ, HUB)
    name = call.names[0]
    with call.hub.database.read() as session:
        found = twins.descendants(session, seen, name) if profiles.IMAGE.fullmatch(name) else []
    if not found:
        raise ApiError(404, "ResourceNotFound", f"No machine comes from an image '{name[:128]}'.")
    return Reply(200, {"imageId": name, "machines": found})

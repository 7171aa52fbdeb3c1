# SPDX-License-Identifier: Apache-2.0
"""`/hawser/v1/profiles`: enrolment profiles and their tokens (docs/api.md). They belong to the whole hub: rights are
asked for at `/`."""

from __future__ import annotations

from control_plane.arm.roles import HUB, Action
from control_plane.bodies import is_guid
from control_plane.call import HubCall
from control_plane.errors import bad_content
from control_plane.fleet import profiles, tokens
from control_plane.http import Reply


def list_profiles(call: HubCall) -> Reply:
    """GET /hawser/v1/profiles."""
    call.require(Action.PROFILE_READ, HUB)
    with call.hub.database.read() as session:
        return Reply(200, {"value": tokens.every(session), "nextLink": None})


def get_profile(call: HubCall) -> Reply:
    """GET of one. Errors: ApiError 403, 404."""
    call.require(Action.PROFILE_READ, HUB)
    with call.hub.database.read() as session:
        return Reply(200, tokens.find(session, call.names[0]))


def put_profile(call: HubCall) -> Reply:
    """PUT: 201 made, 200 changed; what is not sent has its default.

    Errors: ApiError 400, 403, 404, 409.
    """
    call.require(Action.PROFILE_WRITE, HUB)
    body = call.body()
    with call.hub.database.write() as session:
        answer, made = tokens.put(session, call.names[0], body, call.at, keep=False)
        call.record(session, Action.PROFILE_WRITE, f"/profiles/{call.names[0]}", body)
    return Reply(201 if made else 200, answer)


def delete_profile(call: HubCall) -> Reply:
    """DELETE: 200, and 204 when there is none. Its tokens end with it.

    Errors: ApiError 400, 403.
    """
    call.require(Action.PROFILE_WRITE, HUB)
    name = profiles.check_name(call.names[0])
    with call.hub.database.write() as session:
        answer = next((item for item in tokens.every(session) if item["name"] == name), None)
        if answer is None or not tokens.delete(session, name):
            return Reply(204)
        call.record(session, Action.PROFILE_WRITE, f"/profiles/{name}", {"removed": True})
        return Reply(200, answer)


def list_tokens(call: HubCall) -> Reply:
    """GET /hawser/v1/profiles/{profile}/tokens; never the text of one.

    Errors: ApiError 403, 404.
    """
    call.require(Action.PROFILE_READ, HUB)
    with call.hub.database.read() as session:
        tokens.find(session, call.names[0])
        return Reply(200, {"value": tokens.tokens(session, call.names[0]), "nextLink": None})


def make_token(call: HubCall) -> Reply:
    """POST /hawser/v1/profiles/{profile}/tokens: the one answer that holds the token's text.

    Errors: ApiError 400, 403, 404, 409.
    """
    call.require(Action.PROFILE_WRITE, HUB)
    body = call.body()
    with call.hub.database.write() as session:
        text, answer = tokens.make_token(session, call.names[0], body, call.actor.name, call.at)
        target = f"/profiles/{call.names[0]}/tokens/{answer['id']}"
        call.record(session, Action.PROFILE_WRITE, target, body)
    return Reply(201, {**answer, "token": text})


def revoke_token(call: HubCall) -> Reply:
    """DELETE /hawser/v1/profiles/{profile}/tokens/{name}: 200 revoked; 204 when there is none.

    Errors: ApiError 400, 403.
    """
    call.require(Action.PROFILE_WRITE, HUB)
    profile, token_id = profiles.check_name(call.names[0]), call.names[1]
    if not is_guid(token_id):
        raise bad_content("The id of an enrolment token must be a GUID.", "name")
    with call.hub.database.write() as session:
        answer = tokens.revoke(session, profile, token_id, call.at)
        if answer is None:
            return Reply(204)
        target = f"/profiles/{profile}/tokens/{token_id}"
        call.record(session, Action.PROFILE_WRITE, target, {"revoked": True})
        return Reply(200, answer)

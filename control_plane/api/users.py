# SPDX-License-Identifier: Apache-2.0
"""Users (docs/protocol.md section 4b). They belong to the whole hub: rights are asked for at `/`."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from control_plane.arm import paging
from control_plane.arm.roles import HUB, Action
from control_plane.bodies import is_guid
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import bad_content
from control_plane.http import Reply
from control_plane.people import passwords
from control_plane.people import users as rules
from control_plane.storage import people, principals
from control_plane.storage.models import User

PARAMETERS = ("$top", "$skiptoken")
_MEMBERS = frozenset({"password", "email", "disabled"})


def user_json(session: Session, user: User) -> dict[str, Any]:
    """How a user is shown: never the password, only whether there is one."""
    held = principals.assignments(session, user.id)
    return {
        "name": user.name,
        "objectId": user.id,
        "email": user.email,
        "disabled": user.disabled is not None,
        "created": rfc3339(user.created),
        "hasPassword": user.password is not None,
        "external": user.subject,
        "roles": [{"role": role, "scope": scope} for role, scope in held],
    }


def list_users(call: HubCall) -> Reply:
    """GET /hawser/v1/users, by name, in pages.

    Errors: ApiError 400, 403.
    """
    call.require(Action.USER_READ, HUB)
    with call.hub.database.read() as session:
        found, link = paging.slice_of(call, people.every(session), lambda user: user.name_key)
        return Reply(200, {"value": [user_json(session, user) for user in found], "nextLink": link})


def get_user(call: HubCall) -> Reply:
    """GET /hawser/v1/users/{user}, by name or object id.

    Errors: ApiError 403, 404.
    """
    call.require(Action.USER_READ, HUB)
    with call.hub.database.read() as session:
        return Reply(200, user_json(session, rules.found(session, call.names[0])))


def _read(body: dict[str, Any], name: str) -> tuple[str | None, str | None, bool | None]:
    """Password, e-mail and state of a request; None: not sent.

    Errors: ApiError 400.
    """
    unknown = sorted(set(body) - _MEMBERS)
    if unknown:
        raise bad_content(f"There is no member '{unknown[0][:80]}' here.", unknown[0][:80])
    password, email, disabled = (body.get(member) for member in ("password", "email", "disabled"))
    if not isinstance(disabled, bool | None):
        raise bad_content("'disabled' must be true or false.", "disabled")
    if not isinstance(email, str | None):
        raise bad_content("'email' must be a text.", "email")
    rules.check_email(email)
    if password is not None:
        if not isinstance(password, str):
            raise bad_content("'password' must be a text.", "password")
        rules.check_password(password, name)
    return password, email, disabled


def put_user(call: HubCall) -> Reply:
    """PUT /hawser/v1/users/{user}: 201 made, 200 changed. Members that are not sent stay as they are; another password
    and disabling end the user's sessions. A user without a password signs in with an external account only.

    Errors: ApiError 400, 403.
    """
    call.require(Action.USER_WRITE, HUB)
    name = call.names[0]
    password, email, disabled = _read(call.body(), name)
    hashed = passwords.hashed(password) if password is not None else None
    with call.hub.database.write() as session:
        user = people.find(session, name)
        made = user is None
        if user is None:
            user = rules.create(session, name, hashed, call.at, email)
        else:
            if hashed is not None:
                rules.set_password(session, user, hashed)
            if email is not None:
                user.email = email
        if disabled is not None:
            rules.set_disabled(session, user, call.at if disabled else None)
        changed = [member for member, value in (("password", password), ("email", email)) if value is not None]
        detail = {"name": user.name, "changed": changed, **({} if disabled is None else {"disabled": disabled})}
        call.record(session, Action.USER_WRITE, f"/users/{user.id}", detail)
        return Reply(201 if made else 200, user_json(session, user))


def delete_user(call: HubCall) -> Reply:
    """DELETE /hawser/v1/users/{user} with sessions and role assignments: 200, or 204 when there is none.

    Errors: ApiError 400, 403.
    """
    call.require(Action.USER_DELETE, HUB)
    if not is_guid(call.names[0]):
        rules.check_name(call.names[0])
    with call.hub.database.write() as session:
        user = people.find(session, call.names[0])
        if user is None:
            call.record(session, Action.USER_DELETE, f"/users/{call.names[0]}", {"found": False})
            return Reply(204)
        call.record(session, Action.USER_DELETE, f"/users/{user.id}", {"name": user.name})
        answer = user_json(session, user)
        people.remove(session, user)
        return Reply(200, answer)

# SPDX-License-Identifier: Apache-2.0
"""Management locks: their API, and the refusal of writes that they stand against.

A lock holds for its scope and everything below. `CanNotDelete` refuses DELETE, `ReadOnly` every write; what contains
something locked cannot be deleted either. Locks themselves and role assignments are not held by locks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session

from control_plane.arm import paths
from control_plane.arm.roles import Action, Caller, roles_at, within
from control_plane.bodies import needed_text, one_of
from control_plane.call import HubCall
from control_plane.errors import ApiError, bad_content, not_found
from control_plane.http import Reply
from control_plane.hub import Hub
from control_plane.storage import resources
from control_plane.storage.resource_models import Lock

TYPE = "Microsoft.Authorization/locks"
CAN_NOT_DELETE, READ_ONLY = "CanNotDelete", "ReadOnly"
MAX_LOCKS = 20
_NAME = re.compile(r"^[^<>%&:\\?/\x00-\x1f]{1,260}$")
_FREE = "/providers/microsoft.authorization/"


def standing_against(method: str, resource_id: str, locks: Iterable[tuple[str, str]]) -> str | None:
    """The scope of a lock that refuses a method on an id; `locks`: pairs (scope, level). Pure."""
    if _FREE in resource_id.lower():
        return None
    for scope, level in locks:
        above = within(scope, resource_id)
        if (method == "DELETE" and (above or within(resource_id, scope))) or (above and level == READ_ONLY):
            return scope
    return None


def check(hub: Hub, caller: Caller, method: str, path: str) -> None:
    """Before a write is handed on. Who holds no role there is told so by the handler, and nothing of locks.

    Errors: ApiError 409 `ScopeLocked`.
    """
    route = paths.read(path)
    if route is None or not route.shape.startswith("subscriptions/*"):
        return
    if caller.grant is None and not any(roles_at(caller, path)):
        return
    with hub.database.read() as session:
        refuse(session, route.names[0], method, path.rstrip("/"))


def held(session: Session, subscription_id: str) -> list[tuple[str, str]]:
    """Scope and level of every lock in a subscription."""
    return [(lock.scope, lock.level) for lock in resources.locks_of(session, subscription_id)]


def refuse(session: Session, subscription_id: str, method: str, path: str) -> None:
    """Before a write of a resource, also of one that the request's own path does not name.

    Errors: ApiError 409 `ScopeLocked`.
    """
    scope = standing_against(method, path, held(session, subscription_id))
    if scope is not None:
        word = "delete" if method == "DELETE" else "write"
        raise ApiError(
            409,
            "ScopeLocked",
            f"The scope '{path[:512]}' cannot perform {word} operation because following scope(s) are locked: "
            f"'{scope}'. Please remove the lock and try again.",
        )


def _json(lock: Lock) -> dict[str, Any]:
    properties = {"level": lock.level} | ({"notes": lock.notes} if lock.notes else {})
    return {
        "id": f"{lock.scope}/providers/{TYPE}/{lock.name}",
        "name": lock.name,
        "type": TYPE,
        "properties": properties,
    }


def _scope(call: HubCall) -> str:
    return paths.scope_of(call.http.path)


def _key(scope: str, name: str) -> str:
    return f"{scope}/providers/{TYPE}/{name}".lower()


def get_lock(call: HubCall) -> Reply:
    """GET."""
    scope = _scope(call)
    call.require(Action.LOCK_READ, scope)
    with call.hub.database.read() as session:
        lock = resources.find_lock(session, _key(scope, call.names[-1]))
    if lock is None:
        raise not_found(f"{scope}/providers/{TYPE}/{call.names[-1]}")
    return Reply(200, _json(lock))


def list_locks(call: HubCall) -> Reply:
    """GET of the collection: at the scope and below; with `$filter=atScope()` at the scope alone."""
    scope = _scope(call)
    call.require(Action.LOCK_READ, scope)
    wanted = call.query.get("$filter", "").replace(" ", "").lower()
    if wanted not in ("", "atscope()"):
        raise ApiError(400, "InvalidFilterInQueryString", "Locks take no other '$filter' than 'atScope()'.")
    with call.hub.database.read() as session:
        found = resources.locks_of(session, call.names[0])
    key = scope.lower()
    shown = [lock for lock in found if (lock.scope_key == key if wanted else within(key, lock.scope_key))]
    return Reply(200, {"value": [_json(lock) for lock in shown]})


def _at(session: Session, scope: str) -> str:
    found = resources.target(session, scope)
    if found is None:
        raise not_found(scope)
    return found.id


def put_lock(call: HubCall) -> Reply:
    """PUT: 201 made, 200 changed."""
    name = call.names[-1]
    call.require(Action.LOCK_WRITE, _scope(call))
    if not _NAME.fullmatch(name) or name.endswith((" ", ".")):
        raise ApiError(400, "InvalidLockName", "A lock's name has 1 to 260 characters, none of < > % & : \\ ? /.")
    properties = call.body().get("properties")
    if not isinstance(properties, dict):
        raise bad_content("'properties' must be an object with 'level'.", "properties")
    level = one_of(properties, "level", (CAN_NOT_DELETE, READ_ONLY))
    notes = needed_text(properties, "notes", 512) if properties.get("notes") else None
    with call.hub.database.write() as session:
        scope = _at(session, _scope(call))
        lock = resources.find_lock(session, _key(scope, name))
        made = lock is None
        if lock is None:
            beside = [item for item in resources.locks_of(session, call.names[0]) if item.scope_key == scope.lower()]
            if len(beside) >= MAX_LOCKS:
                raise ApiError(409, "LockLimitExceeded", f"A scope may have at most {MAX_LOCKS} locks.")
            lock = Lock(
                key=_key(scope, name),
                scope=scope,
                scope_key=scope.lower(),
                name=name,
                created=call.at,
                created_by=call.caller.client_id,
            )
            session.add(lock)
        lock.level, lock.notes = level, notes
        call.record(session, Action.LOCK_WRITE, f"{scope}/providers/{TYPE}/{name}", {"level": level})
        return Reply(201 if made else 200, _json(lock))


def delete_lock(call: HubCall) -> Reply:
    """DELETE: 200, and 204 when there is none."""
    scope = _scope(call)
    call.require(Action.LOCK_DELETE, scope)
    with call.hub.database.write() as session:
        lock = resources.find_lock(session, _key(scope, call.names[-1]))
        if lock is None:
            return Reply(204)
        session.delete(lock)
        call.record(session, Action.LOCK_DELETE, f"{lock.scope}/providers/{TYPE}/{lock.name}")
    return Reply(200)

# SPDX-License-Identifier: Apache-2.0
"""Role assignments as `/hawser/v1` and ARM write them, inside the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm import paths, scopes
from control_plane.arm.roles import HUB, ROLES
from control_plane.errors import ApiError, bad_content
from control_plane.storage import machines, principals
from control_plane.storage.models import Principal, RoleAssignment, User

MAX_EACH = 100


@dataclass(frozen=True)
class Holder:
    """Who may hold roles. `kind`: principal or user."""

    object_id: str
    name: str
    kind: str


@dataclass(frozen=True)
class Wish:
    """An assignment to be made. `name`: its GUID; `scope`: as scopes.read() gave it."""

    name: str
    object_id: str
    role: str
    scope: str


def role_of(text: object) -> str:
    """A role by its name, without case.

    Errors: ApiError 400 `InvalidRoleDefinition`.
    """
    for role in ROLES:
        if isinstance(text, str) and role.lower() == text.lower():
            return role
    raise ApiError(400, "InvalidRoleDefinition", f"There is no such role; the roles are: {', '.join(ROLES)}.")


def scope_of(text: object) -> str:
    """A scope by its resource id.

    Errors: ApiError 400 `InvalidScope`.
    """
    scope = scopes.read(text) if isinstance(text, str) else None
    if scope is None:
        raise ApiError(
            400,
            "InvalidScope",
            "The scope must be '/' or the id of a subscription, a resource group or a machine.",
            target="scope",
        )
    return scope


def holders(session: Session, object_ids: set[str]) -> dict[str, Holder]:
    """Who is behind object ids; those that nobody has are left out."""
    found = {
        item.object_id: Holder(item.object_id, item.name, "principal")
        for item in session.scalars(select(Principal).where(Principal.object_id.in_(object_ids)))
    }
    users = session.scalars(select(User).where(User.id.in_(object_ids)))
    return found | {item.id: Holder(item.id, item.name, "user") for item in users}


def put(session: Session, wish: Wish, at: int, by: str, unknown: int = 400) -> tuple[RoleAssignment, bool]:
    """Make it; (the assignment, False) when this very one is there already. `by`: object id of who asks. `unknown`: the
    status for an object id that nobody has, by default that of ARM.

    Errors: ApiError 404 `SubscriptionNotFound`, `unknown` `PrincipalNotFound`, 409 `RoleAssignmentExists` (same
    content, other name), 409 `RoleAssignmentUpdateNotPermitted` (same name, other content).
    """
    if wish.scope != HUB:
        route = paths.read(wish.scope)
        if route is None or machines.find_subscription(session, route.names[0]) is None:
            raise ApiError(404, "SubscriptionNotFound", f"The subscription of '{wish.scope}' could not be found.")
    there = session.get(RoleAssignment, wish.name)
    if there is not None:
        same = (there.object_id, there.role, there.scope.lower()) == (wish.object_id, wish.role, wish.scope.lower())
        if same:
            return there, False
        raise ApiError(
            409, "RoleAssignmentUpdateNotPermitted", "A role assignment cannot be changed; delete it, make another one."
        )
    if wish.object_id not in holders(session, {wish.object_id}):
        told = f"There is no principal or user with object id '{wish.object_id}'."
        raise ApiError(unknown, "PrincipalNotFound", told)
    if len(principals.assignments(session, wish.object_id)) >= MAX_EACH:
        raise bad_content(f"One principal or user holds at most {MAX_EACH} role assignments.")
    made, fresh = principals.assign(session, wish.object_id, wish.role, wish.scope, at, by=by, name=wish.name)
    if not fresh:
        raise ApiError(409, "RoleAssignmentExists", f"The role assignment already exists. Its name is '{made.id}'.")
    return made, True


def new_name() -> str:
    """A GUID for an assignment."""
    return str(uuid4())


def visible(session: Session, seen: tuple[str, ...], object_id: str | None) -> list[RoleAssignment]:
    """Assignments whose scopes are within `seen`, the oldest first; of one holder."""
    query = select(RoleAssignment).order_by(RoleAssignment.created, RoleAssignment.id)
    if object_id is not None:
        query = query.where(RoleAssignment.object_id == object_id.lower())
    return [item for item in session.scalars(query) if scopes.shown(seen, item.scope)]

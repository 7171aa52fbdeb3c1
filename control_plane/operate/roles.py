# SPDX-License-Identifier: Apache-2.0
"""Role assignments of principals and users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm import paths, scopes
from control_plane.arm.roles import HUB, ROLES
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.people.assignments import Holder, holders
from control_plane.setup import operator
from control_plane.storage import audit, machines, people
from control_plane.storage import principals as stored
from control_plane.storage.models import RoleAssignment


def role_named(text: str) -> str:
    """A role by its name, without case.

    Errors: OperatorError naming the roles there are.
    """
    for role in ROLES:
        if role.lower() == text.lower():
            return role
    raise OperatorError(f"There is no role '{text}'.", f"The roles are: {', '.join(ROLES)}.")


def scope_named(session: Session, text: str) -> str:
    """A scope by its resource id; a machine or group may be made later, the subscription must exist.

    Errors: OperatorError.
    """
    scope = scopes.read(text)
    if scope is None:
        raise OperatorError(
            f"'{text}' is not a scope.",
            "Use / for the whole hub, or the id of a subscription, a resource group or a machine: "
            "/subscriptions/ID[/resourceGroups/GROUP[/providers/Microsoft.HybridCompute/machines/NAME]].",
        )
    if scope != HUB:
        route = paths.read(scope)
        if route is None or machines.find_subscription(session, route.names[0]) is None:
            raise OperatorError(f"There is no subscription as '{text}' names it.", "See the output of 'init'.")
    return scope


def holder_named(session: Session, text: str) -> Holder:
    """A principal or a user by name, client id or object id.

    Errors: OperatorError: there is none, or both a principal and a user are called so.
    """
    principal, user = stored.find_by_name_or_id(session, text), people.find(session, text)
    if principal is not None and user is not None:
        raise OperatorError(
            f"Both a principal and a user are named '{text}'.",
            f"Name the object id: {principal.object_id} is the principal, {user.id} the user.",
        )
    if principal is not None:
        return Holder(principal.object_id, principal.name, "principal")
    if user is not None:
        return Holder(user.id, user.name, "user")
    raise OperatorError(
        f"There is no principal or user '{text}'.", "See 'hawser-hub principal list' and 'hawser-hub user list'."
    )


def assign(data: Path, who: str, role: str, scope: str) -> tuple[dict[str, Any], bool]:
    """Give a role. (the assignment, False) when it was held before.

    Errors: OperatorError.
    """
    role = role_named(role)
    with opened(data) as (database, _config), database.write() as session:
        holder, where = holder_named(session, who), scope_named(session, scope)
        made, fresh = stored.assign(session, holder.object_id, role, where, now())
        if fresh:
            record(session, "role/assign", made, holder)
        return _shown(made, holder), fresh


def record(session: Session, action: str, assignment: RoleAssignment, holder: Holder) -> None:
    """Audit a change of an assignment by the operator."""
    detail = {"role": assignment.role, holder.kind: holder.name}
    audit.record(session, operator(), action, assignment.scope, detail=detail)


def _shown(item: RoleAssignment, holder: Holder) -> dict[str, Any]:
    return {
        "id": item.id,
        "name": holder.name,
        "kind": holder.kind,
        "objectId": item.object_id,
        "role": item.role,
        "scope": item.scope,
        "created": rfc3339(item.created),
    }


def every(data: Path, who: str | None, scope: str | None) -> list[dict[str, Any]]:
    """Every assignment; of one holder, or at one very scope.

    Errors: OperatorError.
    """
    with opened(data) as (database, _config), database.read() as session:
        query = select(RoleAssignment).order_by(RoleAssignment.created, RoleAssignment.id)
        if who is not None:
            query = query.where(RoleAssignment.object_id == holder_named(session, who).object_id)
        wanted = scope_named(session, scope).lower() if scope is not None else None
        found = session.scalars(query).all()
        known = holders(session, {item.object_id for item in found})
        return [
            _shown(item, known.get(item.object_id, Holder(item.object_id, "?", "unknown")))
            for item in found
            if wanted is None or item.scope.lower() == wanted
        ]


def remove(data: Path, who: str, role: str, scope: str) -> bool:
    """Take a role away. False when it was not held at this very scope.

    Errors: OperatorError.
    """
    role = role_named(role)
    with opened(data) as (database, _config), database.write() as session:
        holder, where = holder_named(session, who), scope_named(session, scope)
        found = [
            item
            for item in session.scalars(
                select(RoleAssignment).where(RoleAssignment.object_id == holder.object_id, RoleAssignment.role == role)
            )
            if item.scope.lower() == where.lower()
        ]
        for item in found:
            record(session, "role/remove", item, holder)
            session.delete(item)
        return bool(found)

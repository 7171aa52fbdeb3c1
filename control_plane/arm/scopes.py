# SPDX-License-Identifier: Apache-2.0
"""Where roles are held: the whole hub, a subscription, a resource group, a machine. And what of a list may be seen."""

from __future__ import annotations

from control_plane.arm import paths
from control_plane.arm.roles import HUB, ROLES, Action, Caller, refusal, within

_SUBSCRIPTION = "subscriptions/*"
_GROUP = f"{_SUBSCRIPTION}/resourcegroups/*"


def read(text: str) -> str | None:
    """The scope that a text names, in the form it is kept, or None when it is none."""
    if text == HUB:
        return HUB
    route = paths.read(text) if len(text) <= 512 else None
    if route is None:
        return None
    if route.shape == _SUBSCRIPTION:
        return f"/subscriptions/{route.names[0].lower()}"
    if route.shape == _GROUP and paths.is_group_name(route.names[1]):
        return paths.group_id(route.names[0].lower(), route.names[1])
    machine = paths.machine_id(text)
    return str(paths.MachineId(machine.subscription.lower(), machine.group, machine.name)) if machine else None


def readable(caller: Caller, action: Action) -> tuple[str, ...]:
    """The scopes, in lower case, at and below which the caller may do `action`; none lies within another.

    A list shows what is within one of them. Tickets and machines see no lists.
    """
    if caller.grant is not None:
        return ()
    found = (scope for role, scope in caller.assignments if action in ROLES.get(role, ()))
    held = sorted({scope.rstrip("/").lower() or HUB for scope in found})
    kept: list[str] = []
    for scope in held:  # sorted: whatever a scope lies within comes before it
        if not any(within(outer, scope) for outer in kept):
            kept.append(scope)
    return tuple(kept)


def below(scopes: tuple[str, ...], container: str) -> bool:
    """True when something within `container` may be seen: one of the scopes holds it, or lies in it."""
    return any(within(scope, container) or within(container, scope) for scope in scopes)


def require(caller: Caller, action: Action, container: str) -> tuple[str, ...]:
    """What of a list over `container` is shown: the scopes of `readable`.

    Errors: ApiError 403 when nothing in it may be seen.
    """
    scopes = readable(caller, action)
    if not below(scopes, container):
        raise refusal(caller, action, container)
    return scopes


def shown(scopes: tuple[str, ...], resource_id: str) -> bool:
    """True when a resource is within one of the scopes."""
    return any(within(scope, resource_id) for scope in scopes)

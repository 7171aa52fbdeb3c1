# SPDX-License-Identifier: Apache-2.0
"""Scopes as conditions of list queries (arm/scopes.py: readable)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_, true

from control_plane.arm import paths
from control_plane.arm.roles import HUB
from control_plane.storage.models import Machine, ResourceGroup


def machines_in(scopes: Iterable[str]) -> ColumnElement[bool]:
    """True for machines within one of the scopes; the query joins `Machine` with `ResourceGroup`."""
    return within(scopes, (Machine.subscription_id, ResourceGroup.name_key, Machine.name_key))


def within(scopes: Iterable[str], columns: Sequence[Any]) -> ColumnElement[bool]:
    """The same where `columns` are those of subscription, group and machine, in lower case."""
    conditions = [
        and_(true(), *(column == name for column, name in zip(columns, _names(scope), strict=False)))
        for scope in scopes
    ]
    return or_(false(), *conditions)


def groups_in(scopes: Iterable[str]) -> ColumnElement[bool]:
    """True for resource groups within one of the scopes: a machine's scope shows no group."""
    wanted = (ResourceGroup.subscription_id, ResourceGroup.name_key)
    found = [names for names in map(_names, scopes) if len(names) <= len(wanted)]
    conditions = [
        and_(true(), *(column == name for column, name in zip(wanted, names, strict=False))) for names in found
    ]
    return or_(false(), *conditions)


def _names(scope: str) -> tuple[str, ...]:
    """Subscription, group, machine of a scope, as many as it names, in lower case."""
    if scope == HUB:
        return ()
    route = paths.read(scope.lower())
    if route is None:  # scopes.read() lets none such in
        raise ValueError(f"not a scope: {scope}")
    return route.names

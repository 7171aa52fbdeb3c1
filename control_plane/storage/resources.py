# SPDX-License-Identifier: Apache-2.0
"""Reading resources beside machines, what a path points at, lists of everything, locks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, false, func, or_, select
from sqlalchemy.orm import Session

from control_plane.arm import paths, resource_filter
from control_plane.arm.resource_filter import Facts, Node
from control_plane.arm.roles import HUB
from control_plane.storage import derived, machines, visible
from control_plane.storage.extension_models import Extension, RunCommand
from control_plane.storage.models import Machine, ResourceGroup, Subscription
from control_plane.storage.resource_models import Lock, Resource

_STREAMED = 500
_SUBSCRIPTION = "subscriptions/*"
_GROUP = "subscriptions/*/resourcegroups/*"
_MACHINE = f"{_GROUP}/providers/{paths.MACHINE_TYPE.lower()}/*"

_SHOWN = (
    Machine.id,
    Machine.subscription_id,
    Machine.name,
    Machine.location,
    Machine.tags,
    Machine.kind,
    Machine.identity_type,
    Machine.principal_id,
    Machine.created,
    Machine.modified,
)

Target = Subscription | ResourceGroup | Machine | Resource


@dataclass(frozen=True)
class Found:
    """What an id points at, with the id in the case of creation."""

    id: str
    target: Target


def find(session: Session, resource_id: str) -> Resource | None:
    """By id, without case."""
    return session.scalars(select(Resource).where(Resource.key == resource_id.lower())).one_or_none()


def target(session: Session, resource_id: str) -> Found | None:
    """The subscription, group, machine or further resource behind an id."""
    route = paths.read(resource_id)
    if route is None:
        return None
    if route.shape == _SUBSCRIPTION:
        subscription = machines.find_subscription(session, route.names[0])
        return Found(f"/subscriptions/{subscription.id}", subscription) if subscription else None
    group = machines.find_group(session, *route.names[:2]) if route.shape.startswith(_GROUP) else None
    if group is None:
        return None
    if route.shape == _GROUP:
        return Found(paths.group_id(group.subscription_id, group.name), group)
    if route.shape == _MACHINE:
        machine = machines.find_machine(session, group, route.names[2])
        name = machine.name if machine else ""
        return Found(str(paths.MachineId(group.subscription_id, group.name, name)), machine) if machine else None
    resource = find(session, resource_id)
    return Found(resource.resource_id, resource) if resource else None


def resources_in(scopes: Iterable[str]) -> ColumnElement[bool]:
    """True for resources within one of the scopes (arm/scopes.py: readable)."""
    conditions: list[ColumnElement[bool]] = []
    for scope in scopes:
        lower = scope.lower().rstrip("/")
        everything = Resource.key.startswith("/", autoescape=True)
        conditions.append(everything if scope == HUB else Resource.key.startswith(f"{lower}/", autoescape=True))
        conditions.append(Resource.key == lower)
    return or_(false(), *conditions)


def of_kind(
    session: Session, kind_key: str, container: str, scopes: Iterable[str], after: int, size: int | None
) -> tuple[Sequence[Resource], int | None]:
    """Resources of one type below `container` and within `scopes`, and the last id if more follow. `size` None: all."""
    query = (
        select(Resource)
        .where(Resource.type == kind_key, Resource.id > after, resources_in(scopes))
        .where(Resource.key.startswith(f"{container.lower()}/", autoescape=True))
        .order_by(Resource.id)
        .limit(size + 1 if size is not None else None)
    )
    found = session.scalars(query).all()
    return (found[:size], found[size - 1].id) if size is not None and len(found) > size else (found, None)


@dataclass(frozen=True)
class Listed:
    """A resource as lists of everything show it. `name`: of what hangs below a machine with the machine's before it;
    `state`: provisioningState; times in Unix seconds."""

    id: str
    name: str
    type: str
    group: str
    location: str
    tags: dict[str, str]
    kind: str | None
    identity: dict[str, Any] | None
    created: int
    modified: int
    state: str = "Succeeded"

    @property
    def facts(self) -> Facts:
        """What a filter may ask."""
        return Facts(self.name, self.type, self.group, self.location, self.tags)


def _machines(scopes: Iterable[str], subscription_id: str, group: ResourceGroup | None, node: Node | None) -> Any:
    # Columns and no objects: a machine's properties are the larger part of it, and no list shows them.
    query = (
        select(*_SHOWN, ResourceGroup.name.label("group"))
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .where(Machine.subscription_id == subscription_id, visible.machines_in(scopes))
        .order_by(Machine.id)
    )
    # Whatever the database can leave out itself need not be read; resource_filter.holds() decides.
    if group is not None:
        query = query.where(Machine.group_id == group.id)
    for of, column in (("name", Machine.name_key), ("resourceGroup", ResourceGroup.name_key)):
        wanted = resource_filter.required(node, of)
        if wanted is not None:
            query = query.where(column == wanted)
    tag = resource_filter.required_tag(node)
    if tag is not None:
        name, value = tag
        line = derived.tag_name(name) if value is None else derived.tag_line(name, value)
        query = query.where(Machine.tags_key.contains(line, autoescape=True))
    return query


def _listed_machines(session: Session, query: Any, after: int, tenant_id: str) -> Iterator[tuple[int, Listed]]:
    query = query.where(Machine.id > after).execution_options(yield_per=_STREAMED)
    for row in session.execute(query):
        identity = {"type": row.identity_type}
        if "SystemAssigned" in row.identity_type:
            identity |= {"principalId": row.principal_id, "tenantId": tenant_id}
        shown = Listed(
            str(paths.MachineId(row.subscription_id, row.group, row.name)),
            row.name,
            paths.MACHINE_TYPE,
            row.group,
            row.location,
            row.tags,
            row.kind,
            identity,
            row.created,
            row.modified,
        )
        yield row.id, shown


def _listed_resources(
    session: Session,
    scopes: Iterable[str],
    subscription_id: str,
    group: ResourceGroup | None,
    types: Mapping[str, str],
    after: int,
) -> Iterator[tuple[int, Listed]]:
    query = (
        select(Resource, ResourceGroup.name, Machine.name, func.coalesce(Extension.state, RunCommand.state))
        .join(ResourceGroup, Resource.group_id == ResourceGroup.id)
        .outerjoin(Machine, Resource.machine_id == Machine.id)
        .outerjoin(Extension, Extension.resource_id == Resource.id)
        .outerjoin(RunCommand, RunCommand.resource_id == Resource.id)
        .where(Resource.subscription_id == subscription_id, Resource.id > after, Resource.type.in_(types))
        .where(resources_in(scopes))
        .order_by(Resource.id)
        .execution_options(yield_per=_STREAMED)
    )
    if group is not None:
        query = query.where(Resource.group_id == group.id)
    for item, group_name, machine, state in session.execute(query):
        shown = Listed(
            item.resource_id,
            f"{machine}/{item.name}" if machine else item.name,
            types[item.type],
            group_name,
            item.location,
            item.tags,
            None,
            None,
            item.created,
            item.modified,
            state or "Succeeded",
        )
        yield item.id, shown


def everything(
    session: Session,
    *,
    scopes: tuple[str, ...],
    subscription_id: str,
    group: ResourceGroup | None,
    node: Node | None,
    types: Mapping[str, str],
    tenant_id: str,
    after: int = 0,
    size: int | None = None,
) -> tuple[list[Listed], int | None]:
    """Machines, then resources of `types` (lower case to spelling), that a filter asks for, from the one behind
    `after`; and where the next page begins. `size` None: all."""
    position, first_source = after // 2, after % 2
    found: list[Listed] = []
    last = after
    asked = resource_filter.required(node, "resourceType")
    held = ((paths.MACHINE_TYPE.lower(),), tuple(types))
    for source in range(first_source, len(held)):
        if asked is not None and asked not in held[source]:
            continue
        start = position if source == first_source else 0
        if source == 0:
            query = _machines(scopes, subscription_id, group, node)
            rows = _listed_machines(session, query, start, tenant_id)
        else:
            rows = _listed_resources(session, scopes, subscription_id, group, types, start)
        for row_id, item in rows:
            if not resource_filter.holds(node, item.facts):
                continue
            if size is not None and len(found) == size:
                return found, last
            found.append(item)
            last = row_id * 2 + source
    return found, None


def locks_of(session: Session, subscription_id: str) -> list[Lock]:
    """Every lock in a subscription, oldest first."""
    prefix = f"/subscriptions/{subscription_id.lower()}"
    below = Lock.scope_key.startswith(f"{prefix}/", autoescape=True)
    return list(session.scalars(select(Lock).where(or_(Lock.scope_key == prefix, below)).order_by(Lock.id)))


def find_lock(session: Session, key: str) -> Lock | None:
    """By the lock's own id in lower case."""
    return session.scalars(select(Lock).where(Lock.key == key)).one_or_none()


def groups(session: Session, subscription_id: str, scopes: Iterable[str]) -> Sequence[ResourceGroup]:
    """Every resource group of a subscription within `scopes`, oldest first."""
    query = select(ResourceGroup).where(ResourceGroup.subscription_id == subscription_id, visible.groups_in(scopes))
    return session.scalars(query.order_by(ResourceGroup.id)).all()

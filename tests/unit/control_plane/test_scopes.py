# SPDX-License-Identifier: Apache-2.0
"""Scopes: what is one, and that a list shows exactly what a single GET would show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from control_plane.arm import scopes
from control_plane.arm.roles import HUB, ROLES, Action, Caller, Grant, allows, within
from control_plane.errors import ApiError
from control_plane.storage.models import Base, Machine, ResourceGroup, Subscription
from control_plane.storage.visible import groups_in, machines_in

SUBSCRIPTIONS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")
GROUPS = ("fleet", "Fleet-2")
NAMES = ("web01", "web01x")
P = "providers/Microsoft.HybridCompute/machines"
GROUP_IDS = [f"/subscriptions/{sub}/resourceGroups/{group}" for sub in SUBSCRIPTIONS for group in GROUPS]
MACHINE_IDS = [f"{group}/{P}/{name}" for group in GROUP_IDS for name in NAMES]
SCOPES = [HUB, *(f"/subscriptions/{sub}" for sub in SUBSCRIPTIONS), *GROUP_IDS, *MACHINE_IDS]


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("/", "/"),
        (f"/Subscriptions/{SUBSCRIPTIONS[0].upper()}/", f"/subscriptions/{SUBSCRIPTIONS[0]}"),
        ("/subscriptions/S/RESOURCEGROUPS/Fleet", "/subscriptions/s/resourceGroups/Fleet"),
        (f"/subscriptions/s/resourceGroups/g/{P.lower()}/W", f"/subscriptions/s/resourceGroups/g/{P}/W"),
        ("", None),
        ("//", None),
        ("/subscriptions", None),
        ("/subscriptions/s/resourceGroups", None),
        ("/subscriptions/s/resourceGroups/g.", None),
        ("/subscriptions/s/providers/Microsoft.HybridCompute", None),
        (f"/subscriptions/s/resourceGroups/g/{P}/..", None),
        (f"/subscriptions/s/resourceGroups/g/{P}/w/extensions/e", None),
        ("/subscriptions/" + "s" * 600, None),
    ],
)
def test_read(text: str, scope: str | None) -> None:
    assert scopes.read(text) == scope
    assert scope is None or scopes.read(scope) == scope


@pytest.fixture(scope="module")
def fleet() -> Session:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    session = Session(engine)
    for sub in SUBSCRIPTIONS:
        session.add(Subscription(id=sub, name=sub, created=1))
        for group in GROUPS:
            row = ResourceGroup(
                subscription_id=sub, name=group, name_key=group.lower(), location="l", tags={}, created=1
            )
            session.add(row)
            session.flush()
            for name in NAMES:
                number = f"{row.id}{name}"
                session.add(
                    Machine(
                        subscription_id=sub,
                        group_id=row.id,
                        name=name,
                        name_key=name,
                        location="l",
                        tags={},
                        identity_type="SystemAssigned",
                        vm_id=number,
                        vm_id_given=True,
                        properties={},
                        client_id=number,
                        principal_id=number,
                        generations={},
                        created=1,
                        created_by="x",
                        created_by_type="User",
                        created_by_object="x",
                        modified=1,
                        modified_by="x",
                        modified_by_type="User",
                    )
                )
    session.flush()
    return session


ASSIGNMENTS = st.lists(st.tuples(st.sampled_from([*ROLES, "Nobody"]), st.sampled_from(SCOPES)), max_size=4)


@given(ASSIGNMENTS, st.sampled_from(list(Action)))
def test_a_list_shows_what_a_get_would(fleet: Session, held: list[tuple[str, str]], action: Action) -> None:
    caller = Caller("user", "me", "me", "me", tuple((role, scope.upper()) for role, scope in held))
    seen = scopes.readable(caller, action)
    machines = fleet.execute(
        select(Machine, ResourceGroup.name)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .where(machines_in(seen))
    )
    listed = {
        f"/subscriptions/{item.subscription_id}/resourceGroups/{group}/{P}/{item.name}" for item, group in machines
    }
    assert listed == {item for item in MACHINE_IDS if allows(caller, action, item)}
    assert listed == {item for item in MACHINE_IDS if scopes.shown(seen, item)}
    groups = fleet.scalars(select(ResourceGroup).where(groups_in(seen)))
    assert {f"/subscriptions/{item.subscription_id}/resourceGroups/{item.name}" for item in groups} == {
        item for item in GROUP_IDS if allows(caller, action, item)
    }
    for container in SCOPES:
        inside = [item for item in [container, *SCOPES] if within(container, item)]
        reachable = any(allows(caller, action, item) for item in inside)
        assert scopes.below(seen, container) == reachable
        if not reachable:
            with pytest.raises(ApiError, match="does not have authorization"):
                scopes.require(caller, action, container)


def test_tickets_see_no_lists() -> None:
    caller = Caller("ticket", "me", "me", "me", (("Owner", HUB),), Grant("t", (), frozenset()))
    assert scopes.readable(caller, Action.MACHINE_READ) == ()

# SPDX-License-Identifier: Apache-2.0
"""The one decision: role x action, tickets, creators."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.arm.roles import (
    CONTRIBUTOR,
    HUB,
    ONBOARDING,
    OWNER,
    READER,
    RESOURCE_ADMINISTRATOR,
    ROLES,
    TICKET_RIGHTS,
    Action,
    Caller,
    Grant,
    MachineFacts,
    allows,
    within,
)

SCOPE = "/subscriptions/11111111-1111-4111-8111-111111111111"
GROUP = f"{SCOPE}/resourceGroups/fleet"
MACHINE = f"{GROUP}/providers/Microsoft.HybridCompute/machines/web01"


def _caller(role: str, scope: str = SCOPE, grant: Grant | None = None) -> Caller:
    return Caller("principal", "app", "me", "name", ((role, scope),), grant)


A = Action
TABLE = {
    A.SUBSCRIPTION_READ: {OWNER, CONTRIBUTOR, READER, ONBOARDING, RESOURCE_ADMINISTRATOR},
    A.GROUP_READ: {OWNER, CONTRIBUTOR, READER, ONBOARDING, RESOURCE_ADMINISTRATOR},
    A.GROUP_WRITE: {OWNER, CONTRIBUTOR},
    A.GROUP_DELETE: {OWNER, CONTRIBUTOR},
    A.PROVIDER_READ: {OWNER, CONTRIBUTOR, READER, ONBOARDING, RESOURCE_ADMINISTRATOR},
    A.PROVIDER_REGISTER: {OWNER, CONTRIBUTOR},
    A.MACHINE_READ: {OWNER, CONTRIBUTOR, READER, ONBOARDING, RESOURCE_ADMINISTRATOR},
    A.MACHINE_CREATE: {OWNER, CONTRIBUTOR, ONBOARDING, RESOURCE_ADMINISTRATOR},
    A.MACHINE_WRITE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.MACHINE_DELETE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.EXTENSION_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.EXTENSION_WRITE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.EXTENSION_DELETE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.RUN_COMMAND_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.RUN_COMMAND_WRITE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.RUN_COMMAND_DELETE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.COMPUTE_READ: {OWNER, CONTRIBUTOR, READER},
    A.RESOURCE_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.TAGS_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.TAGS_WRITE: {OWNER, CONTRIBUTOR},
    A.TAGS_DELETE: {OWNER, CONTRIBUTOR},
    A.LOCK_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.LOCK_WRITE: {OWNER},
    A.LOCK_DELETE: {OWNER},
    A.ROLE_ASSIGNMENT_READ: {OWNER, CONTRIBUTOR, READER},
    A.ROLE_ASSIGNMENT_WRITE: {OWNER},
    A.ROLE_ASSIGNMENT_DELETE: {OWNER},
    A.LICENSE_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.LICENSE_WRITE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.LICENSE_DELETE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.GATEWAY_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.GATEWAY_WRITE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.GATEWAY_DELETE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.SETTINGS_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.SETTINGS_WRITE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.SCOPE_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.SCOPE_WRITE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.SCOPE_DELETE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.AUDIT_READ: {OWNER, CONTRIBUTOR},
    A.EVENT_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.HEALTH_READ: {OWNER, CONTRIBUTOR, READER},
    A.USER_READ: {OWNER, CONTRIBUTOR},
    A.USER_WRITE: {OWNER},
    A.USER_DELETE: {OWNER},
    A.CLEANUP_READ: {OWNER, CONTRIBUTOR, READER},
    A.CLEANUP_WRITE: {OWNER, CONTRIBUTOR},
    A.TWIN_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.TWIN_WRITE: {OWNER, CONTRIBUTOR, RESOURCE_ADMINISTRATOR},
    A.IMAGE_READ: {OWNER, CONTRIBUTOR, READER, RESOURCE_ADMINISTRATOR},
    A.PROFILE_READ: {OWNER, CONTRIBUTOR, READER},
    A.PROFILE_WRITE: {OWNER},
}


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("role", list(ROLES))
def test_table(role: str, action: Action) -> None:
    assert allows(_caller(role), action, MACHINE) == (role in TABLE[action])


@given(st.sampled_from(list(Action)), st.sampled_from([*ROLES, "Nobody"]))
def test_another_scope_gives_nothing(action: Action, role: str) -> None:
    for scope in (f"{SCOPE}x", "/subscriptions/other", f"{MACHINE}x"):
        assert not allows(_caller(role, scope), action, MACHINE)


def test_scopes_are_prefixes_of_whole_segments_without_case() -> None:
    assert within(SCOPE.upper(), MACHINE)
    assert within(MACHINE + "/", MACHINE)
    assert not within(MACHINE, GROUP)
    assert not within("/subscriptions/1", "/subscriptions/11")
    assert within(HUB, MACHINE)
    assert within(HUB, HUB)
    assert not within(SCOPE, HUB)


@given(st.sampled_from(list(Action)), st.sampled_from(sorted(TICKET_RIGHTS)), st.booleans())
def test_a_ticket_never_exceeds_its_operation(action: Action, operation: str, own: bool) -> None:
    target = MACHINE.lower() if own else f"{MACHINE.lower()}-other"
    caller = _caller(OWNER, grant=Grant("t", ((operation, target),), frozenset()))
    assert allows(caller, action, MACHINE) == (own and action in TICKET_RIGHTS[operation])


@pytest.mark.parametrize(
    ("ticket", "awaiting", "allowed"),
    [("t", True, True), ("t", False, False), ("another", True, False), (None, True, False)],
)
def test_a_connect_ticket_undoes_what_it_made_in_vain(ticket: str | None, awaiting: bool, allowed: bool) -> None:
    caller = _caller(ONBOARDING, grant=Grant("t", (("connect", MACHINE.lower()),), frozenset()))
    assert allows(caller, Action.MACHINE_DELETE, MACHINE, MachineFacts("x", ticket, awaiting)) == allowed


@pytest.mark.parametrize("operation", sorted(TICKET_RIGHTS))
@pytest.mark.parametrize("role", [*ROLES, "Nobody"])
def test_a_ticket_allows_what_its_maker_still_may(role: str, operation: str) -> None:
    needed = TICKET_RIGHTS[operation]
    grant = Grant("t", ((operation, MACHINE.lower()),), frozenset())
    for action in needed:
        assert allows(_caller(role, grant=grant), action, MACHINE) == (needed <= ROLES.get(role, frozenset()))


@pytest.mark.parametrize("action", list(Action))
def test_nobodys_role_stands_behind_the_hubs_own_ticket(action: Action) -> None:
    grant = Grant("t", (("connect", MACHINE.lower()),), frozenset(), by_hub=True)
    caller = Caller("ticket", "app", "me", "name", (), grant)
    assert allows(caller, action, MACHINE) == (action in TICKET_RIGHTS["connect"])


@pytest.mark.parametrize(
    ("role", "creator", "awaiting", "allowed"),
    [
        (ONBOARDING, "me", True, True),
        (ONBOARDING, "me", False, False),
        (ONBOARDING, "you", True, False),
        (READER, "me", True, False),
        (RESOURCE_ADMINISTRATOR, "you", False, True),
    ],
)
def test_the_creator_may_delete_what_never_connected(role: str, creator: str, awaiting: bool, allowed: bool) -> None:
    facts = MachineFacts(creator, None, awaiting)
    assert allows(_caller(role), Action.MACHINE_DELETE, MACHINE, facts) == allowed


def test_machines_have_no_rights() -> None:
    machine = Caller("machine", "app", "oid", MACHINE)
    assert not any(allows(machine, action, MACHINE) for action in Action)

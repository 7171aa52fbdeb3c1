# SPDX-License-Identifier: Apache-2.0
"""Who may do what: one table of roles, one decision. Scope of an assignment is a prefix of resource ids.

Rights of the roles: agent-surface.md ('Needed rights'), docs/protocol.md section 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from control_plane.errors import ApiError


class Action(StrEnum):
    """Operations by their ARM names. `machines/create` is ours: a write that makes a machine or repeats its making."""

    SUBSCRIPTION_READ = "Microsoft.Resources/subscriptions/read"
    GROUP_READ = "Microsoft.Resources/subscriptions/resourceGroups/read"
    GROUP_WRITE = "Microsoft.Resources/subscriptions/resourceGroups/write"
    GROUP_DELETE = "Microsoft.Resources/subscriptions/resourceGroups/delete"
    PROVIDER_READ = "Microsoft.Resources/providers/read"
    PROVIDER_REGISTER = "Microsoft.HybridCompute/register/action"
    MACHINE_READ = "Microsoft.HybridCompute/machines/read"
    MACHINE_CREATE = "Microsoft.HybridCompute/machines/create"
    MACHINE_WRITE = "Microsoft.HybridCompute/machines/write"
    MACHINE_DELETE = "Microsoft.HybridCompute/machines/delete"
    EXTENSION_READ = "Microsoft.HybridCompute/machines/extensions/read"
    EXTENSION_WRITE = "Microsoft.HybridCompute/machines/extensions/write"
    EXTENSION_DELETE = "Microsoft.HybridCompute/machines/extensions/delete"
    RUN_COMMAND_READ = "Microsoft.HybridCompute/machines/runCommands/read"
    RUN_COMMAND_WRITE = "Microsoft.HybridCompute/machines/runCommands/write"
    RUN_COMMAND_DELETE = "Microsoft.HybridCompute/machines/runCommands/delete"
    COMPUTE_READ = "Microsoft.Compute/virtualMachines/read"
    RESOURCE_READ = "Microsoft.Resources/subscriptions/resources/read"
    TAGS_READ = "Microsoft.Resources/tags/read"
    TAGS_WRITE = "Microsoft.Resources/tags/write"
    TAGS_DELETE = "Microsoft.Resources/tags/delete"
    LOCK_READ = "Microsoft.Authorization/locks/read"
    LOCK_WRITE = "Microsoft.Authorization/locks/write"
    LOCK_DELETE = "Microsoft.Authorization/locks/delete"
    ROLE_ASSIGNMENT_READ = "Microsoft.Authorization/roleAssignments/read"
    ROLE_ASSIGNMENT_WRITE = "Microsoft.Authorization/roleAssignments/write"
    ROLE_ASSIGNMENT_DELETE = "Microsoft.Authorization/roleAssignments/delete"
    LICENSE_READ = "Microsoft.HybridCompute/licenses/read"
    LICENSE_WRITE = "Microsoft.HybridCompute/licenses/write"
    LICENSE_DELETE = "Microsoft.HybridCompute/licenses/delete"
    GATEWAY_READ = "Microsoft.HybridCompute/gateways/read"
    GATEWAY_WRITE = "Microsoft.HybridCompute/gateways/write"
    GATEWAY_DELETE = "Microsoft.HybridCompute/gateways/delete"
    SETTINGS_READ = "Microsoft.HybridCompute/settings/read"
    SETTINGS_WRITE = "Microsoft.HybridCompute/settings/write"
    SCOPE_READ = "Microsoft.HybridCompute/privateLinkScopes/read"
    SCOPE_WRITE = "Microsoft.HybridCompute/privateLinkScopes/write"
    SCOPE_DELETE = "Microsoft.HybridCompute/privateLinkScopes/delete"
    AUDIT_READ = "Hawser.Hub/audit/read"
    EVENT_READ = "Hawser.Hub/events/read"
    HEALTH_READ = "Hawser.Hub/health/read"
    USER_READ = "Hawser.Hub/users/read"
    USER_WRITE = "Hawser.Hub/users/write"
    USER_DELETE = "Hawser.Hub/users/delete"
    CLEANUP_READ = "Hawser.Hub/cleanupRules/read"
    CLEANUP_WRITE = "Hawser.Hub/cleanupRules/write"
    TWIN_READ = "Hawser.Hub/twins/read"
    TWIN_WRITE = "Hawser.Hub/twins/write"
    IMAGE_READ = "Hawser.Hub/images/read"
    PROFILE_READ = "Hawser.Hub/profiles/read"
    PROFILE_WRITE = "Hawser.Hub/profiles/write"


HUB = "/"
"""The scope of what belongs to no subscription: users, audit, health, clean-up rules, enrolment profiles. An
assignment there holds everywhere."""

OWNER = "Owner"
CONTRIBUTOR = "Contributor"
READER = "Reader"
ONBOARDING = "Onboarding"
RESOURCE_ADMINISTRATOR = "Resource Administrator"

_READS = frozenset(action for action in Action if action.value.endswith("/read"))
_PRIVATE = frozenset({Action.AUDIT_READ, Action.USER_READ})
# Who may grant, or take away, what others rely on (Microsoft's Contributor lacks Authorization/*/Write and Delete).
_GRANTS = frozenset(
    {
        Action.ROLE_ASSIGNMENT_WRITE,
        Action.ROLE_ASSIGNMENT_DELETE,
        Action.LOCK_WRITE,
        Action.LOCK_DELETE,
        Action.USER_WRITE,
        Action.USER_DELETE,
        Action.PROFILE_WRITE,  # a token of a profile lets machines in
    }
)
_ONBOARDING = frozenset(
    {
        Action.SUBSCRIPTION_READ,
        Action.GROUP_READ,
        Action.PROVIDER_READ,
        Action.MACHINE_READ,
        Action.MACHINE_CREATE,
    }
)

ROLES: dict[str, frozenset[Action]] = {
    OWNER: frozenset(Action),
    CONTRIBUTOR: frozenset(Action) - _GRANTS,
    READER: _READS - _PRIVATE,
    ONBOARDING: _ONBOARDING,
    RESOURCE_ADMINISTRATOR: _ONBOARDING
    | {
        action
        for action in Action
        if action.value.startswith("Microsoft.HybridCompute/") and action is not Action.PROVIDER_REGISTER
    }
    | {Action.RESOURCE_READ, Action.TAGS_READ, Action.LOCK_READ, Action.EVENT_READ}
    | {Action.TWIN_READ, Action.TWIN_WRITE, Action.IMAGE_READ},
}

TICKET_RIGHTS: dict[str, frozenset[Action]] = {
    "connect": frozenset({Action.MACHINE_READ, Action.MACHINE_CREATE}),
    "update": frozenset({Action.MACHINE_READ, Action.MACHINE_WRITE}),
    "delete": frozenset({Action.MACHINE_READ, Action.MACHINE_DELETE}),
}
"""What a ticket's operation allows on its one resource; also what its maker must be allowed to do there."""


@dataclass(frozen=True)
class Grant:
    """A ticket: `operations` are pairs (operation, lower-case resource id). `by_hub`: the hub itself gave it out, so
    that no role of its maker stands behind it."""

    ticket_id: str
    operations: tuple[tuple[str, str], ...]
    spent: frozenset[str]
    by_hub: bool = False


@dataclass(frozen=True)
class Caller:
    """Who is calling. `kind`: `principal`, `user`, `machine` or `ticket`; `assignments`: pairs (role, scope)."""

    kind: str
    client_id: str
    object_id: str
    name: str
    assignments: tuple[tuple[str, str], ...] = ()
    grant: Grant | None = None

    @property
    def audit_type(self) -> str:
        """`createdByType` of systemData: machines are managed identities, principals and tickets applications."""
        return {"machine": "ManagedIdentity", "user": "User"}.get(self.kind, "Application")

    @property
    def audit_name(self) -> str:
        """What the audit calls the caller: people by name, all others by client id."""
        return self.name if self.kind == "user" else self.client_id


@dataclass(frozen=True)
class MachineFacts:
    """What a decision about an existing machine needs: who made it, by which ticket, and whether it ever connected."""

    created_by_object: str
    ticket_id: str | None
    awaiting: bool


def within(scope: str, resource_id: str) -> bool:
    """True when `resource_id` is `scope` or below it, without case."""
    scope, resource_id = scope.rstrip("/").lower(), resource_id.lower()
    return resource_id == scope or resource_id.startswith(scope + "/")


def roles_at(caller: Caller, resource_id: str) -> Iterable[str]:
    """Names of the roles that the caller holds at `resource_id`."""
    return (role for role, scope in caller.assignments if within(scope, resource_id))


def _holds(caller: Caller, action: Action, resource_id: str) -> bool:
    return any(action in ROLES.get(role, frozenset()) for role in roles_at(caller, resource_id))


def _ticket_allows(
    caller: Caller, grant: Grant, action: Action, resource_id: str, machine: MachineFacts | None
) -> bool:
    """What its maker may no longer do, a ticket does not do for him either."""
    operations = [
        name
        for name, target in grant.operations
        if target == resource_id.lower()
        and (grant.by_hub or all(_holds(caller, needed, resource_id) for needed in TICKET_RIGHTS.get(name, ())))
    ]
    if any(action in TICKET_RIGHTS.get(name, frozenset()) for name in operations):
        return True
    made_in_vain = machine is not None and machine.awaiting and machine.ticket_id == grant.ticket_id
    return action is Action.MACHINE_DELETE and "connect" in operations and made_in_vain


def allows(caller: Caller, action: Action, resource_id: str, machine: MachineFacts | None = None) -> bool:
    """The one decision that every operation passes through.

    A machine that never connected may be deleted by whoever created it and may still create machines there, and by the
    ticket that made it (docs/protocol.md 4).
    """
    if caller.grant is not None:
        return _ticket_allows(caller, caller.grant, action, resource_id, machine)
    if _holds(caller, action, resource_id):
        return True
    return (
        action is Action.MACHINE_DELETE
        and machine is not None
        and machine.awaiting
        and machine.created_by_object == caller.object_id
        and _holds(caller, Action.MACHINE_CREATE, resource_id)
    )


def refusal(
    caller: Caller, action: Action, resource_id: str, about: str | None = None, recorded: str | None = None
) -> ApiError:
    """403 for who lacks a right, in the words that people search for. `about`: as of ApiError; `recorded`: what the
    audit calls it."""
    return ApiError(
        403,
        "AuthorizationFailed",
        f"The client '{caller.client_id}' with object id '{caller.object_id}' does not have authorization to perform "
        f"action '{action.value}' over scope '{resource_id}' or the scope is invalid.",
        about=about,
        action=recorded,
        lacks=(action.value, resource_id),
    )


def holders(action: str) -> list[str]:
    """The roles that have a right, the one with the fewest rights first."""
    having = [name for name, actions in ROLES.items() if action in actions]
    return sorted(having, key=lambda name: len(ROLES[name]))

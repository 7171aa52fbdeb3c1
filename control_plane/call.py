# SPDX-License-Identifier: Apache-2.0
"""What every handler of ARM and `/hawser/v1` is given, and the guards it passes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from control_plane.arm.roles import Action, Caller, MachineFacts, allows, refusal
from control_plane.bodies import MAX_STRING, json_object
from control_plane.errors import ApiError, bad_content
from control_plane.http import Call, Reply
from control_plane.hub import Hub
from control_plane.storage import audit, machines
from control_plane.storage.models import ResourceGroup, Subscription


@dataclass(frozen=True)
class HubCall:
    """A request that was authenticated and routed. `names`: the path's names in order; `at`: Unix seconds."""

    hub: Hub
    http: Call
    caller: Caller
    names: tuple[str, ...]
    at: int

    @property
    def query(self) -> Mapping[str, str]:
        """Query parameters, names in lower case."""
        return self.http.query

    def body(self, longest: int = MAX_STRING) -> dict[str, Any]:
        """The JSON object sent. `longest`: characters that a text in it may have.

        Errors: ApiError 400.
        """
        if not self.http.body:
            raise bad_content("The request content is missing.")
        return json_object(self.http.body, longest)

    def require(self, action: Action, resource_id: str, machine: MachineFacts | None = None) -> None:
        """Errors: ApiError 403 unless the caller may do this there."""
        if not self.may(action, resource_id, machine):
            raise refusal(self.caller, action, resource_id)

    def may(self, action: Action, resource_id: str, machine: MachineFacts | None = None) -> bool:
        """The decision of roles.py for this caller."""
        return allows(self.caller, action, resource_id, machine)

    def subscription(self, session: Session) -> Subscription:
        """The subscription that the path names first.

        Errors: ApiError 404 `SubscriptionNotFound`.
        """
        found = machines.find_subscription(session, self.names[0])
        if found is None:
            raise ApiError(404, "SubscriptionNotFound", f"The subscription '{self.names[0]}' could not be found.")
        return found

    def group(self, session: Session) -> ResourceGroup:
        """The resource group that the path names second.

        Errors: ApiError 404 `ResourceGroupNotFound`.
        """
        found = machines.find_group(session, self.names[0], self.names[1])
        if found is None:
            raise ApiError(404, "ResourceGroupNotFound", f"Resource group '{self.names[1]}' could not be found.")
        return found

    def record(self, session: Session, action: Action, target: str, detail: dict[str, Any] | None = None) -> None:
        """Audit a write in its own transaction."""
        audit.record(session, self.actor, action.value, target, request_id=self.http.request_id, detail=detail)

    @property
    def actor(self) -> audit.Actor:
        """The caller as the audit names it."""
        return audit.Actor(self.caller.kind, self.caller.audit_name)


Handler = Callable[[HubCall], Reply]

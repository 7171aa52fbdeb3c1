# SPDX-License-Identifier: Apache-2.0
"""The table of `/hawser/v1`, and the way from a request to its handler. One row an operation: path, method, handler and
what the OpenAPI document says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from control_plane import callers, threads
from control_plane.api import audit as audit_log
from control_plane.api import (
    cleanup,
    events,
    fleet,
    health,
    openapi,
    profiles,
    role_assignments,
    stream,
    tickets,
    twins,
    users,
)
from control_plane.arm.actions import WRITES
from control_plane.arm.roles import Action, Caller
from control_plane.bodies import CHANNEL_BODY
from control_plane.call import HubCall
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.fleet.twins import DECIDE
from control_plane.http import Call, Reply, json_response, read_call
from control_plane.hub import Hub
from control_plane.storage import audit

ROOT = "/hawser/v1"
REPEATED = frozenset({"tag"})
_MACHINE = "(/?subscriptions/[^/]+/resourcegroups/[^/]+/providers/[^/]+/machines/[^/]+|[^/]+)"
_MAX_PARAMETER = 4096
Answering = Callable[[HubCall], Reply | Response]
ANYBODY = Caller("anybody", "", "", "")


@dataclass(frozen=True)
class Operation:
    """`path` below `/hawser/v1` with names in braces; `{machine}` is a vmId or a resource id, slashes escaped or
    not. `query`: parameter names, described in openapi.py, all others are refused; `body`, `answer`: names of schemas
    in docs/schemas, of `media` text/event-stream the schema of one event's data. `status`: of success; `also`: others
    of success, 201 with the same answer, 204 with none. `refuses`: statuses of refusal besides those of its kind
    (openapi.refusals). `open`: needs no token. `action`: what the audit calls a write that is refused, as one that is
    carried out."""

    method: str
    path: str
    handler: Answering
    summary: str
    status: int = 200
    query: tuple[str, ...] = ()
    body: str | None = None
    answer: str | None = None
    also: tuple[int, ...] = ()
    refuses: tuple[int, ...] = ()
    media: str = "application/json"
    open: bool = False
    action: str | None = None
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        expression = re.sub(r"\\\{[^}]+\\\}", "([^/]+)", re.escape(self.path).replace(r"\{machine\}", _MACHINE))
        object.__setattr__(self, "pattern", re.compile(expression, re.IGNORECASE))


def describe(call: HubCall) -> Reply:
    """GET /hawser/v1/openapi.json."""
    settings = call.hub.settings
    return Reply(200, openapi.document(OPERATIONS, settings.url, settings.tenant_id, REPEATED))


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/hub", health.read, "How the hub is", answer="hub"),
    Operation("GET", "/openapi.json", describe, "This document", answer="openapi", open=True),
    Operation(
        "POST",
        "/tickets",
        tickets.make_ticket,
        "Ask for a ticket",
        status=201,
        body="tickets",
        answer="ticket",
        action="tickets",
        refuses=(404,),
    ),
    Operation(
        "GET",
        "/machines",
        fleet.list_machines,
        "Query the fleet",
        query=fleet.LIST_PARAMETERS,
        answer="fleet-page",
        refuses=(404,),
    ),
    Operation(
        "GET",
        "/machines/summary",
        fleet.summarise,
        "Count the fleet",
        query=fleet.SUMMARY_PARAMETERS,
        answer="fleet-summary",
        refuses=(404,),
    ),
    Operation("GET", "/events", events.list_events, "List events", query=events.LIST_PARAMETERS, answer="events-page"),
    Operation(
        "GET",
        "/events/stream",
        stream.open_stream,
        "Follow events",
        query=stream.PARAMETERS,
        answer="event",
        media="text/event-stream",
    ),
    Operation(
        "GET",
        "/history",
        events.read_history,
        "The fleet over time",
        query=events.HISTORY_PARAMETERS,
        answer="fleet-history",
    ),
    Operation("GET", "/cleanupRules", cleanup.list_rules, "List clean-up rules", answer="cleanup-rules"),
    Operation("GET", "/cleanupRules/{rule}", cleanup.get_rule, "One clean-up rule", answer="cleanup-rule-shown"),
    Operation(
        "PUT",
        "/cleanupRules/{rule}",
        cleanup.put_rule,
        "Make or change a clean-up rule",
        body="cleanup-rule",
        answer="cleanup-rule-shown",
        also=(201,),
        action=Action.CLEANUP_WRITE,
        refuses=(409,),
    ),
    Operation(
        "DELETE",
        "/cleanupRules/{rule}",
        cleanup.delete_rule,
        "Take a clean-up rule away",
        answer="cleanup-rule-shown",
        also=(204,),
        action=Action.CLEANUP_WRITE,
    ),
    Operation(
        "POST",
        "/cleanupRules/{rule}/run",
        cleanup.run_rule,
        "Run a clean-up rule now",
        body="cleanup-run",
        answer="cleanup-result",
        action=Action.CLEANUP_WRITE,
        refuses=(409,),
    ),
    Operation(
        "GET",
        "/machines/{machine}",
        fleet.get_machine,
        "One machine with details",
        answer="fleet-machine",
        refuses=(409,),
    ),
    Operation("GET", "/users", users.list_users, "List the users", query=users.PARAMETERS, answer="users-page"),
    Operation("GET", "/users/{user}", users.get_user, "One user", answer="user"),
    Operation(
        "PUT",
        "/users/{user}",
        users.put_user,
        "Make or change a user",
        body="user-put",
        answer="user",
        also=(201,),
        action=Action.USER_WRITE,
    ),
    Operation(
        "DELETE",
        "/users/{user}",
        users.delete_user,
        "Take a user away",
        answer="user",
        also=(204,),
        action=Action.USER_DELETE,
    ),
    Operation(
        "GET",
        "/roleAssignments",
        role_assignments.list_assignments,
        "List role assignments",
        query=role_assignments.PARAMETERS,
        answer="role-assignments-page",
    ),
    Operation(
        "PUT",
        "/roleAssignments/{name}",
        role_assignments.put_assignment,
        "Give a role",
        body="role-assignment-put",
        answer="role-assignment",
        also=(201,),
        action=Action.ROLE_ASSIGNMENT_WRITE,
        refuses=(409,),
    ),
    Operation(
        "DELETE",
        "/roleAssignments/{name}",
        role_assignments.delete_assignment,
        "Take a role away",
        answer="role-assignment",
        also=(204,),
        action=Action.ROLE_ASSIGNMENT_DELETE,
    ),
    Operation("GET", "/twins", twins.list_twins, "List twins", query=twins.PARAMETERS, answer="twins-page"),
    Operation("GET", "/twins/{twin}", twins.get_twin, "One twin", answer="twin"),
    Operation(
        "POST",
        "/twins/{twin}/decide",
        twins.decide,
        "Decide about a twin",
        body="twin-decision",
        answer="twin",
        action=DECIDE,
        refuses=(409,),
    ),
    Operation("GET", "/images", twins.list_images, "List images", answer="images"),
    Operation("GET", "/images/{image}", twins.get_image, "The machines of an image", answer="image"),
    Operation("GET", "/profiles", profiles.list_profiles, "List enrolment profiles", answer="profiles"),
    Operation("GET", "/profiles/{profile}", profiles.get_profile, "One enrolment profile", answer="profile-shown"),
    Operation(
        "PUT",
        "/profiles/{profile}",
        profiles.put_profile,
        "Make or change an enrolment profile",
        body="profile",
        answer="profile-shown",
        also=(201,),
        action=Action.PROFILE_WRITE,
        refuses=(409,),
    ),
    Operation(
        "DELETE",
        "/profiles/{profile}",
        profiles.delete_profile,
        "Take an enrolment profile away",
        answer="profile-shown",
        also=(204,),
        action=Action.PROFILE_WRITE,
    ),
    Operation(
        "GET", "/profiles/{profile}/tokens", profiles.list_tokens, "List enrolment tokens", answer="enrolment-tokens"
    ),
    Operation(
        "POST",
        "/profiles/{profile}/tokens",
        profiles.make_token,
        "Make an enrolment token",
        status=201,
        body="enrolment-token-wish",
        answer="enrolment-token-made",
        action=Action.PROFILE_WRITE,
        refuses=(409,),
    ),
    Operation(
        "DELETE",
        "/profiles/{profile}/tokens/{name}",
        profiles.revoke_token,
        "Revoke an enrolment token",
        answer="enrolment-token",
        also=(204,),
        action=Action.PROFILE_WRITE,
    ),
    Operation(
        "GET", "/audit", audit_log.list_entries, "Read the audit", query=audit_log.PARAMETERS, answer="audit-page"
    ),
)


def find(method: str, path: str) -> tuple[Operation, tuple[str, ...]]:
    """The operation of a request and the names in its path.

    Errors: ApiError 404, 405.
    """
    rest = path[len(ROOT) :].rstrip("/")
    at_path = [(item, found) for item in OPERATIONS if (found := item.pattern.fullmatch(rest))]
    if path[: len(ROOT)].lower() != ROOT or not at_path:
        raise ApiError(404, "NotFound", "There is nothing at this path.")
    for item, found in at_path:
        if item.method == method:
            return item, found.groups()
    methods = ", ".join(sorted(item.method for item, _ in at_path))
    raise ApiError(405, "MethodNotAllowed", f"This path takes {methods}.", headers={"Allow": methods})


def check_query(operation: Operation, pairs: Sequence[tuple[str, str]]) -> None:
    """Errors: ApiError 400 naming a parameter that the operation does not have, that is repeated, empty, or no text."""
    known = {name.lower() for name in (*operation.query, "api-version")}
    seen = set()
    for name, value in pairs:
        if name not in known:
            raise ApiError(
                400, "InvalidParameter", f"There is no query parameter '{name[:80]}' here.", target=name[:80]
            )
        if name in seen and name not in REPEATED:
            raise ApiError(400, "InvalidParameter", f"The query parameter '{name}' is given twice.", target=name)
        if not 0 < len(value) <= _MAX_PARAMETER or not _is_text(value):
            raise ApiError(
                400,
                "InvalidParameter",
                f"The query parameter '{name}' must be a text of 1 to {_MAX_PARAMETER} characters.",
                target=name,
            )
        seen.add(name)


def _is_text(value: str) -> bool:
    """False with NUL, which no database keeps, and with what was no UTF-8."""
    return "\x00" not in value and "\ufffd" not in value


def _carry_out(hub: Hub, http: Call) -> Reply | Response:
    operation, names = find(http.method, http.path)
    at = now()
    caller = ANYBODY
    if not operation.open:
        with hub.database.read() as session:
            caller = callers.authenticate(hub, session, http.headers.get("authorization"), at, tickets=False)
    return carry_out(operation, HubCall(hub, http, caller, names, at))


def carry_out(operation: Operation, call: HubCall) -> Reply | Response:
    """One operation of somebody who was authenticated; refused writes are audited.

    Errors: ApiError.
    """
    http = call.http
    try:
        check_query(operation, http.pairs)
        return operation.handler(call)
    except ApiError as error:
        if http.method in WRITES:
            action = error.action or operation.action or http.method
            target = error.about or http.path
            audit.refused(call.hub.database, call.actor, action, target, error.code, http.request_id)
        raise


async def endpoint(hub: Hub, request: Request) -> Response:
    """Every path of `/hawser/v1`; errors are raised, the edge writes them."""
    settings = hub.settings
    http = await read_call(request, CHANNEL_BODY, settings.url, settings.known_hosts)
    reply = await threads.run(_carry_out, hub, http, limiter=hub.limits.room)
    if isinstance(reply, Response):
        reply.headers["x-ms-request-id"] = http.request_id
        return reply
    headers = {"x-ms-request-id": http.request_id, "Cache-Control": "no-store", **reply.headers}
    return json_response(reply.status, reply.body, headers)

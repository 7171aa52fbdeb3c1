# SPDX-License-Identifier: Apache-2.0
"""The channel over HTTP, but for the check-in (docs/protocol.md section 6)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import Response

from control_plane import threads
from control_plane.arm.paths import machine_id
from control_plane.authority import audiences
from control_plane.authority import claims as rules
from control_plane.bodies import CHANNEL_BODY, REPORT_BODY, guid, integer, json_object, needed_text, unchecked
from control_plane.channel import callers, documents, enrol, identity, join, reports
from control_plane.channel.live import Record
from control_plane.clock import now
from control_plane.errors import ApiError, not_found
from control_plane.http import json_response, read_body
from control_plane.hub import Hub
from control_plane.storage.models import Audience, HubState, Machine

_NO_STORE = {"Cache-Control": "no-store"}


def desired(hub: Hub, record: Record, kind: str) -> dict[str, Any]:
    """GET /channel/v1/desired/{kind}.

    Errors: ApiError 404 `ResourceNotFound` (no machine), `DesiredStateNotFound` (no such kind, or generation 0).
    """
    absent = ApiError(404, "DesiredStateNotFound", f"There is no desired state of kind '{kind[:40]}' yet.")
    if kind not in documents.KINDS:
        raise absent
    with hub.database.read() as session:
        machine = session.get(Machine, record.machine_id)
        resource = machine_id(record.resource_id)
        if machine is None or resource is None:
            raise not_found(record.resource_id)
        trust = session.get_one(HubState, 1).trust_generation
        generation = {**machine.generations, "trust": trust}.get(kind, 0)
        if generation == 0:
            raise absent
        inner = documents.content(session, kind, machine, resource, hub.settings.tenant_id, hub.keys)
    payload = documents.payload(kind, machine.vm_id, str(resource), generation, inner, now())
    return {"kind": kind, "generation": generation, "document": documents.sign(payload, hub.keys)}


def exchange(hub: Hub, record: Record, body: dict[str, Any]) -> dict[str, Any]:
    """POST /channel/v1/tokens: an access token of the machine for an application on it, 24 hours.

    Errors: ApiError 400 `InvalidResource`.
    """
    callers.check_protocol(body)
    guid(body, "requestId")
    resource = needed_text(body, "resource", 2048)
    with hub.database.read() as session:
        added = session.scalars(select(Audience.uri)).all()
    if not audiences.is_known(resource, hub.settings.url, added) or audiences.folded(resource) == audiences.CHANNEL:
        raise ApiError(
            400,
            "InvalidResource",
            f"The resource '{resource[:200]}' is not known here. If it is an application of yours, add it with "
            "'hawser-hub audience add'.",
        )
    at = now()
    subject = rules.Subject(record.client_id, record.principal_id, record.resource_id)
    token = hub.tokens.issue(subject, resource, rules.CERTIFICATE, at, rules.MACHINE_SECONDS)
    return {
        "access_token": token,
        "expires_in": rules.MACHINE_SECONDS,
        "expires_on": at + rules.MACHINE_SECONDS,
        "not_before": at,
        "resource": resource,
        "token_type": "Bearer",
        "client_id": record.client_id,
        "object_id": record.principal_id,
    }


async def endpoint(hub: Hub, request: Request) -> Response:
    """Every path of the channel but `checkin`; errors are raised, the edge writes them."""
    path = request.scope["path"].removeprefix("/channel/v1/").rstrip("/")
    authorization = request.headers.get("authorization")
    if path.startswith("desired/"):
        _only(request, "GET")
        record = await callers.holder(hub, request.headers, now())
        answer = await threads.run(desired, hub, record, path.removeprefix("desired/"))
        return json_response(200, answer, _NO_STORE)
    if path == "checkin":
        _only(request, "POST")
    if path in ("identity", "join"):
        return await _nameless(hub, request, path)
    if path not in ("enrol", "report", "tokens", "renew"):
        raise ApiError(404, "NotFound", "There is nothing at this path.")
    _only(request, "POST")
    given = await read_body(request, REPORT_BODY if path == "report" else CHANNEL_BODY)
    body = unchecked(given) if path == "report" else json_object(given)
    if path == "enrol":
        return json_response(200, await threads.run(enrol.enrol, hub, authorization, body), _NO_STORE)
    callers.check_protocol(body)
    slot = None if path == "report" else integer(body, "slot", 1, 1 << 31)
    renews = path == "renew" and body.get("csr") is not None
    record = await callers.holder(hub, request.headers, now(), slot, renews=renews, certifies=path == "renew")
    handler = {"report": reports.accept, "tokens": exchange, "renew": enrol.renew}[path]
    return json_response(200, await threads.run(handler, hub, record, body), _NO_STORE)


async def _nameless(hub: Hub, request: Request, path: str) -> Response:
    """Machines whose identity is in doubt, or that have none: heard as fast as the hub can, never faster."""
    _only(request, "POST")
    peer = request.client.host if request.client else ""
    body = json_object(await read_body(request, CHANNEL_BODY))
    if path == "identity":
        reply = await identity.ask(hub, body, peer)
        return json_response(reply.status, reply.body, _NO_STORE)
    return json_response(200, await join.ask(hub, body, peer), _NO_STORE)


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise ApiError(405, "MethodNotAllowed", f"This path takes {method}.", headers={"Allow": method})

# SPDX-License-Identifier: Apache-2.0
"""From a bearer token to a caller with its roles, read anew from the database at every request: what is revoked
stops working at once."""

from __future__ import annotations

from sqlalchemy.orm import Session

from control_plane import logs
from control_plane.arm.roles import Caller, Grant
from control_plane.authority.audiences import TICKET, arm_audiences, folded
from control_plane.channel import enrolments
from control_plane.errors import ApiError
from control_plane.hub import Hub
from control_plane.storage import principals
from control_plane.storage.models import Ticket


def bearer(header: str | None) -> str:
    """The token of an `Authorization` header.

    Errors: ApiError 401 `AuthenticationFailed` without one.
    """
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ApiError(
            401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing or invalid."
        )
    return token.strip()


def challenge(hub: Hub, error: ApiError) -> ApiError:
    """Add the `WWW-Authenticate` header that clients expect on 401 (identity-and-arm-api.md C.1)."""
    if error.status == 401 and "WWW-Authenticate" not in error.headers:
        text = error.message.replace('"', "'")
        error.headers["WWW-Authenticate"] = (
            f'Bearer authorization_uri="{hub.settings.url}/{hub.settings.tenant_id}", error="invalid_token", '
            f'error_description="{text.encode("ascii", "replace").decode()}"'
        )
    return error


def authenticate(hub: Hub, session: Session, header: str | None, at: int, *, tickets: bool = True) -> Caller:
    """The caller behind an ARM token or, where `tickets` are taken, a ticket.

    Errors: ApiError 401, 429.
    """
    caller = _behind(hub, session, header, at, tickets=tickets)
    logs.known(caller.kind, caller.audit_name)
    hub.limits.request(caller.object_id)
    return caller


def _behind(hub: Hub, session: Session, header: str | None, at: int, *, tickets: bool) -> Caller:
    token = bearer(header)
    audiences = arm_audiences(hub.settings.url)
    claims = hub.tokens.verify(token, audiences | {folded(TICKET)} if tickets else audiences, at)
    if folded(claims["aud"]) == folded(TICKET):
        return _ticket(hub, session, str(claims.get("jti", "")), at)
    client_id, object_id = str(claims.get("appid", "")), str(claims["oid"])
    if "xms_mirid" in claims:
        return Caller("machine", client_id, object_id, str(claims["xms_mirid"]))
    return _principal(session, client_id)


def _principal(session: Session, client_id: str) -> Caller:
    principal = principals.find(session, client_id)
    if principal is None or principal.revoked is not None:
        raise ApiError(401, "InvalidAuthenticationToken", "The principal of the access token has been revoked.")
    held = principals.assignments(session, principal.object_id)
    return Caller("principal", principal.id, principal.object_id, principal.name, held)


def _ticket(hub: Hub, session: Session, ticket_id: str, at: int) -> Caller:
    ticket = session.get(Ticket, ticket_id)
    if ticket is None or ticket.expires <= at:
        raise ApiError(401, "ExpiredAuthenticationToken", "The ticket has expired.")
    maker = _principal(session, ticket.principal_id)
    operations = tuple((item["operation"], item["resourceId"].lower()) for item in ticket.operations)
    by_hub = ticket.principal_id == enrolments.speaker_id(hub.settings.tenant_id)
    grant = Grant(ticket.id, operations, frozenset(ticket.spent), by_hub)
    return Caller("ticket", maker.client_id, maker.object_id, maker.name, maker.assignments, grant)

# SPDX-License-Identifier: Apache-2.0
"""The authority over HTTP: discovery, keys, token endpoint (identity-and-arm-api.md B.1 to B.4)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import unquote_plus
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from control_plane import threads
from control_plane.authority import assertions, audiences, discovery, proofs
from control_plane.authority import claims as rules
from control_plane.bodies import CHANNEL_BODY, form, is_guid
from control_plane.clock import now
from control_plane.errors import ApiError, TokenError
from control_plane.http import Reply, error_of, json_response, read_body, token_error_body
from control_plane.hub import Hub
from control_plane.storage.models import Audience

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def check_tenant(hub: Hub, tenant: str) -> None:
    """Errors: TokenError 400 AADSTS90002 unless it is this hub's tenant, by GUID or domain, without case."""
    if tenant.lower() not in (hub.settings.tenant_id.lower(), hub.settings.tenant_domain.lower()):
        raise TokenError(
            400,
            "invalid_tenant",
            90002,
            f"Tenant '{tenant[:100]}' not found. Check to make sure you have the correct tenant ID and are signing "
            "into the correct cloud.",
        )


def _missing(name: str) -> TokenError:
    return TokenError(
        400, "invalid_request", 900144, f"The request body must contain the following parameter: '{name}'."
    )


def requested_resource(fields: Mapping[str, str], *, v2: bool) -> str:
    """The resource that a token request is about, literally.

    Errors: TokenError AADSTS900144 (missing), AADSTS1002012 (scope without `/.default`).
    """
    if not v2:
        resource = fields.get("resource", "")
        if not resource:
            raise _missing("resource")
        return resource
    scope = fields.get("scope", "").strip()
    if not scope:
        raise _missing("scope")
    found = audiences.resource_of_scope(scope)
    if found is None or " " in scope:
        raise TokenError(
            400,
            "invalid_scope",
            1002012,
            f"The provided value for scope {scope[:200]} is not valid. Client credential flows must have a scope "
            "value with /.default suffixed to the resource identifier (application ID URI).",
        )
    return found


def client_credentials(fields: Mapping[str, str], authorization: str | None) -> tuple[str, str | None]:
    """Client id and secret, from the body or a Basic header with form-encoded halves.

    Errors: TokenError AADSTS900144 without a client id.
    """
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError) as error:
            raise TokenError(400, "invalid_request", 900144, "The 'Authorization' header cannot be decoded.") from error
        return unquote_plus(name), unquote_plus(secret)
    client_id = fields.get("client_id", "")
    if not client_id:
        raise _missing("client_id")
    return client_id, fields.get("client_secret")


def _known_resource(hub: Hub, session: Session, resource: str) -> None:
    added = session.scalars(select(Audience.uri)).all()
    if len(resource) > 2048 or not audiences.is_known(resource, hub.settings.url, added):
        raise TokenError(
            400,
            "invalid_resource",
            500011,
            f"The resource principal named {resource[:200]} was not found in the tenant named "
            f"{hub.settings.tenant_domain}. If it is an application of yours, add it with "
            "'hawser-hub audience add'.",
        )


def token(hub: Hub, tenant: str, fields: Mapping[str, str], authorization: str | None, peer: str, *, v2: bool) -> Reply:
    """The token endpoint.

    Errors: TokenError as section B.4 tables them.
    """
    check_tenant(hub, tenant)
    grant = fields.get("grant_type", "")
    if not grant:
        raise _missing("grant_type")
    if grant != "client_credentials":
        raise TokenError(
            400, "unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{grant[:60]}'."
        )
    client_id, secret = client_credentials(fields, authorization)
    resource = requested_resource(fields, v2=v2)
    assertion = fields.get("client_assertion")
    at = now()
    if assertion is not None and fields.get("client_assertion_type") != assertions.ASSERTION_TYPE:
        raise _missing("client_assertion_type")
    hub.limits.token_attempt(client_id, peer)
    with hub.database.read() as session:
        try:
            if assertion is not None:
                proven = proofs.by_assertion(hub, session, client_id, assertion, v2, at)
            elif secret is not None:
                proven = proofs.by_secret(hub, session, client_id, secret, at)
            else:
                raise TokenError(
                    401,
                    "invalid_client",
                    7000218,
                    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
                )
        except TokenError:
            hub.limits.token_failed(client_id, peer)
            raise
        hub.limits.token(client_id)
        _known_resource(hub, session, resource)
    if proven.subject.resource_id is not None and audiences.folded(resource) != audiences.CHANNEL:
        # Whoever holds a copied key could ask here, unseen; the channel knows the holders apart.
        raise TokenError(
            400,
            "invalid_resource",
            650057,
            "The certificate of a machine gets tokens of the channel alone. Applications on the machine ask its agent "
            "(http://localhost:40342/metadata/identity/oauth2/token).",
        )
    return Reply(200, _answer(hub, proven, resource, at, v2=v2), NO_STORE)


def _answer(hub: Hub, proven: proofs.Proven, resource: str, at: int, *, v2: bool) -> dict[str, object]:
    """Members of section B.4; `scope`, `client_info` and `id_token` are left out (pitfall F.8)."""
    is_machine = proven.subject.resource_id is not None
    seconds = rules.CHANNEL_SECONDS if is_machine else hub.tokens.application_seconds()
    access_token = hub.tokens.issue(proven.subject, resource, proven.proof, at, seconds)
    if v2:
        return {
            "token_type": "Bearer",
            "expires_in": seconds,
            "ext_expires_in": seconds,
            "access_token": access_token,
        }
    return {
        "token_type": "Bearer",
        "expires_in": str(seconds),
        "ext_expires_in": str(seconds),
        "expires_on": str(at + seconds),
        "not_before": str(at),
        "resource": resource,
        "access_token": access_token,
    }


async def endpoint(hub: Hub, request: Request) -> Response:
    """Every path of the authority: `/{tenant}/…`."""
    correlation = request.headers.get("client-request-id", "")
    correlation = correlation.lower() if is_guid(correlation) else str(uuid4())
    try:
        reply = await _route(hub, request)
    except Exception as error:  # noqa: BLE001 - the edge: everything becomes an answer
        told = error_of(error)
        if not isinstance(told, TokenError):
            if told.status < 500 and told.status not in (404, 405):
                told = _as_token_error(told)
            else:
                return json_response(told.status, told.envelope(), {**NO_STORE, **told.headers})
        return json_response(told.status, token_error_body(told, correlation), {**NO_STORE, **told.headers})
    return json_response(reply.status, reply.body, {**reply.headers, "client-request-id": correlation})


def _as_token_error(error: ApiError) -> TokenError:
    told = TokenError(error.status, "invalid_request", 90014, error.message)
    told.headers = error.headers
    return told


# What clients name when no tenant is meant yet; `az logout` asks for the first.
_ANY_TENANT = frozenset({"organizations", "common"})


async def _route(hub: Hub, request: Request) -> Reply:
    tenant, _, rest = request.scope["path"].strip("/").partition("/")
    rest = rest.lower()
    settings = hub.settings
    if rest in ("oauth2/v2.0/token", "oauth2/token"):
        if request.method != "POST":
            raise ApiError(405, "MethodNotAllowed", "The token endpoint takes POST.", headers={"Allow": "POST"})
        fields = form(await read_body(request, CHANNEL_BODY))
        authorization = request.headers.get("authorization")
        peer = request.client.host if request.client else ""
        return await threads.run(token, hub, tenant, fields, authorization, peer, v2=rest != "oauth2/token")
    if request.method not in ("GET", "HEAD"):
        raise ApiError(405, "MethodNotAllowed", "This path takes GET.", headers={"Allow": "GET"})
    if tenant.lower() == "common" and rest == "discovery/instance":
        return _instance(hub, request.query_params.get("authorization_endpoint", ""))
    if rest in ("v2.0/.well-known/openid-configuration", ".well-known/openid-configuration"):
        if tenant.lower() not in _ANY_TENANT:
            check_tenant(hub, tenant)
        return Reply(200, discovery.configuration(settings.url, settings.tenant_id, v2=rest.startswith("v2.0")))
    if rest in ("discovery/v2.0/keys", "discovery/keys"):
        check_tenant(hub, tenant)
        return Reply(200, hub.tokens.jwks())
    raise ApiError(404, "NotFound", "There is nothing at this path.")


def _instance(hub: Hub, wanted: str) -> Reply:
    if not wanted.lower().startswith(f"{hub.settings.url.lower()}/"):
        raise TokenError(400, "invalid_instance", 50049, "Unknown or invalid instance.")
    return Reply(200, discovery.instance(hub.settings.url, hub.settings.tenant_id))

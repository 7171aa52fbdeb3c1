# SPDX-License-Identifier: Apache-2.0
"""The authority over HTTP: discovery, keys, token endpoint (identity-and-arm-api.md B.1 to B.4)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus
from uuid import uuid4

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from control_plane.arm.paths import MachineId
from control_plane.authority import assertions, audiences, discovery
from control_plane.authority import claims as rules
from control_plane.bodies import CHANNEL_BODY, form, is_guid
from control_plane.channel import slots
from control_plane.channel.verdict import Slot
from control_plane.clock import now
from control_plane.errors import ApiError, TokenError
from control_plane.http import Reply, error_of, json_response, read_body, token_error_body
from control_plane.hub import Hub
from control_plane.storage import principals
from control_plane.storage.models import Audience, Credential, Machine, ResourceGroup

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True)
class Proven:
    """A client that proved who it is. `proof`: the value of `appidacr`."""

    subject: rules.Subject
    proof: str


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


def _unknown_application(hub: Hub, client_id: str) -> TokenError:
    return TokenError(
        400,
        "unauthorized_client",
        700016,
        f"Application with identifier '{client_id[:64]}' was not found in the directory '{hub.settings.tenant_id}'.",
    )


def _by_secret(hub: Hub, session: Session, client_id: str, secret: str, at: int) -> Proven:
    principal = principals.find(session, client_id) if is_guid(client_id) else None
    if principal is None or principal.revoked is not None:
        raise _unknown_application(hub, client_id)
    match = principals.matching_secret(session, principal.id, secret)
    if match is None:
        raise TokenError(
            401,
            "invalid_client",
            7000215,
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
            f"not the client secret ID, for a secret added to app '{principal.id}'.",
        )
    if match.expires is not None and match.expires <= at:
        raise TokenError(
            401, "invalid_client", 7000222, f"The provided client secret keys for app '{principal.id}' are expired."
        )
    return Proven(rules.Subject(principal.id, principal.object_id), rules.SECRET)


def _machine(session: Session, client_id: str) -> tuple[Machine, str] | None:
    found = session.execute(
        select(Machine, ResourceGroup.name)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .where(Machine.client_id == client_id.lower(), Machine.enrolled.is_not(None))
    ).one_or_none()
    return (found[0], found[1]) if found else None


def _by_assertion(hub: Hub, session: Session, client_id: str, assertion: str, v2: bool, at: int) -> tuple[Proven, int]:
    """Machines prove themselves by assertion; principals' certificates would be looked up here as well."""
    header, claims = assertions.read(assertion)
    found = _machine(session, client_id)
    if found is None:
        raise _unknown_application(hub, client_id)
    machine, group = found
    for credential in session.scalars(select(Credential).where(Credential.machine_id == machine.id)):
        certificate = x509.load_pem_x509_certificate(credential.certificate.encode())
        if not assertions.matches(header, certificate):
            continue
        base = f"{hub.settings.url}/"
        names = (hub.settings.tenant_id, hub.settings.tenant_domain)
        endpoints = [f"{base}{name}/oauth2/{'v2.0/' if v2 else ''}token" for name in names]
        issuers = [f"{base}{name}/v2.0" for name in names] + [f"{base}{name}" for name in names]
        assertions.verify(assertion, header, claims, certificate, client_id, [*endpoints, *issuers], at)
        if credential.state == "retired":
            raise TokenError(
                401,
                "invalid_client",
                700027,
                "The certificate of the assertion was superseded by a newer one of the same machine.",
                suberror="superseded",
            )
        resource_id = str(MachineId(machine.subscription_id, group, machine.name))
        subject = rules.Subject(machine.client_id, machine.principal_id, resource_id, credential.slot)
        return Proven(subject, rules.CERTIFICATE), machine.id
    raise TokenError(
        401,
        "invalid_client",
        700027,
        "Client assertion failed signature validation. The key was not found: no certificate of the client has this "
        "thumbprint.",
    )


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


def token(hub: Hub, tenant: str, fields: Mapping[str, str], authorization: str | None, *, v2: bool) -> Reply:
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
    with hub.database.read() as session:
        machine_id = None
        if assertion is not None:
            if fields.get("client_assertion_type") != assertions.ASSERTION_TYPE:
                raise _missing("client_assertion_type")
            proven, machine_id = _by_assertion(hub, session, client_id, assertion, v2, at)
        elif secret is not None:
            proven = _by_secret(hub, session, client_id, secret, at)
        else:
            raise TokenError(
                401,
                "invalid_client",
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            )
        _known_resource(hub, session, resource)
    if machine_id is not None:
        _use_slot(hub, machine_id, proven.subject)
    return Reply(200, _answer(hub, proven, resource, at, v2=v2), NO_STORE)


def _use_slot(hub: Hub, machine_id: int, subject: rules.Subject) -> None:
    """The first use of a renewed certificate retires its predecessor, before anything is issued for it."""
    judged = slots.use(hub, machine_id, subject.slot or 0)
    if judged in (Slot.SUPERSEDED, Slot.UNKNOWN):
        raise TokenError(401, "invalid_client", 700027, "The certificate was superseded.", suberror="superseded")


def _answer(hub: Hub, proven: Proven, resource: str, at: int, *, v2: bool) -> dict[str, object]:
    """Members of section B.4; `scope`, `client_info` and `id_token` are left out (pitfall F.8)."""
    to_channel = audiences.folded(resource) == audiences.CHANNEL
    seconds = hub.tokens.application_seconds()
    if proven.subject.resource_id is not None:
        seconds = rules.CHANNEL_SECONDS if to_channel else rules.MACHINE_SECONDS
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


async def _route(hub: Hub, request: Request) -> Reply:
    tenant, _, rest = request.scope["path"].strip("/").partition("/")
    rest = rest.lower()
    settings = hub.settings
    if rest in ("oauth2/v2.0/token", "oauth2/token"):
        if request.method != "POST":
            raise ApiError(405, "MethodNotAllowed", "The token endpoint takes POST.", headers={"Allow": "POST"})
        fields = form(await read_body(request, CHANNEL_BODY))
        authorization = request.headers.get("authorization")
        return await run_in_threadpool(token, hub, tenant, fields, authorization, v2=rest != "oauth2/token")
    if request.method not in ("GET", "HEAD"):
        raise ApiError(405, "MethodNotAllowed", "This path takes GET.", headers={"Allow": "GET"})
    if tenant.lower() == "common" and rest == "discovery/instance":
        return _instance(hub, request.query_params.get("authorization_endpoint", ""))
    if rest in ("v2.0/.well-known/openid-configuration", ".well-known/openid-configuration"):
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

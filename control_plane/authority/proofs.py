# SPDX-License-Identifier: Apache-2.0
"""How a client of the token endpoint proves who it is: a principal by secret or certificate, a machine by certificate
(identity-and-arm-api.md B.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm.paths import MachineId
from control_plane.authority import assertions
from control_plane.authority import claims as rules
from control_plane.bodies import is_guid
from control_plane.channel import returning
from control_plane.errors import TokenError
from control_plane.hub import Hub
from control_plane.storage import principals
from control_plane.storage.models import Credential, Machine, Principal, ResourceGroup


@dataclass(frozen=True)
class Proven:
    """A client that proved who it is. `proof`: the value of `appidacr`."""

    subject: rules.Subject
    proof: str


def _unknown_application(hub: Hub, client_id: str) -> TokenError:
    return TokenError(
        400,
        "unauthorized_client",
        700016,
        f"Application with identifier '{client_id[:64]}' was not found in the directory '{hub.settings.tenant_id}'.",
    )


def _unknown_key() -> TokenError:
    return TokenError(
        401,
        "invalid_client",
        700027,
        "Client assertion failed signature validation. The key was not found: no certificate of the client has this "
        "thumbprint.",
    )


def _principal(session: Session, client_id: str) -> Principal | None:
    found = principals.find(session, client_id) if is_guid(client_id) else None
    return found if found is not None and found.revoked is None else None


def by_secret(hub: Hub, session: Session, client_id: str, secret: str, at: int) -> Proven:
    """A principal with one of its secrets.

    Errors: TokenError AADSTS700016 (unknown), AADSTS7000215 (wrong), AADSTS7000222 (expired).
    """
    principal = _principal(session, client_id)
    if principal is None:
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


def by_assertion(hub: Hub, session: Session, client_id: str, assertion: str, v2: bool, at: int) -> Proven:
    """A machine or a principal with an assertion signed by a certificate that is registered for it. What the assertion
    brings along (`x5c`, `jwk`, `kid`) is never believed; an assertion may be used again until it expires.

    Errors: TokenError as assertions.read() and verify(); AADSTS700016 (unknown), AADSTS700027 (no such certificate).
    """
    header, claims = assertions.read(assertion)
    audiences = _audiences(hub, v2)
    principal = _principal(session, client_id)
    if principal is not None:
        for item in principals.certificates_of(session, principal.id):
            certificate = x509.load_pem_x509_certificate(item.certificate.encode())
            if assertions.matches(header, certificate):
                assertions.verify(assertion, header, claims, certificate, client_id, audiences, at)
                return Proven(rules.Subject(principal.id, principal.object_id), rules.CERTIFICATE)
        raise _unknown_key()
    machine = _machine(session, client_id)
    presented = (assertion, header, claims)
    found = _by_slot(session, *machine, presented, client_id, audiences, at) if machine else None
    if found is not None:
        return found
    returned = returning.prove(hub, presented, client_id, audiences, at)
    if returned is not None:
        return Proven(returned[0], rules.CERTIFICATE)
    raise _unknown_key() if machine else _unknown_application(hub, client_id)


def _audiences(hub: Hub, v2: bool) -> list[str]:
    """The token endpoint under every name of the hub, and the issuers: clients build the URL from what they were told
    the authority is."""
    settings = hub.settings
    origins = {settings.url, *(f"https://{host}" for host in settings.known_hosts)}
    tenants = (settings.tenant_id, settings.tenant_domain)
    tails = ("oauth2/v2.0/token" if v2 else "oauth2/token", "v2.0", "")
    return [f"{origin}/{tenant}/{tail}" for origin in sorted(origins) for tenant in tenants for tail in tails]


def _machine(session: Session, client_id: str) -> tuple[Machine, str] | None:
    found = session.execute(
        select(Machine, ResourceGroup.name)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .where(Machine.client_id == client_id.lower(), Machine.enrolled.is_not(None))
    ).one_or_none()
    return (found[0], found[1]) if found else None


def _by_slot(
    session: Session,
    machine: Machine,
    group: str,
    presented: tuple[str, assertions.Header, dict[str, Any]],
    client_id: str,
    audiences: Iterable[str],
    at: int,
) -> Proven | None:
    assertion, header, claims = presented
    for credential in session.scalars(select(Credential).where(Credential.machine_id == machine.id)):
        certificate = x509.load_pem_x509_certificate(credential.certificate.encode())
        if not assertions.matches(header, certificate):
            continue
        assertions.verify(assertion, header, claims, certificate, client_id, audiences, at)
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
        return Proven(subject, rules.CERTIFICATE)
    return None

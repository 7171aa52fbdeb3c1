# SPDX-License-Identifier: Apache-2.0
"""Service principals: making, finding, checking secrets, revoking."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from uuid import uuid4

from cryptography import x509
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from control_plane import pki
from control_plane.clock import now
from control_plane.storage.models import Principal, PrincipalCertificate, PrincipalSecret, RoleAssignment


def new_secret() -> str:
    """43 random characters (256 bits)."""
    return secrets.token_urlsafe(32)


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode("utf-8", "surrogateescape")).digest()


def create(session: Session, name: str, role: str, scope: str) -> Principal:
    """A principal with one role and no credential yet."""
    at = now()
    principal = Principal(
        id=str(uuid4()), object_id=str(uuid4()), name=name, name_key=name.lower(), created=at, revoked=None
    )
    session.add(principal)
    session.flush()
    assign(session, principal.object_id, role, scope, at)
    return principal


def add_secret(session: Session, client_id: str, secret: str, expires: int | None) -> PrincipalSecret:
    """Another secret, stored salted and hashed. `expires`: Unix seconds, None: never."""
    salt = secrets.token_bytes(16)
    made = PrincipalSecret(
        id=str(uuid4()),
        principal_id=client_id,
        salt=salt,
        digest=_digest(salt, secret),
        created=now(),
        expires=expires,
    )
    session.add(made)
    return made


def add_certificate(session: Session, client_id: str, certificate: x509.Certificate) -> bool:
    """Another certificate. False when the principal has it already."""
    if session.get(PrincipalCertificate, (client_id, pki.thumbprint(certificate))) is not None:
        return False
    session.add(
        PrincipalCertificate(
            principal_id=client_id,
            thumbprint=pki.thumbprint(certificate),
            certificate=pki.certificate_pem(certificate).decode("ascii"),
            created=now(),
            expires=int(certificate.not_valid_after_utc.timestamp()),
        )
    )
    return True


def certificates_of(session: Session, client_id: str) -> Sequence[PrincipalCertificate]:
    """Every certificate of a principal, expired ones too."""
    query = select(PrincipalCertificate).where(PrincipalCertificate.principal_id == client_id)
    return session.scalars(query.order_by(PrincipalCertificate.created, PrincipalCertificate.thumbprint)).all()


def find(session: Session, client_id: str) -> Principal | None:
    """By client id, without case; revoked ones too."""
    return session.get(Principal, client_id.lower())


def find_by_name_or_id(session: Session, text: str) -> Principal | None:
    """By name, client id or object id, without case."""
    key = text.lower()
    return session.scalars(
        select(Principal).where(or_(Principal.name_key == key, Principal.id == key, Principal.object_id == key))
    ).first()


def assign(
    session: Session, object_id: str, role: str, scope: str, at: int, by: str | None = None, name: str | None = None
) -> tuple[RoleAssignment, bool]:
    """Give a role; (the one there is, False) when it is held at this very scope already. `name`: a GUID for its id."""
    for item in session.scalars(
        select(RoleAssignment).where(RoleAssignment.object_id == object_id, RoleAssignment.role == role)
    ):
        if item.scope.lower() == scope.lower():
            return item, False
    made = RoleAssignment(
        id=name or str(uuid4()), object_id=object_id, role=role, scope=scope, created=at, created_by=by
    )
    session.add(made)
    return made, True


def assignments(session: Session, object_id: str) -> tuple[tuple[str, str], ...]:
    """Pairs (role, scope)."""
    found = session.scalars(select(RoleAssignment).where(RoleAssignment.object_id == object_id))
    return tuple((item.role, item.scope) for item in found)


def all_principals(session: Session) -> Sequence[Principal]:
    """In the order of their creation."""
    return session.scalars(select(Principal).order_by(Principal.created, Principal.name_key)).all()


def secrets_of(session: Session, client_id: str) -> Sequence[PrincipalSecret]:
    """Every secret of a principal, expired ones too."""
    query = select(PrincipalSecret).where(PrincipalSecret.principal_id == client_id)
    return session.scalars(query.order_by(PrincipalSecret.created, PrincipalSecret.id)).all()


def matching_secret(session: Session, client_id: str, given: str) -> PrincipalSecret | None:
    """The stored secret that `given` is. Every one is compared, in constant time."""
    match = None
    for item in secrets_of(session, client_id):
        if hmac.compare_digest(item.digest, _digest(item.salt, given)):
            match = item
    return match

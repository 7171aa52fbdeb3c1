# SPDX-License-Identifier: Apache-2.0
"""What a service principal proves itself with: secrets of our making, certificates of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy.orm import Session

from control_plane import pki
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.operate.secrets import check_absent, write_secret
from control_plane.setup import operator
from control_plane.storage import audit
from control_plane.storage import principals as stored
from control_plane.storage.models import Principal

MAX_EACH = 20
_MAX_FILE = 256 * 1024


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file, which may hold a chain and a key too; they are left alone.

    Errors: OperatorError: unreadable, no certificate, not RSA of 2048 to 8192 bits, expired.
    """
    remedy = "Name a PEM file that begins with the principal's own certificate."
    try:
        with path.open("rb") as stream:
            found = x509.load_pem_x509_certificates(stream.read(_MAX_FILE))[0]
        key = found.public_key()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", remedy) from error
    except ValueError as error:
        raise OperatorError(f"{path} holds no certificate.", remedy) from error
    if not isinstance(key, rsa.RSAPublicKey) or not pki.MIN_RSA_BITS <= key.key_size <= 8192:
        raise OperatorError(
            f"The certificate in {path} has no RSA key of 2048 to 8192 bits.",
            "Make one with such a key: assertions are signed with PS256 or RS256.",
        )
    if found.not_valid_after_utc.timestamp() <= now():
        raise OperatorError(f"The certificate in {path} has expired.", "Make a new one.")
    return found


def certificate_told(certificate: x509.Certificate) -> dict[str, Any]:
    """How a certificate is shown: both thumbprints in hex, as other tools print them."""
    return {
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "sha1": certificate.fingerprint(hashes.SHA1()).hex(),  # noqa: S303 - a name, not a proof
        "subject": certificate.subject.rfc4514_string(),
        "notAfter": rfc3339(int(certificate.not_valid_after_utc.timestamp())),
    }


def _named(session: Session, name_or_id: str) -> Principal:
    found = stored.find_by_name_or_id(session, name_or_id)
    if found is None:
        raise OperatorError(f"There is no principal '{name_or_id}'.", "See 'hawser-hub principal list'.")
    if found.revoked is not None:
        raise OperatorError(f"The principal '{found.name}' is revoked.", "Make another one.")
    return found


def _room(count: int, what: str) -> None:
    if count >= MAX_EACH:
        raise OperatorError(f"A principal has at most {MAX_EACH} {what}.", "Remove one that is not used any more.")


def add_secret(data: Path, name: str, valid_days: int | None, file: Path | None) -> dict[str, Any]:
    """Another secret; it goes to the file, or into the answer.

    Errors: OperatorError; nothing is made then.
    """
    if file is not None:
        check_absent(file)
    secret, expires = stored.new_secret(), now() + valid_days * 86400 if valid_days else None
    with opened(data) as (database, _config), database.write() as session:
        principal = _named(session, name)
        _room(len(stored.secrets_of(session, principal.id)), "secrets")
        made = stored.add_secret(session, principal.id, secret, expires)
        detail = {"name": principal.name, "secret": made.id}
        audit.record(session, operator(), "principal/secret/add", principal.id, detail=detail)
        if file is not None:
            write_secret(file, secret)
    shown = {"id": made.id, "created": rfc3339(made.created), "expires": rfc3339(expires) if expires else None}
    return {**shown, **({"clientSecretFile": str(file)} if file else {"clientSecret": secret})}


def secrets_of(data: Path, name: str) -> list[dict[str, Any]]:
    """Ids and times of every secret.

    Errors: OperatorError.
    """
    with opened(data) as (database, _config), database.read() as session:
        return [
            {
                "id": item.id,
                "created": rfc3339(item.created),
                "expires": rfc3339(item.expires) if item.expires else None,
            }
            for item in stored.secrets_of(session, _named(session, name).id)
        ]


def remove_secret(data: Path, name: str, secret_id: str) -> None:
    """Take a secret away; tokens that it bought live on until they expire, at most 90 minutes.

    Errors: OperatorError.
    """
    with opened(data) as (database, _config), database.write() as session:
        principal = _named(session, name)
        found = [item for item in stored.secrets_of(session, principal.id) if item.id == secret_id.lower()]
        if not found:
            raise OperatorError(
                f"'{principal.name}' has no secret '{secret_id}'.", f"See 'hawser-hub principal secret list {name}'."
            )
        session.delete(found[0])
        detail = {"name": principal.name, "secret": found[0].id}
        audit.record(session, operator(), "principal/secret/remove", principal.id, detail=detail)


def add_certificate(data: Path, name: str, path: Path) -> tuple[dict[str, Any], bool]:
    """Another certificate. (how it is shown, False) when the principal had it already.

    Errors: OperatorError.
    """
    certificate = read_certificate(path)
    shown = certificate_told(certificate)
    with opened(data) as (database, _config), database.write() as session:
        principal = _named(session, name)
        _room(len(stored.certificates_of(session, principal.id)), "certificates")
        fresh = stored.add_certificate(session, principal.id, certificate)
        if fresh:
            detail = {"name": principal.name, "sha256": shown["sha256"]}
            audit.record(session, operator(), "principal/certificate/add", principal.id, detail=detail)
    return shown, fresh


def certificates_of(data: Path, name: str) -> list[dict[str, Any]]:
    """Every certificate, expired ones too.

    Errors: OperatorError.
    """
    with opened(data) as (database, _config), database.read() as session:
        return [
            certificate_told(x509.load_pem_x509_certificate(item.certificate.encode()))
            for item in stored.certificates_of(session, _named(session, name).id)
        ]


def remove_certificate(data: Path, name: str, thumbprint: str) -> None:
    """Take a certificate away, named by SHA-256 or SHA-1 in hex, with or without colons.

    Errors: OperatorError.
    """
    wanted = thumbprint.replace(":", "").lower()
    with opened(data) as (database, _config), database.write() as session:
        principal = _named(session, name)
        for item in stored.certificates_of(session, principal.id):
            shown = certificate_told(x509.load_pem_x509_certificate(item.certificate.encode()))
            if wanted in (shown["sha256"], shown["sha1"]):
                session.delete(item)
                detail = {"name": principal.name, "sha256": shown["sha256"]}
                audit.record(session, operator(), "principal/certificate/remove", principal.id, detail=detail)
                return
        raise OperatorError(
            f"'{principal.name}' has no certificate '{thumbprint}'.",
            f"See 'hawser-hub principal certificate list {name}'.",
        )

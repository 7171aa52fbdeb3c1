# SPDX-License-Identifier: Apache-2.0
"""`hawser-hub init`: everything a hub needs, made once. hub.json is written last; without it nothing counts as made."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import select

from control_plane import config, keyring, settings
from control_plane.bodies import is_guid
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.hub import open_database
from control_plane.settings import Settings
from control_plane.storage import address, audit
from control_plane.storage.database import DATABASE_FILE, Database
from control_plane.storage.engines import UNAVAILABLE, described
from control_plane.storage.models import HubState, Location, Subscription

_LOCATION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9-]{0,59}$")
_DOMAIN = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
_RESERVED = frozenset(
    {"subscriptions", "providers", "tenants", "metadata", "batch", "channel", "hawser", "healthz", "common", "adfs"}
)


@dataclass(frozen=True)
class Request:
    """What the operator asked for; None: choose."""

    url: str
    locations: tuple[tuple[str, str], ...]
    tenant_id: str | None
    tenant_domain: str
    subscription_id: str | None
    subscription_name: str
    sans: tuple[str, ...]
    certificate: Path | None
    key: Path | None
    ca: Path | None
    database: str | None = None
    database_password_file: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """`changed` False: the directory held a hub already. `locations`: (name, display name)."""

    changed: bool
    settings: Settings
    subscription_id: str
    locations: tuple[tuple[str, str], ...]


def parse_locations(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`NAME=DISPLAY` or `NAME`; `local=Local` when none is given.

    Errors: OperatorError.
    """
    found: dict[str, str] = {}
    for text in texts or ("local=Local",):
        name, _, display = text.partition("=")
        if not _LOCATION.match(name) or len(display) > 128:
            raise OperatorError(
                f"'{text}' is not a location.",
                "Write NAME=DISPLAY with letters, digits and '-' in NAME: ber1='Berlin 1'.",
            )
        found[name.lower()] = display or name
    return tuple(found.items())


def _guid(text: str | None, option: str) -> str:
    if text is None:
        return str(uuid4())
    if not is_guid(text):
        raise OperatorError(f"{option} must be a GUID, not '{text}'.", "Leave it out to have one made.")
    return text.lower()


def _given_tls(request: Request, host: str) -> tuple[bytes, bytes, bytes] | None:
    """Errors: OperatorError when certificate, key and CA do not belong together or do not fit the URL."""
    if request.certificate is None and request.key is None:
        return None
    if request.certificate is None or request.key is None:
        raise OperatorError("--certificate and --key go together.", "Give both, or neither to use the hub's own CA.")
    try:
        chain_pem, key_pem = request.certificate.read_bytes(), request.key.read_bytes()
        chain = x509.load_pem_x509_certificates(chain_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
        ca_pem = request.ca.read_bytes() if request.ca else b""
        if request.ca:
            x509.load_pem_x509_certificates(ca_pem)
    except (OSError, ValueError, TypeError) as error:
        raise OperatorError(
            f"The given certificate or key cannot be read ({error}).", "Give PEM files; the key without a password."
        ) from error
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
        raise OperatorError("The key does not belong to the certificate.", "Give the key it was issued for.")
    if not _covers(chain[0], host):
        raise OperatorError(
            f"The certificate does not name '{host}'.", "Use a URL that is among its subjectAltNames, or another one."
        )
    if not ca_pem:
        rest = chain[1:] or ([chain[0]] if chain[0].issuer == chain[0].subject else [])
        if not rest:
            raise OperatorError(
                "The certificate file holds no issuer.", "Append the CA's certificate to it, or name it with --ca."
            )
        ca_pem = b"".join(item.public_bytes(serialization.Encoding.PEM) for item in rest)
    return chain_pem, key_pem, ca_pem


def _covers(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    dns = [item.lower() for item in names.get_values_for_type(x509.DNSName)]
    addresses = [str(item) for item in names.get_values_for_type(x509.IPAddress)]
    wildcard = "*." + host.lower().partition(".")[2]
    return host.lower() in dns or host in addresses or wildcard in dns


def _existing(data: Path, request: Request) -> Outcome:
    found = settings.load(data)
    if settings.check_url(request.url) != found.url:
        raise OperatorError(
            f"{data} holds a hub for {found.url} already.", "Use that address, or another data directory."
        )
    database = open_database(data)
    try:
        with database.read() as session:
            subscription = session.scalars(select(Subscription.id).order_by(Subscription.created)).first()
            places = session.execute(select(Location.name, Location.display_name).order_by(Location.name)).all()
    finally:
        database.close()
    return Outcome(False, found, subscription or "", tuple((name, display) for name, display in places))


def init(data: Path, request: Request) -> Outcome:
    """Make a hub in `data`, or find the one that is there.

    Errors: OperatorError; nothing counts as made then, and the command can simply be run again.
    """
    if settings.is_initialised(data):
        return _existing(data, request)
    url = settings.check_url(request.url)
    domain = request.tenant_domain.lower()
    if not _DOMAIN.match(domain) or domain in _RESERVED:
        raise OperatorError(f"'{request.tenant_domain}' cannot be the tenant's domain.", "Use a name like example.org.")
    for name in request.sans:
        if not _DOMAIN.match(name) and ":" not in name:
            raise OperatorError(f"'{name}' is no host name or address.", "Give --san a name or an IP address.")
    decided = Settings(
        schema=1,
        url=url,
        tenant_id=_guid(request.tenant_id, "--tenant-id"),
        tenant_domain=domain,
        sans=request.sans,
        own_certificate=request.certificate is None,
        created=rfc3339(now()),
    )
    subscription_id = _guid(request.subscription_id, "--subscription-id")
    given = _given_tls(request, decided.host)
    try:
        data.mkdir(parents=True, exist_ok=True)
        os.chmod(data, 0o700)
        for suffix in ("", "-wal", "-shm"):
            (data / f"{DATABASE_FILE}{suffix}").unlink(missing_ok=True)
        if request.database is not None:
            _name_database(data, request.database, request.database_password_file)
        keyring.create(data, decided, given)
        _fill(data, request, subscription_id)
        settings.save(data, decided)
    except OSError as error:
        raise OperatorError(
            f"{error.filename or data} cannot be written ({error.strerror}).",
            "Run the command as the hub's user, with free space on the file system.",
        ) from error
    return Outcome(True, decided, subscription_id, request.locations)


def _name_database(data: Path, url: str, password_file: Path | None) -> None:
    """Section `database` of DATA/config.yaml; other sections stay, comments do not.

    Errors: OperatorError when the database cannot be used; the file is not changed then.
    """
    section = {"url": url, **({"password_file": str(password_file.absolute())} if password_file else {})}
    database = Database(address.url(section))
    try:
        database.check()
    finally:
        database.close()
    path = data / config.CONFIG_FILE
    if config.load(data).get("database") == section:
        return
    sections = (yaml.safe_load(path.read_bytes()) if path.exists() else None) or {}
    settings.write_file(path, yaml.safe_dump({**sections, "database": section}, sort_keys=False).encode())


def _fill(data: Path, request: Request, subscription_id: str) -> None:
    database = open_database(data)
    try:
        database.check()
        database.migrate()
        if database.path is not None:
            os.chmod(database.path, 0o600)
        with database.write() as session:
            if session.get(HubState, 1) is not None:
                raise OperatorError(
                    "The database holds a hub already.",
                    "Name an empty database. To run another process of that hub, copy its data directory instead.",
                )
            session.add(HubState(id=1, epoch=1, clean=True, trust_generation=1))
            session.add(Subscription(id=subscription_id, name=request.subscription_name, created=now()))
            session.add_all(Location(name=name, display_name=display) for name, display in request.locations)
            audit.record(session, operator(), "hub/init", request.url)
    except UNAVAILABLE as error:
        raise OperatorError(
            f"The database cannot be used ({described(error)}).",
            "Check rights and free space.",
        ) from error
    finally:
        database.close()


def operator() -> audit.Actor:
    """Who works on the command line, as the audit names them."""
    return audit.Actor("operator", os.environ.get("SUDO_USER") or f"uid {os.getuid()}")

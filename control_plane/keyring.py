# SPDX-License-Identifier: Apache-2.0
"""The hub's keys on disk (DATA/keys, 0700; every file 0600) and in memory.

ca.crt, ca.key                    the hub's own CA (no key when certificates were given); during a rotation ca.crt holds
                                  the old one too, and ca-cross.crt the new one signed by the old (trust.py)
tls.crt, tls.key                  what the server shows; tls-next.key: a key whose certificate is being issued
machine-ca.crt, machine-ca.key    signs machine certificates
token.crt, token.key, token-*.pem RS256, sign access tokens (token_keys.py)
desired.key                       Ed25519, signs desired-state documents; desired-next.key: published, not signing yet
tuf-snapshot.key, tuf-timestamp.key
                                  Ed25519, sign those roles of the repository of packages (artefacts/keys.py)
paging.key                        32 random bytes, authenticates $skiptoken
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from control_plane import pki, token_keys
from control_plane.errors import OperatorError
from control_plane.settings import Settings, sync, write_file


@dataclass(frozen=True)
class Keyring:
    """Loaded once by `serve`; nothing here is ever logged or sent."""

    ca_pem: str
    machine_ca: pki.Authority
    token_keys: tuple[token_keys.TokenKey, ...]
    desired_key: ed25519.Ed25519PrivateKey
    paging_key: bytes
    desired_next: ed25519.Ed25519PrivateKey | None = None

    @property
    def lease_key(self) -> bytes:
        """What nonces are sealed with (channel/branches.py): the same in every process, without another file. One
        purpose is kept apart from another by what is hashed with the key."""
        return hashlib.sha256(b"hawser lease key\0" + self.paging_key).digest()

    @property
    def settings_key(self) -> bytes:
        """What protected settings are recognised by (extensions/envelope.py)."""
        return hashlib.sha256(b"hawser settings key\0" + self.paging_key).digest()

    @property
    def desired_jwk(self) -> dict[str, str]:
        """Public half of the desired-state key as a JWK with `kid`."""
        return pki.desired_jwk(self.desired_key)

    @property
    def desired_jwks(self) -> list[dict[str, str]]:
        """What machines are to believe: the key that signs, and its successor while there is one."""
        return [pki.desired_jwk(key) for key in (self.desired_key, self.desired_next) if key is not None]


def folder(data: Path) -> Path:
    """DATA/keys."""
    return data / "keys"


def ca_file(data: Path) -> Path:
    """The certificate that clients of this hub have to trust."""
    return folder(data) / "ca.crt"


def create(data: Path, settings: Settings, given: tuple[bytes, bytes, bytes] | None) -> None:
    """Make every key and certificate. `given`: (certificate chain, key, CA) in PEM instead of our own TLS."""
    keys = folder(data)
    keys.mkdir(mode=0o700, exist_ok=True)
    os.chmod(keys, 0o700)
    if given is None:
        ca = pki.make_ca(f"hawser hub CA {settings.host}", path_length=1)
        write_file(keys / "ca.key", pki.key_pem(ca.key))
        write_file(keys / "ca.crt", pki.certificate_pem(ca.certificate), 0o644)
        issue_tls(data, settings, ca)
    else:
        chain, key, ca_pem = given
        write_file(keys / "ca.crt", ca_pem, 0o644)
        write_file(keys / "tls.crt", chain)
        write_file(keys / "tls.key", key)
    machine_ca = pki.make_ca(f"hawser machine CA {settings.tenant_id}")
    write_file(keys / "machine-ca.key", pki.key_pem(machine_ca.key))
    write_file(keys / "machine-ca.crt", pki.certificate_pem(machine_ca.certificate))
    token_keys.make(keys, settings.tenant_id)
    write_file(keys / "desired.key", pki.key_pem(ed25519.Ed25519PrivateKey.generate()))
    write_file(keys / "paging.key", secrets.token_bytes(32))


def issue_tls(data: Path, settings: Settings, ca: pki.Authority) -> None:
    """Make the server's certificate for the URL's host and the further names."""
    keys = folder(data)
    key, certificate = pki.make_tls(ca, [settings.host, *settings.sans])
    # Under another name until its certificate is there, so that a crash between the two files is told from an
    # operator who copies the second one of his own.
    write_file(keys / "tls-next.key", pki.key_pem(key))
    cross = keys / "ca-cross.crt"
    chain = pki.certificate_pem(certificate) + (cross.read_bytes() if cross.exists() else b"")
    write_file(keys / "tls.crt", chain + pki.certificate_pem(ca.certificate))
    _finish_issue(keys)


def _finish_issue(keys: Path) -> None:
    """Put the waiting key into its place when tls.crt is its certificate. Another process may do so meanwhile."""
    if _belongs(keys / "tls.crt", keys / "tls-next.key") is None:
        return
    with contextlib.suppress(FileNotFoundError):
        os.replace(keys / "tls-next.key", keys / "tls.key")
    sync(keys)


def _belongs(certificate_file: Path, key_file: Path) -> x509.Certificate | None:
    """The certificate, when both files can be read and belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        fits = _private(key_file).public_key() == certificate.public_key()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return certificate if fits else None


def own_tls(data: Path) -> x509.Certificate | None:
    """What the server shows, when the hub's own CA (or the one that follows it) issued it and its key belongs; an issue
    that was interrupted is finished. None: the pair is the operator's, or cannot be used."""
    keys = folder(data)
    _finish_issue(keys)
    certificate = _belongs(keys / "tls.crt", keys / "tls.key")
    if certificate is None:
        return None
    for name in ("ca", "ca-next"):
        with contextlib.suppress(OSError, ValueError):
            if pki.issued_by(certificate, authority(data, name).certificate):
                return certificate
    return None


def renew_tls(data: Path, settings: Settings, days: int = 60) -> bool:
    """Make the TLS certificate anew when our own CA issued it and fewer than `days` remain, or when neither it nor a
    key is there. Any other file is the operator's, and never written to. True if it was made."""
    if not settings.own_certificate:
        return False
    certificate = own_tls(data)
    if certificate is None:
        due = not any((folder(data) / name).exists() for name in ("tls.crt", "tls.key"))
    else:
        due = (certificate.not_valid_after_utc - datetime.now(UTC)).days < days
    if due:
        issue_tls(data, settings, authority(data, "ca"))
    return due


def _private(path: Path) -> PrivateKeyTypes:
    return serialization.load_pem_private_key(path.read_bytes(), password=None)


def authority(data: Path, name: str) -> pki.Authority:
    """A CA of DATA/keys: its key, and of the certificates in NAME.crt the one that belongs to it.

    Errors: OSError, ValueError.
    """
    key = _private(folder(data) / f"{name}.key")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{name}.key is not an EC key")
    for certificate in x509.load_pem_x509_certificates((folder(data) / f"{name}.crt").read_bytes()):
        if certificate.public_key() == key.public_key():
            return pki.Authority(certificate, key)
    raise ValueError(f"{name}.crt does not hold the certificate of {name}.key")


def load(data: Path) -> Keyring:
    """Read DATA/keys.

    Errors: OperatorError when a file is missing, unreadable or damaged.
    """
    keys = folder(data)
    try:
        desired_key = _private(keys / "desired.key")
        after = keys / "desired-next.key"
        desired_next = _private(after) if after.exists() else None
        if not isinstance(desired_key, ed25519.Ed25519PrivateKey):
            raise ValueError("desired.key is of another type")
        if desired_next is not None and not isinstance(desired_next, ed25519.Ed25519PrivateKey):
            raise ValueError("desired-next.key is of another type")
        return Keyring(
            ca_pem=ca_file(data).read_text("ascii"),
            machine_ca=authority(data, "machine-ca"),
            token_keys=token_keys.load(keys),
            desired_key=desired_key,
            desired_next=desired_next,
            paging_key=(keys / "paging.key").read_bytes(),
        )
    except PermissionError as error:
        raise OperatorError(f"{error.filename} cannot be read.", "Run as root or as the hub's user.") from error
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"The keys in {keys} cannot be loaded ({error}).", "Restore them from the backup."
        ) from error

# SPDX-License-Identifier: Apache-2.0
"""Rotation of what machines trust: the hub's CA, and the key that signs desired state. Files below DATA/keys alone.

A rotation has two steps. `begin` puts the successor beside what is in force: the new CA is signed by the old one too,
so that whoever trusts the old CA alone is served as before, and machines are told of both. `finish` takes the old one
away, when every machine has said that it believes the successor. Each step may be killed anywhere and run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519

from control_plane import keyring, pki
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.settings import Settings, write_file

CA, DESIRED = "ca", "desired-state-key"
SUBJECTS = (CA, DESIRED)


@dataclass(frozen=True)
class Anchors:
    """What machines are to believe: fingerprints (SHA-256, hex) of CAs, names of keys. `*_staying`: what is left when
    the rotation has finished; equal to the whole when none is under way."""

    cas: frozenset[str]
    cas_staying: frozenset[str]
    kids: frozenset[str]
    kids_staying: frozenset[str]

    def under_way(self, subject: str) -> bool:
        """True between `begin` and `finish` of a subject."""
        return self.cas != self.cas_staying if subject == CA else self.kids != self.kids_staying


def _print(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def read(data: Path, keys: keyring.Keyring) -> Anchors:
    """The state of both rotations."""
    bundle = frozenset(_print(item) for item in x509.load_pem_x509_certificates(keys.ca_pem.encode("ascii")))
    staying = bundle
    if (keyring.folder(data) / "ca-cross.crt").exists():
        staying = bundle - {_print(item) for item in _former(data)}
    names = frozenset(item["kid"] for item in keys.desired_jwks)
    after = keys.desired_next or keys.desired_key
    return Anchors(bundle, staying, names, frozenset({pki.desired_jwk(after)["kid"]}))


def _former(data: Path) -> list[x509.Certificate]:
    """Of ca.crt, the CA that the rotation under way takes out of use, which has signed the way to its successor; others
    are the operator's."""
    cross = x509.load_pem_x509_certificate((keyring.folder(data) / "ca-cross.crt").read_bytes())
    there = x509.load_pem_x509_certificates(keyring.ca_file(data).read_bytes())
    return [item for item in there if pki.issued_by(cross, item)]


def believes(report: Mapping[str, Any] | None, anchors: Anchors) -> bool:
    """Whether a machine's last report of kind `trust` names all that stays. Pure."""
    if report is None:
        return False
    cas, kids = report.get("caSha256"), report.get("kids")
    if not isinstance(cas, list) or not isinstance(kids, list):
        return False
    return anchors.cas_staying <= {str(item) for item in cas} and anchors.kids_staying <= {str(item) for item in kids}


def lagging(machines: Iterable[tuple[str, Mapping[str, Any] | None]], anchors: Anchors) -> list[str]:
    """Names of machines, given as (name, report), that would be cut off by `finish`. Pure."""
    return sorted(name for name, report in machines if not believes(report, anchors))


def begin_ca(data: Path, settings: Settings) -> bool:
    """A new CA beside the old one, and a TLS certificate of the new one that both sides believe. False: one is under
    way already, and its files are whole now.

    Errors: OperatorError when the certificates were given by the operator.
    """
    keys = keyring.folder(data)
    if not settings.own_certificate or keyring.own_tls(data) is None:
        raise OperatorError(
            "The hub's certificate comes from a CA that is not the hub's own.",
            "Put both CAs into DATA/keys/ca.crt, then run 'hawser-hub trust announce'; exchange the certificate when "
            "'hawser-hub trust status' shows that all machines believe both.",
        )
    fresh = not (keys / "ca-cross.crt").exists()
    if fresh and not (keys / "ca-next.crt").exists():
        made = pki.make_ca(f"hawser hub CA {settings.host} {rfc3339(now())[:10]}", path_length=1)
        write_file(keys / "ca-next.key", pki.key_pem(made.key))
        write_file(keys / "ca-next.crt", pki.certificate_pem(made.certificate), 0o644)
    if (keys / "ca-next.key").exists():
        old, new = keyring.authority(data, "ca"), keyring.authority(data, "ca-next")
        if old.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0:
            raise OperatorError(
                "The hub's CA may not sign a successor (its path length is 0).",
                "Give the hub a certificate of another CA.",
            )
        bundle = keyring.ca_file(data).read_bytes()
        if pki.certificate_pem(new.certificate) not in bundle:
            write_file(keyring.ca_file(data), bundle + pki.certificate_pem(new.certificate), 0o644)
        if old.key.public_key() != new.key.public_key():
            write_file(keys / "ca-cross.crt", pki.certificate_pem(pki.cross_sign(old, new)), 0o644)
        keyring.issue_tls(data, settings, new)
        write_file(keys / "ca.key", pki.key_pem(new.key))
        (keys / "ca-next.key").unlink()
    (keys / "ca-next.crt").unlink(missing_ok=True)
    return fresh


def finish_ca(data: Path, settings: Settings) -> None:
    """The old CA goes: it is no longer told to machines, and the server no longer shows the way to it."""
    own = keyring.authority(data, "ca")
    if (keyring.folder(data) / "ca-cross.crt").exists():
        former = _former(data)
        there = x509.load_pem_x509_certificates(keyring.ca_file(data).read_bytes())
        kept = b"".join(pki.certificate_pem(item) for item in there if item not in former)
        write_file(keyring.ca_file(data), kept, 0o644)
    (keyring.folder(data) / "ca-cross.crt").unlink(missing_ok=True)
    if keyring.own_tls(data) is not None:
        keyring.issue_tls(data, settings, own)


def begin_desired(data: Path) -> bool:
    """A successor of the desired-state key, told to machines, not signing yet. False: there is one already."""
    path = keyring.folder(data) / "desired-next.key"
    if path.exists():
        return False
    write_file(path, pki.key_pem(ed25519.Ed25519PrivateKey.generate()))
    return True


def finish_desired(data: Path) -> None:
    """The successor signs from now on, and is the only one told to machines."""
    keys = keyring.folder(data)
    write_file(keys / "desired.key", (keys / "desired-next.key").read_bytes())
    (keys / "desired-next.key").unlink()

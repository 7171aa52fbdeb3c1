# SPDX-License-Identifier: Apache-2.0
"""RSA keys of simulated machines: a small pool that machines share, so that a fleet is made in seconds.

A machine has key n of the pool for its first credential and the next one for each renewal. A hub must not care: keys
belong to certificates, and each certificate is one machine's own.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from functools import cached_property
from uuid import uuid4

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

BITS = 2048


@dataclass(frozen=True)
class Key:
    """One key with what is asked of it often, made once."""

    private: rsa.RSAPrivateKey

    @cached_property
    def public_text(self) -> str:
        """`clientPublicKey` of docs/protocol.md section 5."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return base64.b64encode(self.private.public_key().public_bytes(serialization.Encoding.DER, form)).decode()

    @cached_property
    def csr(self) -> str:
        """PEM request; the hub chooses the subject."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulated")])
        made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self.private, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    def pem(self) -> str:
        """PKCS#8, not encrypted: a state file is 0600."""
        form = serialization.PrivateFormat.PKCS8
        plain = serialization.NoEncryption()
        return self.private.private_bytes(serialization.Encoding.PEM, form, plain).decode()

    def assertion(self, client_id: str, certificate: str, audience: str, machine: dict[str, object]) -> str:
        """PS256 assertion of docs/protocol.md section 3, by this machine's clock."""
        leaf = x509.load_pem_x509_certificate(certificate.encode())
        thumbprint = base64.urlsafe_b64encode(leaf.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
        at = int(time.time())
        claims = {"iss": client_id, "sub": client_id, "aud": audience, "jti": str(uuid4())}
        claims |= {"nbf": at, "iat": at, "exp": at + 600, "hawser_machine": machine}  # type: ignore[dict-item]
        chain = [base64.b64encode(leaf.public_bytes(serialization.Encoding.DER)).decode()]
        headers = {"x5t#S256": thumbprint, "x5c": chain}
        return jwt.encode(claims, self.private, algorithm="PS256", headers=headers)


class Pool:
    """Keys by number; made when they are first asked for."""

    def __init__(self, pems: list[str] | None = None) -> None:
        self._keys = [Key(_private(pem)) for pem in pems or ()]

    def __getitem__(self, number: int) -> Key:
        while len(self._keys) <= number:
            self._keys.append(Key(rsa.generate_private_key(65537, BITS)))
        return self._keys[number]

    def pems(self) -> list[str]:
        """Every key made so far."""
        return [key.pem() for key in self._keys]


def _private(pem: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("a key of the state file is not RSA")
    return key

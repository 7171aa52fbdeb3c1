# SPDX-License-Identifier: Apache-2.0
"""Certificates that no CA issued, for tests that need one."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def certificate(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, name: str, days: int, *, age: int = 1, serves: bool = False
) -> x509.Certificate:
    """Of a key, for `days` from now, valid for `age` days already; with `serves` for 127.0.0.1, and a CA to trust."""
    subject, at = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=age))
        .not_valid_after(at + timedelta(days=days))
    )
    if serves:
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = made.add_extension(address, critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, hashes.SHA256())

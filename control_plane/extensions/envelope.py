# SPDX-License-Identifier: Apache-2.0
"""Protected settings: encrypted as they arrive to the key that only the machine's extension service has
(extension-handler.md section 6). The plain text is neither kept nor told to anybody afterwards."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options


def leaf(chain: str) -> x509.Certificate:
    """The first certificate of a PEM chain."""
    return x509.load_pem_x509_certificates(chain.encode())[0]


def pem(certificate: x509.Certificate) -> str:
    """PEM of one certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def thumbprint(certificate_pem: str) -> str:
    """SHA-1 of a certificate in upper-case hex: the name that handlers look for. A name, not a proof."""
    return leaf(certificate_pem).fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303


def same_key(one_pem: str, other_pem: str) -> bool:
    """True when what is encrypted for one certificate can be read with the key of the other."""
    return leaf(one_pem).public_key() == leaf(other_pem).public_key()


def seal(settings: Mapping[str, Any], certificate_pem: str) -> str:
    """Base64 of DER CMS EnvelopedData, AES-256-CBC, of the UTF-8 JSON object."""
    plain = json.dumps(settings, ensure_ascii=False, separators=(",", ":")).encode()
    builder = PKCS7EnvelopeBuilder().set_data(plain).set_content_encryption_algorithm(AES256)
    sealed = builder.add_recipient(leaf(certificate_pem)).encrypt(serialization.Encoding.DER, [PKCS7Options.Binary])
    return base64.b64encode(sealed).decode()


def digest(settings: Mapping[str, Any], key: bytes, about: str) -> str:
    """Hex by which the hub knows the same settings again. Keyed, so that nobody who has read the database can try
    passwords against it. `about`: what they belong to."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, f"{about}\0{text}".encode(), hashlib.sha256).hexdigest()

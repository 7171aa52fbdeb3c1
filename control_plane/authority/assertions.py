# SPDX-License-Identifier: Apache-2.0
"""Checking client assertions (identity-and-arm-api.md B.3, table 'Assertion rules and how clients differ')."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from control_plane.errors import TokenError

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("PS256", "RS256")
SKEW = 300
MAX_LIFE = 24 * 3600


@dataclass(frozen=True)
class Header:
    """What the header names: algorithm and SHA-256 or SHA-1 thumbprint of the certificate (raw bytes)."""

    algorithm: str
    sha256: bytes | None
    sha1: bytes | None


def _unknown_key(message: str) -> TokenError:
    return TokenError(401, "invalid_client", 700027, f"Client assertion failed signature validation. {message}")


def _decode(text: object) -> bytes | None:
    """base64url or base64, padded or not: clients differ, bytes are compared."""
    if not isinstance(text, str) or len(text) > 100:
        return None
    text = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def read(assertion: str) -> tuple[Header, dict[str, Any]]:
    """Header and claims, nothing verified yet.

    Errors: TokenError AADSTS50027 when it is no JWT; AADSTS700027 for another algorithm or no thumbprint.
    """
    malformed = TokenError(401, "invalid_client", 50027, "JWT token is invalid or malformed.")
    parts = assertion.split(".")
    if len(parts) != 3 or len(assertion) > 32768:
        raise malformed
    try:
        raw_header = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError) as error:
        raise malformed from error
    if not isinstance(raw_header, dict) or not isinstance(claims, dict):
        raise malformed
    header = Header(str(raw_header.get("alg")), _decode(raw_header.get("x5t#S256")), _decode(raw_header.get("x5t")))
    if header.algorithm not in ALGORITHMS:
        raise _unknown_key("Only PS256 and RS256 are accepted.")
    if "crit" in raw_header or raw_header.get("b64") is False:
        raise _unknown_key("The header asks for an extension that is not understood here.")
    if header.sha256 is None and header.sha1 is None:
        raise _unknown_key("The header names no certificate thumbprint.")
    return header, claims


def matches(header: Header, certificate: x509.Certificate) -> bool:
    """True when the thumbprint in the header is this certificate's (thumbprints are public)."""
    if header.sha256 is not None:
        return header.sha256 == certificate.fingerprint(hashes.SHA256())
    return header.sha1 == certificate.fingerprint(hashes.SHA1())  # noqa: S303 - a name, not a proof


def _seconds(value: object) -> float | None:
    """Integers, floats and strings of either: all three come from real clients."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e11 else None


def verify(
    assertion: str,
    header: Header,
    claims: dict[str, Any],
    certificate: x509.Certificate,
    client_id: str,
    audiences: Iterable[str],
    at: float,
) -> None:
    """Signature, issuer, audience and times, against a registered certificate.

    Errors: TokenError AADSTS700027 (signature, issuer, audience), AADSTS700024 (time).
    """
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise _unknown_key("The certificate has no RSA key.")
    try:
        jwt.api_jws.decode(assertion, key, algorithms=[header.algorithm])
    except jwt.PyJWTError as error:
        raise _unknown_key("The signature does not fit the certificate.") from error
    names = {str(claims.get("iss")).lower(), str(claims.get("sub")).lower()}
    if names != {client_id.lower()}:
        raise _unknown_key("'iss' and 'sub' must both be the client id.")
    wanted = {item.rstrip("/").lower() for item in audiences}
    found = claims.get("aud")
    given = found if isinstance(found, list) else [found]
    if not any(isinstance(item, str) and item.rstrip("/").lower() in wanted for item in given):
        raise TokenError(401, "invalid_client", 700023, "Client assertion audience must be the token endpoint.")
    ends = _seconds(claims.get("exp"))
    begins = _seconds(claims["nbf"]) if "nbf" in claims else at
    if ends is None or begins is None:
        raise _unknown_key("'exp' and 'nbf' must be numbers.")
    if ends + SKEW < at or begins - SKEW > at or ends - at > MAX_LIFE:
        raise TokenError(
            401, "invalid_client", 700024, "Client assertion is not within its valid time range; check the clock."
        )
    if (certificate.not_valid_after_utc.timestamp() < at) or (certificate.not_valid_before_utc.timestamp() > at):
        raise TokenError(401, "invalid_client", 700027, "The certificate of the assertion has expired.")

# SPDX-License-Identifier: Apache-2.0
"""Signing access tokens and believing them again."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization

from control_plane import pki
from control_plane.authority import claims as rules
from control_plane.authority.audiences import folded
from control_plane.errors import ApiError
from control_plane.keyring import Keyring

MAX_TOKEN = 16384
_CACHE = 32768


class Tokens:
    """The authority's RS256 key. `verify` remembers what it verified until it expires."""

    def __init__(self, url: str, tenant_id: str, keyring: Keyring) -> None:
        self.url = url
        self.tenant_id = tenant_id
        self._key = keyring.token_key
        self._public = keyring.token_key.public_key()
        self._kid = keyring.token_kid
        self._certificate = keyring.token_certificate
        self._verified: dict[bytes, dict[str, Any]] = {}

    def sign(self, claims: dict[str, Any]) -> str:
        """A JWT with these claims (about 1 ms of RSA)."""
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._kid, "x5t": self._kid})

    def issue(self, subject: rules.Subject, audience: str, proof: str, at: int, seconds: int) -> str:
        """An access token of v1 style."""
        token_id = secrets.token_urlsafe(16)
        return self.sign(rules.access_claims(self.url, self.tenant_id, subject, audience, proof, at, seconds, token_id))

    def application_seconds(self) -> int:
        """Life of an application's token: 60 to 90 minutes, at random, so that a fleet does not return at once."""
        low, high = rules.APP_SECONDS
        return low + secrets.randbelow(high - low + 1)

    def verify(self, token: str, audiences: frozenset[str], at: float) -> dict[str, Any]:
        """Claims of a token of ours for one of the `audiences` (folded).

        Errors: ApiError 401 `InvalidAuthenticationToken` or `ExpiredAuthenticationToken`.
        """
        invalid = ApiError(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if len(token) > MAX_TOKEN:
            raise invalid
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._decode(token, invalid)
            if len(self._verified) >= _CACHE:
                self._forget(at)
            self._verified[digest] = claims
        if claims["exp"] <= at:
            raise ApiError(401, "ExpiredAuthenticationToken", "The access token expired.")
        if claims["nbf"] > at + 300:
            raise invalid
        if folded(claims["aud"]) not in audiences:
            raise ApiError(
                401,
                "InvalidAuthenticationToken",
                f"The access token is for the audience '{claims['aud'][:200]}', which is not accepted here.",
            )
        return claims

    def _decode(self, token: str, invalid: ApiError) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("kid") != self._kid:
                raise invalid
            claims: dict[str, Any] = jwt.decode(
                token,
                self._public,
                algorithms=["RS256"],
                options={
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "require": ["aud", "iss", "exp", "nbf", "oid", "tid"],
                },
                issuer=rules.issuer(self.url, self.tenant_id),
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise invalid from error
        if not isinstance(claims["aud"], str) or claims["tid"] != self.tenant_id:
            raise invalid
        return claims

    def _forget(self, at: float) -> None:
        self._verified = {key: value for key, value in self._verified.items() if value["exp"] > at}
        if len(self._verified) >= _CACHE:
            self._verified.clear()

    def jwks(self) -> dict[str, Any]:
        """The key set, with the members of section B.5."""
        numbers = self._public.public_numbers()
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        return {
            "keys": [
                {
                    "kty": "RSA",
                    "use": "sig",
                    "kid": self._kid,
                    "x5t": self._kid,
                    "n": pki.b64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
                    "e": pki.b64url(numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")),
                    "x5c": [base64.b64encode(der).decode("ascii")],
                    "alg": "RS256",
                    "issuer": f"{self.url}/{self.tenant_id}/v2.0",
                }
            ]
        }

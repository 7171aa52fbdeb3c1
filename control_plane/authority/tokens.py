# SPDX-License-Identifier: Apache-2.0
"""Signing access tokens and believing them again."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets
from collections.abc import Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization

from control_plane import pki, token_keys
from control_plane.authority import claims as rules
from control_plane.authority.audiences import folded
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.token_keys import TokenKey

MAX_TOKEN = 16384
EVERY_SECONDS = 30.0
_CACHE = 32768
log = logging.getLogger("hawser.hub")


class Tokens:
    """The authority's RS256 keys. `verify` remembers what it verified until it expires.

    `source`: where changed keys come from; None: they never change.
    """

    def __init__(
        self, url: str, tenant_id: str, keys: Sequence[TokenKey], source: token_keys.Folder | None = None
    ) -> None:
        self.url = url
        self.tenant_id = tenant_id
        self._keys = tuple(keys)
        self._source = source
        self._verified: dict[bytes, dict[str, Any]] = {}

    def refresh(self) -> bool:
        """Take up keys that were added or removed on disk; True if there were any. Unreadable ones change nothing."""
        if self._source is None:
            return False
        try:
            found = self._source.changed()
        except (OSError, ValueError) as error:
            log.error("The token keys cannot be read again (%s); those in memory stay in force.", error)
            return False
        if found is None or [item.kid for item in found] == [item.kid for item in self._keys]:
            return False
        self._keys = found
        self._verified = {}  # a key that is gone vouches for nothing
        log.info("%d token keys are in force; '%s' signs.", len(found), token_keys.signing(found, now()).kid)
        return True

    def prune(self, at: float) -> None:
        """Take away, on disk too, the keys whose last token has expired.

        Errors: OSError.
        """
        if self._source is not None and token_keys.prune(self._source.folder, self._keys, at):
            self.refresh()

    def sign(self, claims: dict[str, Any]) -> str:
        """A JWT with these claims (about 1 ms of RSA)."""
        key = token_keys.signing(self._keys, now())
        return jwt.encode(claims, key.key, algorithm="RS256", headers={"kid": key.kid, "x5t": key.kid})

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
            claims = self._decode(token, invalid, at)
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

    def _key(self, kid: object, at: float) -> TokenKey | None:
        return next((item for item in token_keys.published(self._keys, at) if item.kid == kid), None)

    def _decode(self, token: str, invalid: ApiError, at: float) -> dict[str, Any]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._key(kid, at)
            if key is None and self.refresh():  # another hub process may sign with a key that was made just now
                key = self._key(kid, at)
            if key is None:
                raise invalid
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key.public_key(),
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
        """The key set, with the members of section B.5; the key that signs comes first."""
        return {"keys": [self._jwk(item) for item in token_keys.published(self._keys, now())]}

    def _jwk(self, key: TokenKey) -> dict[str, Any]:
        numbers = key.key.public_key().public_numbers()
        der = key.certificate.public_bytes(serialization.Encoding.DER)
        return {
            "kty": "RSA",
            "use": "sig",
            "kid": key.kid,
            "x5t": key.kid,
            "n": pki.b64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
            "e": pki.b64url(numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")),
            "x5c": [base64.b64encode(der).decode("ascii")],
            "alg": "RS256",
            "issuer": f"{self.url}/{self.tenant_id}/v2.0",
        }


async def watch(tokens: Tokens) -> None:
    """Take up changed keys within half a minute; ends when cancelled."""
    while True:
        try:
            await asyncio.to_thread(tokens.refresh)
            await asyncio.to_thread(tokens.prune, now())
        except OSError as error:
            log.error("A token key whose time is over cannot be removed (%s).", error)
        await asyncio.sleep(EVERY_SECONDS)

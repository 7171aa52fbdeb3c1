# SPDX-License-Identifier: Apache-2.0
"""Talking to an OpenID provider: its metadata and keys, codes for tokens, and whether to believe an ID token."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]

from control_plane.errors import ApiError

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
SKEW = 120
MAX_ANSWER = 256 * 1024
_KEPT_SECONDS = 3600
_KEYS_AGAIN_SECONDS = 60
_TIMEOUT = httpx.Timeout(10)


@dataclass(frozen=True)
class Client:
    """How the hub is known to the provider. `secret` None: a public client, PKCE alone."""

    issuer: str
    client_id: str
    secret: str | None
    ca_file: str | None


def _unavailable(what: str) -> ApiError:
    return ApiError(502, "IdentityProviderUnavailable", f"The identity provider {what}; try again later.")


def _disbelieved(why: str) -> ApiError:
    return ApiError(401, "InvalidIdToken", f"The identity provider's answer is not believed: {why}.")


class Provider:
    """One provider; metadata and keys are kept for an hour. Safe to use from several threads."""

    def __init__(self, client: Client) -> None:
        self.client = client
        context = ssl.create_default_context(cafile=client.ca_file)
        self._http = httpx.Client(
            verify=context, timeout=_TIMEOUT, follow_redirects=False, trust_env=client.ca_file is None
        )
        self._lock = threading.Lock()
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, list[dict[str, Any]]] | None = None

    def _json(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer of at most MAX_ANSWER bytes.

        Errors: ApiError 502.
        """
        data = b""
        try:
            with self._http.stream(method, url, headers={"Accept": "application/json"}, **options) as answer:
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > MAX_ANSWER:
                        raise _unavailable("answers too much")
            found = json.loads(data)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unavailable("cannot be reached") from error
        except (ValueError, RecursionError) as error:
            raise _unavailable("does not answer JSON") from error
        if not isinstance(found, dict):
            raise _unavailable("does not answer a JSON object")
        return answer.status_code, found

    def metadata(self) -> dict[str, Any]:
        """The discovery document (OpenID Connect Discovery 1.0, section 4).

        Errors: ApiError 502: unreachable, incomplete, or the document of another issuer.
        """
        with self._lock:
            if self._metadata is not None and self._metadata[0] > time.monotonic():
                return self._metadata[1]
            base = self.client.issuer.removesuffix("/")
            status, found = self._json("GET", f"{base}/.well-known/openid-configuration")
            needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            if status != 200 or found.get("issuer") != self.client.issuer:
                raise _unavailable("does not describe the configured issuer")
            if not all(str(found.get(name, "")).startswith("https://") for name in needed):
                raise _unavailable("names no https endpoints")
            self._metadata = (time.monotonic() + _KEPT_SECONDS, found)
            return found

    def exchange(self, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
        """The token answer for a code.

        Errors: ApiError 401 when the provider refuses it, 502.
        """
        metadata, client = self.metadata(), self.client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        options: dict[str, Any] = {}
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if client.secret is not None and "client_secret_basic" in methods:
            options["auth"] = httpx.BasicAuth(client.client_id, client.secret)
        else:
            form["client_id"] = client.client_id
            if client.secret is not None:
                form["client_secret"] = client.secret
        status, found = self._json("POST", str(metadata["token_endpoint"]), data=form, **options)
        if status != 200 or not isinstance(found.get("id_token"), str):
            raise _disbelieved("the code was refused")
        return found

    def _known(self, kid: object, *, again: bool) -> list[dict[str, Any]]:
        """The provider's keys of that name; every one when the token names none."""
        with self._lock:
            at = time.monotonic()
            fetched = self._keys[0] if self._keys is not None else None
            stale = fetched is None or fetched + (_KEYS_AGAIN_SECONDS if again else _KEPT_SECONDS) < at
        if stale:
            status, found = self._json("GET", str(self.metadata()["jwks_uri"]))
            keys = found.get("keys")
            if status != 200 or not isinstance(keys, list):
                raise _unavailable("publishes no keys")
            self._keys = (at, [item for item in keys if isinstance(item, dict)])
        every = self._keys[1] if self._keys is not None else []
        usable = [item for item in every if item.get("kty") != "oct" and item.get("use", "sig") == "sig"]
        return [item for item in usable if kid is None or item.get("kid") == kid]

    def believe(self, answer: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of the ID token of a token answer (OpenID Connect Core 1.0, section 3.1.3.7).

        Errors: ApiError 401 `InvalidIdToken`, 502.
        """
        token = str(answer["id_token"])
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise _disbelieved("its ID token is malformed") from error
        if header.get("alg") not in ALGORITHMS:
            raise _disbelieved("its ID token is not signed with an accepted algorithm")
        keys = self._known(header.get("kid"), again=False) or self._known(header.get("kid"), again=True)
        if len(keys) != 1:
            raise _disbelieved("its ID token names no published key")
        claims = self._verified(token, keys[0], str(header["alg"]))
        if not isinstance(claims.get("sub"), str) or not 0 < len(claims["sub"]) <= 255:
            raise _disbelieved("its ID token names nobody")
        params = {"nonce": nonce, "client_id": self.client.client_id, "access_token": answer.get("access_token")}
        try:
            CodeIDToken(claims, header, options={}, params=params).validate(leeway=SKEW)
        except Exception as error:
            raise _disbelieved("its ID token is not for this sign-in") from error
        return claims

    def _verified(self, token: str, key: dict[str, Any], algorithm: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                jwt.PyJWK(key, algorithm=algorithm).key,
                algorithms=[algorithm],
                audience=self.client.client_id,
                issuer=self.client.issuer,
                leeway=SKEW,
                options={"require": ["iss", "sub", "aud", "exp", "iat", "nonce"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise _disbelieved("its ID token does not verify") from error
        return claims


_providers: dict[Client, Provider] = {}


def of(section: Mapping[str, Any]) -> Provider:
    """The provider of a configuration; made once for each.

    Errors: ApiError 502 when the secret or the CA cannot be read.
    """
    try:
        secret = (
            Path(section["client_secret_file"]).read_text("utf-8").strip() if "client_secret_file" in section else None
        )
        client = Client(section["issuer"], section["client_id"], secret, section.get("ca_file"))
        if client not in _providers:
            _providers[client] = Provider(client)
        return _providers[client]
    except (OSError, ValueError) as error:
        raise _unavailable("is not configured well (a file of section oidc cannot be read)") from error

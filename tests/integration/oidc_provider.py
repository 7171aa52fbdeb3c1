# SPDX-License-Identifier: Apache-2.0
"""A small real OpenID provider over HTTPS, for tests: discovery, keys, authorization code with PKCE, ID tokens.

`account`: claims of who is signed in there. `twist`: changes the claims, header or key of the next ID tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from control_plane import pki

CLIENT, SECRET = "hub", "s3cret/with:signs"
_KEY = rsa.generate_private_key(65537, 2048)


@dataclass
class IdToken:
    """What is signed."""

    claims: dict[str, Any]
    header: dict[str, Any]
    key: Any
    algorithm: str = "RS256"


@dataclass
class Provider:
    """The provider's state; the handler below reads it."""

    issuer: str = ""
    ca_file: str = ""
    account: dict[str, Any] = field(default_factory=lambda: {"sub": "1", "preferred_username": "ada"})
    key: rsa.RSAPrivateKey = _KEY
    kid: str = "one"
    twist: Callable[[IdToken], None] = lambda _token: None
    document: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    redeemed: list[str] = field(default_factory=list)

    def discovery(self) -> dict[str, Any]:
        """The metadata, with the changes of `document`."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=x",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            **self.document,
        }

    def keys(self) -> dict[str, Any]:
        """The key set; a symmetric key among them must never be used."""
        public = json.loads(RSAAlgorithm.to_jwk(self.key.public_key()))
        shared = {"kty": "oct", "kid": "shared", "k": base64.b64encode(b"shared" * 6).decode()}
        return {"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "RS256"}, shared]}

    def authorise(self, location: str) -> dict[str, str]:
        """What a browser brings back after its owner said yes: the query of the callback."""
        asked = dict(parse_qsl(urlsplit(location).query))
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return {"code": code, "state": asked["state"]}

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """The token endpoint."""
        wanted = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self.codes.pop(form.get("code", ""), None)
        if authorization != wanted or asked is None or form.get("grant_type") != "authorization_code":
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        self.redeemed.append(form["code"])
        at = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "exp": at + 300,
            "iat": at,
            "nonce": asked["nonce"],
            **self.account,
        }
        token = IdToken(claims, {"kid": self.kid}, self.key)
        self.twist(token)
        signed = jwt.encode(token.claims, token.key, algorithm=token.algorithm, headers=token.header)
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": signed}


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base names it so
            """Nothing."""

        def _answer(self, status: int, body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/.well-known/openid-configuration":
                self._answer(200, provider.discovery())
            elif path == "/keys":
                self._answer(200, provider.keys())
            elif path == "/authorize":
                back = provider.authorise(self.path)
                to = parse_qs(urlsplit(self.path).query)["redirect_uri"][0]
                self.send_response(302)
                self.send_header("Location", f"{to}?{urlencode(back)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path == "/huge":
                self._answer(200, b'"' + b"x" * 10_000_000)
            else:
                self._answer(404, {})

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()))
            self._answer(*provider.redeem(form, self.headers.get("Authorization", "")))

    return Handler


@contextmanager
def running(directory: Path) -> Iterator[Provider]:
    """A provider on a port of 127.0.0.1, with a CA of its own."""
    provider = Provider()
    ca = pki.make_ca("identity provider")
    key, certificate = pki.make_tls(ca, ["127.0.0.1"])
    (directory / "idp.pem").write_bytes(pki.key_pem(key) + pki.certificate_pem(certificate))
    (directory / "idp-ca.pem").write_bytes(pki.certificate_pem(ca.certificate))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(provider))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "idp.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    provider.issuer = f"https://127.0.0.1:{server.server_address[1]}"
    provider.ca_file = str(directory / "idp-ca.pem")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)

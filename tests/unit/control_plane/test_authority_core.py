# SPDX-License-Identifier: Apache-2.0
"""Audiences, scopes, claims, forms, token verification."""

from __future__ import annotations

import base64
import time
from typing import Any
from urllib.parse import quote, urlencode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import bodies, pki
from control_plane.authority import audiences, claims, endpoints
from control_plane.authority.tokens import Tokens
from control_plane.errors import ApiError, TokenError
from control_plane.token_keys import TokenKey

URL, TENANT = "https://hub.example:8443", "6f1f6c8e-2a56-4c6e-9b0e-6f6f1d0b7a11"
SUBJECT = claims.Subject("app", "oid")


@pytest.fixture(scope="module")
def key() -> TokenKey:
    return TokenKey(*pki.make_token_key(TENANT))


@pytest.fixture(scope="module")
def tokens(key: TokenKey) -> Tokens:
    return Tokens(URL, TENANT, [key])


@pytest.mark.parametrize(
    ("scope", "resource"),
    [
        ("https://a/.default", "https://a"),
        ("https://a//.default", "https://a/"),
        ("api://x/.default", "api://x"),
        ("https://a", None),
        ("/.default", None),
        (".default", None),
    ],
)
def test_scopes(scope: str, resource: str | None) -> None:
    assert audiences.resource_of_scope(scope) == resource


@pytest.mark.parametrize(
    ("resource", "known"),
    [
        (URL, True),
        (f"{URL}/", True),
        ("https://management.azure.com/", True),
        ("https://MANAGEMENT.core.windows.net", True),
        ("https://vault.azure.net", True),
        ("api://hawser-channel", True),
        ("api://mine", True),
        ("api://hawser-ticket", False),
        ("https://vault.azure.net.evil.example", False),
        ("", False),
    ],
)
def test_known_audiences(resource: str, known: bool) -> None:
    assert audiences.is_known(resource, URL, ["api://mine"]) == known


def test_v1_claims_of_a_machine() -> None:
    resource = "/subscriptions/s/resourceGroups/G/providers/Microsoft.HybridCompute/machines/M"
    made = claims.access_claims(
        URL, TENANT, claims.Subject("app", "oid", resource, 3), "https://a/", "2", 100, 60, "id"
    )
    assert made["xms_mirid"] == "/subscriptions/s/resourcegroups/G/providers/Microsoft.HybridCompute/machines/M"
    assert made["iss"] == f"{URL}/{TENANT}/"
    assert (made["aud"], made["nbf"], made["exp"], made["sub"]) == ("https://a/", 100, 160, "oid")
    assert (made["ver"], made["idtyp"], made["appidacr"], made["tid"]) == ("1.0", "app", "2", TENANT)


@given(st.text(min_size=1), st.text(min_size=1))
def test_credentials_survive_body_and_header(name: str, secret: str) -> None:
    body = bodies.form(urlencode({"client_id": name, "client_secret": secret}).encode())
    assert endpoints.client_credentials(body, None) == (name, secret)
    pair = f"{quote(name, safe='')}:{quote(secret, safe='')}"
    header = "Basic " + base64.b64encode(pair.encode()).decode()
    assert endpoints.client_credentials({}, header) == (name, secret)


@given(st.binary(max_size=200))
def test_any_body_is_a_form_or_a_400(body: bytes) -> None:
    for read in (bodies.form, bodies.json_object):
        try:
            read(body)
        except ApiError as error:
            assert error.status == 400  # noqa: PT017 - any input: refused so, or taken


def test_a_token_is_believed_for_its_audience_and_time(tokens: Tokens) -> None:
    at = int(time.time())
    token = tokens.issue(SUBJECT, f"{URL}/", claims.SECRET, at, 60)
    arm = audiences.arm_audiences(URL)
    for _ in range(2):
        assert tokens.verify(token, arm, at)["oid"] == "oid"
    with pytest.raises(ApiError, match="audience"):
        tokens.verify(token, frozenset({audiences.CHANNEL}), at)
    with pytest.raises(ApiError) as late:
        tokens.verify(token, arm, at + 61)
    assert late.value.code == "ExpiredAuthenticationToken"
    with pytest.raises(ApiError):
        tokens.verify(token, arm, at - 3600)


def _forgeries(tokens: Tokens, key: TokenKey) -> list[str]:
    at = int(time.time())
    good = tokens.issue(SUBJECT, URL, claims.SECRET, at, 60)
    head, body, signature = good.split(".")
    fields: dict[str, Any] = jwt.decode(good, options={"verify_signature": False})
    kid = {"kid": key.kid}
    other = rsa.generate_private_key(65537, 2048)
    public = key.key.public_key().public_numbers().n.to_bytes(256, "big")
    return [
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-6]}AAAAAA",
        jwt.encode(fields, "", algorithm="none", headers=kid),
        jwt.encode(fields, public, algorithm="HS256", headers=kid),
        jwt.encode(fields, other, algorithm="RS256", headers=kid),
        jwt.encode(fields, key.key, algorithm="PS256", headers=kid),
        jwt.encode(fields, key.key, algorithm="RS256", headers={"kid": "another"}),
        jwt.encode({**fields, "iss": "https://evil/"}, key.key, algorithm="RS256", headers=kid),
        jwt.encode({**fields, "tid": "other"}, key.key, algorithm="RS256", headers=kid),
        jwt.encode({**fields, "aud": [URL]}, key.key, algorithm="RS256", headers=kid),
        "a" * 20000,
    ]


def test_forgeries_are_refused(tokens: Tokens, key: TokenKey) -> None:
    for forged in _forgeries(tokens, key):
        with pytest.raises(ApiError) as refused:
            tokens.verify(forged, audiences.arm_audiences(URL), time.time())
        assert refused.value.code == "InvalidAuthenticationToken"


@settings(max_examples=200)
@given(st.text(max_size=100))
def test_no_text_is_a_token(tokens: Tokens, text: str) -> None:
    with pytest.raises(ApiError):
        tokens.verify(text, audiences.arm_audiences(URL), 0)


def test_the_key_set_verifies_tokens(tokens: Tokens) -> None:
    token = tokens.issue(SUBJECT, URL, claims.SECRET, int(time.time()), 60)
    keys = jwt.PyJWKSet(tokens.jwks()["keys"])
    header = jwt.get_unverified_header(token)
    assert header["kid"] == header["x5t"] == tokens.jwks()["keys"][0]["x5t"]
    assert jwt.decode(token, keys[header["kid"]].key, algorithms=["RS256"], audience=URL)["appid"] == "app"


def test_application_tokens_live_60_to_90_minutes(tokens: Tokens) -> None:
    assert {3600 <= tokens.application_seconds() <= 5400 for _ in range(100)} == {True}


def test_missing_scope_and_resource() -> None:
    for fields, v2 in (({}, True), ({}, False), ({"scope": "a b"}, True)):
        with pytest.raises(TokenError):
            endpoints.requested_resource(fields, v2=v2)

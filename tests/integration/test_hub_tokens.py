# SPDX-License-Identifier: Apache-2.0
"""Forged and damaged tokens through the whole application: never believed, never an error of the hub's own."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane import token_keys
from control_plane.authority.audiences import CHANNEL, TICKET
from control_plane.authority.claims import SECRET, Subject
from control_plane.clock import now
from tests.integration import rights_site
from tests.integration.rights_site import URL, M, S, Site

PATHS = (f"{S}?api-version=2022-12-01", f"{M}?api-version=2024-07-10", "/hawser/v1/machines", "/channel/v1/tokens")
FOREIGN = rsa.generate_private_key(65537, 2048)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
EXAMPLES = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with rights_site.running(tmp_path_factory.mktemp("hub") / "data") as made:
        yield made


def _status(site: Site, token: str, path: str = PATHS[0]) -> int:
    method = "POST" if path.startswith("/channel/") else "GET"
    header = b"Bearer " + token.encode("utf-8", "surrogateescape")
    answer = site.client.request(
        method, path, headers={b"Authorization": header}, json={} if method == "POST" else None
    )
    assert answer.status_code < 500, answer.text
    if method == "POST" and answer.status_code == 400:
        return 401  # the channel reads the body first, and this one is empty
    return int(answer.status_code)


def _encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@EXAMPLES
@given(st.data())
def test_no_damage_leaves_a_token_good(site: Site, data: st.DataObject) -> None:
    good = site.tokens["O", "hub"]
    index = data.draw(st.integers(0, len(good) - 1))
    letter = st.characters(min_codepoint=33, max_codepoint=126)
    changed = data.draw(
        st.one_of(
            letter.map(lambda one: good[:index] + one + good[index + 1 :]),
            st.just(good[:index] + good[index + 1 :]),
            st.just(good[:index]),
            st.text(letter, max_size=4).map(lambda text: good[:index] + text + good[index:]),
            st.just(good[index:]),
        )
    )
    if _status(site, changed) != 401:
        # Base64 has more than one spelling for the same bytes; the signature covers the spelling of the first two.
        assert changed.split(".")[:2] == good.split(".")[:2]
        assert _decoded(changed.split(".")[2]) == _decoded(good.split(".")[2])


@EXAMPLES
@given(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c", "jku", "zip", "cty"]), JSON)
def test_no_other_header_is_believed(site: Site, name: str, value: Any) -> None:
    head, body, signature = site.tokens["O", "hub"].split(".")
    fields = json.loads(_decoded(head))
    if fields.get(name) == value:
        return
    assert _status(site, f"{_encoded({**fields, name: value})}.{body}.{signature}") == 401


@EXAMPLES
@given(
    st.sampled_from(["aud", "iss", "exp", "nbf", "iat", "oid", "sub", "tid", "appid", "xms_mirid", "roles", "jti"]),
    JSON,
)
def test_no_other_claim_is_believed(site: Site, name: str, value: Any) -> None:
    head, body, signature = site.tokens["O", "hub"].split(".")
    claims = {**json.loads(_decoded(body)), name: value}
    kid = json.loads(_decoded(head))["kid"]
    assert _status(site, f"{head}.{_encoded(claims)}.{signature}") == 401
    for algorithm, key in (("RS256", FOREIGN), ("none", None)):
        try:
            forged = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})  # type: ignore[arg-type]
        except TypeError:
            continue  # PyJWT signs no claims of such types
        assert _status(site, forged) == 401


@EXAMPLES
@given(JSON, JSON)
def test_what_the_hub_would_never_sign_breaks_nothing(site: Site, value: Any, other: Any) -> None:
    """Even a token with a good signature is read with care."""
    key = token_keys.signing(token_keys.load(site.hub.data / "keys"), now())
    claims = {**jwt.decode(site.tokens["O", "hub"], options={"verify_signature": False}), "oid": value, "appid": other}
    for changed in (claims, {**claims, "jti": value, "aud": TICKET}, {**claims, "xms_mirid": value}):
        try:
            token = jwt.encode(changed, key.key, algorithm="RS256", headers={"kid": key.kid})
        except TypeError:
            continue
        for path in PATHS:
            assert _status(site, token, path) in (400, 401, 403)


@EXAMPLES
@given(st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), max_size=200))
def test_no_text_is_a_token(site: Site, text: str) -> None:
    for path in PATHS:
        assert _status(site, text, path) == 401


def test_tricks(site: Site) -> None:
    good = site.tokens["O", "hub"]
    head, body, signature = good.split(".")
    public = token_keys.load(site.hub.data / "keys")[0].key.public_key()
    spki = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    certificate = site.hub.tokens.jwks()["keys"][0]["x5c"][0].encode()
    kid = json.loads(_decoded(head))["kid"]
    forged = []
    for secret in (spki, certificate, b""):
        hs256 = f"{_encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{body}"
        mac = base64.urlsafe_b64encode(hmac.digest(secret, hs256.encode(), "sha256")).rstrip(b"=").decode()
        forged.append(f"{hs256}.{mac}")
    own = {"kty": "RSA", **{name: site.hub.tokens.jwks()["keys"][0][name] for name in ("n", "e")}}
    forged += [
        f"{_encoded({'alg': word, 'kid': kid})}.{body}."
        for word in ("none", "None", "NONE", "nOnE", "", None, 0, ["RS256"])
    ]
    forged += [
        f"{_encoded({'alg': 'RS256', 'kid': name})}.{body}.{signature}"
        for name in ("../../../dev/null", "' OR 1=1 --", "", None, 7, {"a": 1}, "x" * 5000)
    ]
    forged += [
        jwt.encode(json.loads(_decoded(body)), FOREIGN, algorithm="RS256", headers={"kid": kid, "jwk": own}),
        good * 20,
        f"{good}.{good}",
        f"{head}.{body}.",
        f"{head}..{signature}",
        "....",
        "a" * 60000,
    ]
    for token in forged:
        for path in PATHS:
            assert _status(site, token, path) == 401, token[:200]


@pytest.mark.parametrize("audience", [CHANNEL, "https://vault.azure.net", "https://graph.microsoft.com"])
def test_tokens_for_others_are_not_for_arm(site: Site, audience: str) -> None:
    principal = site.principals["O", "hub"]
    token = site.hub.tokens.issue(Subject(principal.id, principal.object_id), audience, SECRET, now(), 600)
    for path in PATHS[:3]:
        assert _status(site, token, path) == 401


def test_expired_and_early_tokens(site: Site) -> None:
    principal = site.principals["O", "hub"]
    subject = Subject(principal.id, principal.object_id)
    for at in (now() - 601, now() + 3600):
        assert _status(site, site.hub.tokens.issue(subject, URL, SECRET, at, 600)) == 401
    assert _status(site, site.hub.tokens.issue(subject, URL, SECRET, now(), 600)) == 200

# SPDX-License-Identifier: Apache-2.0
"""Principals' certificates: what real clients send is taken, what attackers send is not (identity reference, B.3)."""

from __future__ import annotations

import base64
import hmac
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.authority import assertions, endpoints
from control_plane.cli import main
from control_plane.clock import now
from control_plane.errors import TokenError
from control_plane.hub import Hub, open_hub

URL = "https://hub.example:8443"
SCOPE = f"{URL}/.default"
KEY = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())


def certificate(key: Any = KEY, days: int = 90, back: int = 1) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
    at = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=back))
        .not_valid_after(at + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )


CERTIFICATE = certificate()
SHA1, SHA256 = CERTIFICATE.fingerprint(hashes.SHA1()), CERTIFICATE.fingerprint(hashes.SHA256())  # noqa: S303


def pem(made: x509.Certificate) -> bytes:
    return made.public_bytes(serialization.Encoding.PEM)


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--data", str(data), *arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("hub") / "data"
    assert run(data, "init", "--url", URL, "--san", "10.0.0.1", "--tenant-domain", "fleet.example").exit_code == 0
    (data / "app.pem").write_bytes(pem(CERTIFICATE) + pem(certificate(OTHER)))
    assert (
        run(data, "principal", "create", "app", "--role", "Reader", "--certificate", str(data / "app.pem")).exit_code
        == 0
    )
    return data


@pytest.fixture(scope="module")
def hub(data: Path) -> Iterator[Hub]:
    opened = open_hub(data)
    yield opened
    opened.database.close()


@pytest.fixture(scope="module")
def client_id(data: Path) -> str:
    return str(json.loads(run(data, "principal", "list", "--json").stdout)[0]["clientId"])


Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(hub: Hub, client_id: str) -> Ask:
    """Signs an assertion with the changes given and asks for a token with it."""

    def asked(
        header: dict[str, Any] | None = None,
        claims: dict[str, Any] | None = None,
        *,
        key: Any = KEY,
        algorithm: str = "PS256",
        v2: bool = True,
        assertion: str | None = None,
    ) -> dict[str, Any]:
        tail = "v2.0/" if v2 else ""
        whole = {
            "aud": f"{URL}/{hub.settings.tenant_id}/oauth2/{tail}token",
            "iss": client_id,
            "sub": client_id,
            "jti": str(uuid4()),
            "exp": now() + 600,
            **(claims or {}),
        }
        head = {"x5t#S256": base64.urlsafe_b64encode(SHA256).decode(), **(header or {})}
        signed = (
            assertion
            if assertion is not None
            else jwt.encode(
                {name: value for name, value in whole.items() if value is not None},
                key,
                algorithm=algorithm,
                headers={name: value for name, value in head.items() if value is not None},
            )
        )
        fields = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_assertion_type": assertions.ASSERTION_TYPE,
            "client_assertion": signed,
            **({"scope": SCOPE} if v2 else {"resource": URL}),
        }
        return dict(endpoints.token(hub, hub.settings.tenant_id, fields, None, "192.0.2.1", v2=v2).body or {})

    return asked


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


@pytest.mark.parametrize(
    ("algorithm", "header"),
    [
        ("RS256", {"x5t": _url(SHA1), "x5t#S256": None}),  # azure-identity for Python
        ("PS256", {"x5t#S256": _url(SHA256)}),  # msal for Python, a certificate alone
        ("PS256", {"x5t#S256": _url(SHA256).rstrip("=")}),  # Node, .NET
        ("PS256", {"x5t#S256": _b64(SHA256)}),  # Go
        ("PS256", {"x5t#S256": _b64(SHA256).rstrip("=")}),
        ("RS256", {"x5t": _b64(SHA1), "x5t#S256": None, "x5c": [_b64(b"chain")]}),
        ("RS256", {"x5t": _url(SHA1), "x5t#S256": None, "x5c": _b64(b"chain"), "kid": "anything", "typ": None}),
    ],
)
def test_headers_of_real_clients(ask: Ask, hub: Hub, algorithm: str, header: dict[str, Any]) -> None:
    answer = ask(header, algorithm=algorithm)
    claims = hub.tokens.verify(str(answer["access_token"]), frozenset({URL}), now())
    assert (claims["appidacr"], claims["idtyp"], "xms_mirid" in claims) == ("2", "app", False)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 0.25, "iat": 0.5},
        {"exp": "0", "nbf": "-600"},
        {"exp": 0, "nbf": -600, "iat": -600},
        {"exp": 0, "nbf": -350},
    ],
)
def test_times_of_real_clients(ask: Ask, claims: dict[str, Any]) -> None:
    """Given relative to now + 600."""
    moved = {
        name: str(int(value) + now() + 600) if isinstance(value, str) else value + now() + 600
        for name, value in claims.items()
    }
    assert ask(claims=moved)["access_token"]


@pytest.mark.parametrize(
    "audience",
    [
        "{url}/{tenant}/oauth2/v2.0/token",
        "{url}/{tenant}/oauth2/v2.0/token/",
        "{url}/fleet.example/oauth2/v2.0/token",
        "{url}/{tenant}/v2.0",
        "{url}/{tenant}/",
        "https://10.0.0.1:8443/{tenant}/oauth2/v2.0/token",
    ],
)
def test_audiences_of_real_clients(ask: Ask, hub: Hub, audience: str) -> None:
    wanted = audience.format(url=URL, tenant=hub.settings.tenant_id)
    assert ask(claims={"aud": wanted})["access_token"]
    assert ask(claims={"aud": [wanted]})["access_token"]


def test_the_older_endpoint_takes_assertions_too(ask: Ask) -> None:
    assert ask(v2=False)["resource"] == URL


def test_an_assertion_may_be_used_again(ask: Ask) -> None:
    claims = {"jti": "0b1f5c4e-4b5b-4d59-9d13-111111111111"}
    assert ask(claims=claims)["access_token"]
    assert ask(claims=claims)["access_token"]


@pytest.mark.parametrize(
    ("header", "claims", "options", "code"),
    [
        ({}, {}, {"key": OTHER}, 700027),
        ({"x5t#S256": None, "x5t": None}, {}, {}, 700027),
        ({"x5t#S256": _url(b"x" * 32)}, {}, {}, 700027),
        ({"x5t#S256": "!"}, {}, {}, 700027),
        ({"x5t#S256": 7}, {}, {}, 700027),
        ({"x5t#S256": "A" * 5000}, {}, {}, 700027),
        ({"crit": ["exp"]}, {}, {}, 700027),
        ({}, {}, {"key": "", "algorithm": "none"}, 700027),
        ({}, {}, {"key": SHA256 * 2, "algorithm": "HS256"}, 700027),
        ({}, {}, {"key": ELLIPTIC, "algorithm": "ES256"}, 700027),
        ({}, {}, {"algorithm": "RS384"}, 700027),
        ({}, {}, {"algorithm": "PS512"}, 700027),
        ({"jwk": {"kty": "RSA"}, "kid": "../../keys/token.key"}, {}, {"key": OTHER}, 700027),
        ({"x5c": [_b64(certificate(OTHER).public_bytes(serialization.Encoding.DER))]}, {}, {"key": OTHER}, 700027),
        ({"jku": "https://evil.example/keys", "x5u": "https://evil.example/c"}, {}, {"key": OTHER}, 700027),
        ({}, {"iss": "another"}, {}, 700027),
        ({}, {"sub": None}, {}, 700027),
        ({}, {"aud": "https://login.microsoftonline.com/t/oauth2/v2.0/token"}, {}, 700023),
        ({}, {"aud": None}, {}, 700023),
        ({}, {"aud": {"a": 1}}, {}, 700023),
        ({}, {"exp": 1}, {}, 700024),
        ({}, {"exp": 9999999999}, {}, 700024),
        ({}, {"nbf": 9999999998}, {}, 700024),
        ({}, {"exp": None}, {}, 700027),
        ({}, {"exp": True}, {}, 700027),
        ({}, {"exp": "nan"}, {}, 700027),
        ({}, {"exp": "inf"}, {}, 700027),
        ({}, {"exp": "9" * 400}, {}, 700027),
        ({}, {"nbf": []}, {}, 700027),
        ({}, {"padding": "x" * 40000}, {}, 50027),
    ],
)
def test_tricks_are_refused(
    ask: Ask, header: dict[str, Any], claims: dict[str, Any], options: dict[str, Any], code: int
) -> None:
    with pytest.raises(TokenError) as refused:
        ask(header, claims, **options)
    assert (refused.value.status, refused.value.aadsts) == (401, code)


def test_the_public_key_is_no_shared_secret(ask: Ask) -> None:
    """HS256 with the registered public key as the secret; PyJWT refuses to make one, so it is made by hand."""
    for secret in (
        pem(CERTIFICATE),
        KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ):
        head = _url(json.dumps({"alg": "HS256", "x5t#S256": _url(SHA256)}).encode()).rstrip("=")
        body = _url(json.dumps({"exp": now() + 600}).encode()).rstrip("=")
        mac = _url(hmac.digest(secret, f"{head}.{body}".encode(), "sha256")).rstrip("=")
        with pytest.raises(TokenError) as refused:
            ask(assertion=f"{head}.{body}.{mac}")
        assert refused.value.aadsts == 700027


def _whole(ask: Ask, hub: Hub, client_id: str) -> str:
    claims = {
        "aud": f"{URL}/{hub.settings.tenant_id}/oauth2/v2.0/token",
        "iss": client_id,
        "sub": client_id,
        "exp": now() + 600,
    }
    return jwt.encode(claims, KEY, algorithm="PS256", headers={"x5t#S256": _url(SHA256)})


@settings(max_examples=150)
@given(st.data())
def test_no_change_of_a_good_assertion_proves_anything(ask: Ask, hub: Hub, client_id: str, data: st.DataObject) -> None:
    good = _whole(ask, hub, client_id)
    index = data.draw(st.integers(0, len(good) - 1))
    changed = data.draw(
        st.one_of(
            st.characters(codec="utf-8").map(lambda letter: good[:index] + letter + good[index + 1 :]),
            st.just(good[:index] + good[index + 1 :]),
            st.just(good[:index]),
            st.text(max_size=5).map(lambda text: good[:index] + text + good[index:]),
        )
    )
    try:
        answer = ask(assertion=changed)
    except TokenError as error:
        assert error.status in (400, 401)  # noqa: PT017 - refused, or it is the same assertion spelt otherwise
    else:
        assert answer["access_token"]
        same = [_bytes(part) for part in changed.split(".")] == [_bytes(part) for part in good.split(".")]
        assert same, changed


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["alg", "x5t", "x5t#S256", "x5c", "kid", "crit", "b64", "typ"]),
)
def test_any_header_is_refused_or_read(value: Any, name: str) -> None:
    head = _url(json.dumps({"alg": "PS256", "x5t#S256": _url(SHA256), name: value}).encode())
    try:
        assertions.read(f"{head}.{_url(b'{}')}.AA")
    except TokenError as error:
        assert error.status == 401  # noqa: PT017 - any header: refused so, or read


def test_certificates_come_and_go(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    copy = tmp_path / "data"
    second = certificate(OTHER)
    (copy / "second.pem").write_bytes(pem(second))
    assert "is registered" in run(copy, "principal", "certificate", "add", "app", str(copy / "second.pem")).stdout
    assert "nothing was changed" in run(copy, "principal", "certificate", "add", "app", str(copy / "second.pem")).stdout
    shown = json.loads(run(copy, "principal", "certificate", "list", "app", "--json").stdout)
    assert {item["sha256"] for item in shown} == {SHA256.hex(), second.fingerprint(hashes.SHA256()).hex()}
    sha1 = ":".join(f"{byte:02X}" for byte in SHA1)
    assert run(copy, "principal", "certificate", "remove", "app", sha1).exit_code == 0
    assert len(json.loads(run(copy, "principal", "certificate", "list", "app", "--json").stdout)) == 1
    gone = run(copy, "principal", "certificate", "remove", "app", sha1)
    assert (gone.exit_code, "has no certificate" in gone.stderr) == (1, True)


def test_secrets_come_and_go(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    copy, file = tmp_path / "data", tmp_path / "app.secret"
    assert json.loads(run(copy, "principal", "list", "--json").stdout)[0]["secrets"] == 0
    made = json.loads(
        run(copy, "principal", "secret", "add", "app", "--secret-file", str(file), "--valid-days", "3", "--json").stdout
    )
    assert (file.stat().st_mode & 0o777, made["clientSecretFile"]) == (0o600, str(file))
    hub = open_hub(copy)
    client = json.loads(run(copy, "principal", "list", "--json").stdout)[0]["clientId"]
    fields = {
        "grant_type": "client_credentials",
        "client_id": client,
        "client_secret": file.read_text(),
        "scope": SCOPE,
    }
    assert endpoints.token(hub, "fleet.example", fields, None, "192.0.2.1", v2=True).status == 200
    assert run(copy, "principal", "secret", "remove", "app", made["id"]).exit_code == 0
    with pytest.raises(TokenError) as refused:
        endpoints.token(hub, "fleet.example", fields, None, "192.0.2.1", v2=True)
    assert refused.value.aadsts == 7000215
    hub.database.close()
    assert run(copy, "principal", "secret", "list", "app", "--json").stdout.strip() == "[]"


def test_bad_certificates_make_nothing(data: Path, tmp_path: Path) -> None:
    files = {
        "elliptic": pem(certificate(ELLIPTIC)),
        "expired": pem(certificate(days=-1, back=9)),
        "none": b"nothing",
        "key": KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "weak": pem(certificate(rsa.generate_private_key(65537, 1024))),  # noqa: S505 - it must be refused
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in [*files, "absent"]:
        answer = run(data, "principal", "create", "x", "--role", "Reader", "--certificate", str(tmp_path / name))
        assert (answer.exit_code, len(answer.stderr.strip().splitlines())) == (1, 2), name
    assert len(json.loads(run(data, "principal", "list", "--json").stdout)) == 1


def test_an_expired_certificate_proves_nothing(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, hub: Hub, client_id: str
) -> None:
    at = now() + 91 * 86400
    monkeypatch.setattr(endpoints, "now", lambda: at)
    with pytest.raises(TokenError) as refused:
        ask(claims={"exp": at + 600})
    assert (refused.value.aadsts, "expired" in refused.value.message) == (700027, True)

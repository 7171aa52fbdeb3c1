# SPDX-License-Identifier: Apache-2.0
"""Sign-in with an external account: the hub's functions against a real OpenID provider over HTTPS."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import select, text

from control_plane import pki
from control_plane.arm.roles import Action, allows
from control_plane.cli import main
from control_plane.clock import now
from control_plane.errors import ApiError, OperatorError
from control_plane.hub import Hub, open_hub
from control_plane.people import oidc, sessions
from control_plane.storage import people
from control_plane.storage.models import AuditEntry
from tests.integration import hub_process, oidc_provider
from tests.integration.oidc_provider import CLIENT, SECRET, IdToken, Provider

URL, PEER = "https://hub.example:8443", "192.0.2.1"


def run(data: Path, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, ["--data", str(data), *arguments], input=given, catch_exceptions=False)


@pytest.fixture
def idp(tmp_path: Path) -> Iterator[Provider]:
    with oidc_provider.running(tmp_path) as provider:
        yield provider


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("hub") / "data"
    assert run(data, "init", "--url", URL).exit_code == 0
    return data


@pytest.fixture
def data(request: pytest.FixtureRequest, tmp_path: Path, idp: Provider) -> Path:
    data = tmp_path / "data"
    if options := hub_process.database_options():
        assert run(data, "init", "--url", URL, *options).exit_code == 0
    else:
        shutil.copytree(request.getfixturevalue("made"), data)
    (tmp_path / "client.secret").write_text(SECRET + "\n")
    section = {
        "issuer": idp.issuer,
        "client_id": CLIENT,
        "client_secret_file": str(tmp_path / "client.secret"),
        "ca_file": idp.ca_file,
        "admit": [
            {"claim": "groups", "value": "operators", "role": "Owner"},
            {"claim": "groups", "value": "staff", "role": "Reader"},
            {"claim": "preferred_username", "value": "ada"},
            {"claim": "email", "value": "grace@example.org", "role": "Reader"},
        ],
    }
    hub_process.configure(data, {"oidc": section})
    return data


@pytest.fixture
def hub(data: Path) -> Iterator[Hub]:
    opened = open_hub(data)
    yield opened
    opened.database.close()


def value(set_cookie: str) -> str:
    return set_cookie.partition("=")[2].partition(";")[0]


def rows(hub: Hub, statement: str) -> list[tuple[Any, ...]]:
    with hub.database.read() as session:
        return [tuple(row) for row in session.execute(text(statement))]


def sign_in(hub: Hub, idp: Provider, to: str | None = None) -> oidc.Finished:
    begun = oidc.begin(hub, to)
    return oidc.finish(hub, idp.authorise(begun.location), value(begun.set_cookie), PEER)


def test_an_external_account_signs_in(hub: Hub, idp: Provider) -> None:
    idp.account = {"sub": "7", "preferred_username": "ada", "groups": ["staff", "other"], "email": "a@example.org"}
    begun = oidc.begin(hub, "/machines?x=1")
    asked = parse_qs(urlsplit(begun.location).query)
    assert (asked["tenant"], asked["response_type"], asked["code_challenge_method"]) == (["x"], ["code"], ["S256"])
    assert asked["redirect_uri"] == [f"{URL}/signin/oidc/callback"]
    assert all(word in begun.set_cookie for word in ("Secure", "HttpOnly", "SameSite=Lax", "__Host-"))
    done = oidc.finish(hub, idp.authorise(begun.location), value(begun.set_cookie), PEER)
    assert done.to == "/machines?x=1"
    person = sessions.of_cookie(hub, done.token)
    assert person is not None
    assert (person.caller.name, person.caller.assignments, person.email) == ("ada", (("Reader", "/"),), None)
    assert allows(person.caller, Action.MACHINE_READ, "/subscriptions/x")
    with hub.database.read() as session:
        last = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc()).limit(1)).one()
    assert (last.actor, last.action) == ("ada", "session/create")
    assert "oidc" in (last.detail or {}).values()


def test_roles_from_claims_are_what_they_are_today(hub: Hub, idp: Provider, data: Path) -> None:
    idp.account = {"sub": "7", "preferred_username": "ada", "groups": ["operators"]}
    sign_in(hub, idp)
    assert run(data, "role", "assign", "ada", "Onboarding").exit_code == 0
    idp.account["groups"] = ["staff"]
    idp.account["preferred_username"] = "ada2"  # another name there; the subject is who it is
    person = sessions.of_cookie(hub, sign_in(hub, idp).token)
    assert person is not None
    assert (person.caller.name, set(person.caller.assignments)) == ("ada", {("Reader", "/"), ("Onboarding", "/")})


def _audited(hub: Hub) -> list[tuple[str, str, str, dict[str, Any]]]:
    """What sign-ins changed: who, what, where, detail."""
    wanted = select(AuditEntry).where(AuditEntry.actor_type == "user", AuditEntry.action != "session/create")
    with hub.database.read() as session:
        found = session.scalars(wanted.order_by(AuditEntry.id))
        return [(item.actor, item.action, item.target, item.detail or {}) for item in found]


def test_what_a_sign_in_changes_is_audited(hub: Hub, idp: Provider) -> None:
    idp.account = {"sub": "7", "preferred_username": "ada", "groups": ["operators", "staff"]}
    idp.account |= {"email": "ada@example.org", "email_verified": True}
    person = sessions.of_cookie(hub, sign_in(hub, idp).token)
    assert person is not None
    user_id, first = person.caller.object_id, _audited(hub)
    changed = {"name": "ada", "changed": ["external", "email"], "by": "oidc"}
    assert first[0] == ("ada", "Hawser.Hub/users/write", f"/users/{user_id}", changed)
    given = [(item[1], item[2], item[3]["role"], item[3]["objectId"], item[3]["by"]) for item in first[1:]]
    write, taken = (f"Microsoft.Authorization/roleAssignments/{word}" for word in ("write", "delete"))
    assert given == [(write, "/", role, user_id, "oidc") for role in ("Owner", "Reader")]

    held = "SELECT id, role, created FROM role_assignments ORDER BY role"
    before = rows(hub, held)
    sign_in(hub, idp)
    assert _audited(hub) == first  # nothing is other than it was
    assert rows(hub, held) == before

    idp.account["groups"], idp.account["email"] = ["staff"], "lovelace@example.org"
    sign_in(hub, idp)
    user, role = _audited(hub)[len(first) :]
    assert (user[1], user[3]["changed"]) == ("Hawser.Hub/users/write", ["email"])
    assert (role[1], role[3]["role"], role[3]["name"]) == (taken, "Owner", before[0][0])
    assert rows(hub, held) == before[1:]


def test_an_account_becomes_the_user_that_was_made_for_it(hub: Hub, idp: Provider) -> None:
    with hub.database.write() as session:
        made = people.create(session, "ada", None, now())
    idp.account = {"sub": "7", "preferred_username": "ada"}
    sign_in(hub, idp)
    (entry,) = _audited(hub)
    assert (entry[2], entry[3]["changed"]) == (f"/users/{made.id}", ["external"])


@pytest.mark.parametrize(
    ("account", "told"),
    [
        ({"sub": "1", "preferred_username": "eve"}, "may not sign in here"),
        ({"sub": "1", "preferred_username": "eve", "groups": "staff-not"}, "may not sign in here"),
        ({"sub": "1", "preferred_username": "x", "email": "grace@example.org"}, "may not sign in here"),
        (
            {"sub": "1", "preferred_username": "x", "email": "grace@example.org", "email_verified": "true"},
            "may not sign in here",
        ),
        ({"sub": "1", "groups": ["staff"]}, "no usable name"),
        ({"sub": "1", "groups": ["staff"], "preferred_username": "<b>"}, "no usable name"),
        ({"sub": "1", "groups": ["staff"], "preferred_username": "local"}, "belongs to another user"),
    ],
)
def test_who_is_not_admitted(hub: Hub, idp: Provider, data: Path, account: dict[str, Any], told: str) -> None:
    assert run(data, "user", "create", "local", "--role", "Owner", given="a quiet harbour at noon").exit_code == 0
    idp.account = account
    with pytest.raises(ApiError, match=told) as refused:
        sign_in(hub, idp)
    assert (refused.value.status, refused.value.code) == (403, "NotAdmitted")
    assert rows(hub, "SELECT count(*) FROM users") == [(1,)]
    last = rows(hub, "SELECT outcome, code FROM audit ORDER BY id DESC LIMIT 1")
    assert last == [("Refused", "NotAdmitted")]


def test_a_disabled_user_stays_out(hub: Hub, idp: Provider, data: Path) -> None:
    token = sign_in(hub, idp).token
    assert run(data, "user", "disable", "ada").exit_code == 0
    assert sessions.of_cookie(hub, token) is None
    with pytest.raises(ApiError, match="disabled"):
        sign_in(hub, idp)


def test_a_verified_address_admits(hub: Hub, idp: Provider) -> None:
    idp.account = {"sub": "1", "preferred_username": "g", "email": "grace@example.org", "email_verified": True}
    assert sign_in(hub, idp).to == "/"


def test_no_password_opens_an_external_account(hub: Hub, idp: Provider) -> None:
    sign_in(hub, idp)
    for password in ("", "None", "ada"):
        with pytest.raises(ApiError):
            sessions.sign_in(hub, "ada", password, PEER)


def test_state_and_cookie_belong_together(hub: Hub, idp: Provider) -> None:
    one, other = oidc.begin(hub), oidc.begin(hub)
    back = idp.authorise(one.location)
    tries: list[tuple[dict[str, str], str | None]] = [
        (back, None),
        (back, ""),
        (back, value(other.set_cookie)),
        (back, value(one.set_cookie)[:-4] + "AAAA"),
        (back, "ä"),
        ({**back, "state": "x"}, value(one.set_cookie)),
        ({"code": back["code"]}, value(one.set_cookie)),
    ]
    for query, cookie in tries:
        with pytest.raises(ApiError) as refused:
            oidc.finish(hub, query, cookie, PEER)
        assert (refused.value.status, refused.value.code) == (400, "InvalidSignIn")
    assert idp.redeemed == []


def test_it_must_not_take_too_long(hub: Hub, idp: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = oidc.begin(hub)
    later = now() + oidc.LIFE_SECONDS + 1
    monkeypatch.setattr(oidc, "now", lambda: later)
    with pytest.raises(ApiError, match="took too long"):
        oidc.finish(hub, idp.authorise(begun.location), value(begun.set_cookie), PEER)


def test_a_code_is_good_once(hub: Hub, idp: Provider) -> None:
    begun = oidc.begin(hub)
    back = idp.authorise(begun.location)
    oidc.finish(hub, back, value(begun.set_cookie), PEER)
    with pytest.raises(ApiError, match="code was refused"):
        oidc.finish(hub, back, value(begun.set_cookie), PEER)


def test_a_code_of_another_browser_is_refused_by_pkce(hub: Hub, idp: Provider) -> None:
    mine, stolen = oidc.begin(hub), oidc.begin(hub)
    code = idp.authorise(stolen.location)["code"]
    state = idp.authorise(mine.location)["state"]
    with pytest.raises(ApiError, match="code was refused"):
        oidc.finish(hub, {"code": code, "state": state}, value(mine.set_cookie), PEER)


def _claims(**changes: Any) -> Any:
    def twist(token: IdToken) -> None:
        token.claims = {name: item for name, item in {**token.claims, **changes}.items() if item is not None}

    return twist


def _token(**changes: Any) -> Any:
    def twist(token: IdToken) -> None:
        for name, item in changes.items():
            setattr(token, name, item)

    return twist


@pytest.mark.parametrize(
    "twist",
    [
        _claims(nonce="another"),
        _claims(nonce=None),
        _claims(iss="https://evil.example"),
        _claims(aud="another"),
        _claims(aud=[CLIENT, "another"]),  # without azp
        _claims(aud=[CLIENT, "another"], azp="another"),
        _claims(exp=1000),
        _claims(exp=None),
        _claims(iat=None),
        _claims(sub=None),
        _claims(sub=7),
        _claims(at_hash="AAAA"),
        _token(algorithm="none", key=None),
        _token(algorithm="HS256", key="shared" * 6, header={"kid": "shared"}),
        _token(key=rsa.generate_private_key(65537, 2048)),
        _token(header={"kid": "unknown"}),
        _token(algorithm="RS512"),
    ],
)
def test_id_tokens_that_are_not_believed(hub: Hub, idp: Provider, twist: Any) -> None:
    idp.twist = twist
    with pytest.raises(ApiError) as refused:
        sign_in(hub, idp)
    assert (refused.value.status, refused.value.code) == (401, "InvalidIdToken")


def test_a_token_without_kid_is_believed_when_there_is_one_key(hub: Hub, idp: Provider) -> None:
    idp.twist = _token(header={})
    assert sign_in(hub, idp).token


def test_another_issuer_in_the_answer(hub: Hub, idp: Provider) -> None:
    begun = oidc.begin(hub)
    back = idp.authorise(begun.location)
    with pytest.raises(ApiError, match="another identity provider"):
        oidc.finish(hub, {**back, "iss": "https://evil.example"}, value(begun.set_cookie), PEER)
    assert oidc.finish(hub, {**back, "iss": idp.issuer}, value(begun.set_cookie), PEER).token


def test_the_provider_says_no(hub: Hub, idp: Provider) -> None:
    begun = oidc.begin(hub)
    state = idp.authorise(begun.location)["state"]
    for answer in ({"error": "access_denied\x1b[2J" + "x" * 500}, {}):
        with pytest.raises(ApiError) as refused:
            oidc.finish(hub, {"state": state, **answer}, value(begun.set_cookie), PEER)
        assert (refused.value.code, len(refused.value.message) < 120) == ("SignInRefused", True)
        assert "\x1b" not in refused.value.message


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://127.0.0.1/token"},
        {"authorization_endpoint": None},
    ],
)
def test_metadata_that_is_refused(hub: Hub, idp: Provider, document: dict[str, Any]) -> None:
    idp.document = document
    with pytest.raises(ApiError) as refused:
        oidc.begin(hub)
    assert (refused.value.status, refused.value.code) == (502, "IdentityProviderUnavailable")


def test_an_answer_without_end_is_cut(hub: Hub, idp: Provider) -> None:
    idp.document = {"jwks_uri": f"{idp.issuer}/huge"}
    with pytest.raises(ApiError, match="answers too much"):
        sign_in(hub, idp)


def test_a_provider_with_an_untrusted_certificate(hub: Hub, idp: Provider, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(pki.certificate_pem(pki.make_ca("other").certificate))
    hub.config = {"oidc": {**hub.config["oidc"], "ca_file": str(tmp_path / "other.pem")}}
    with pytest.raises(ApiError, match="cannot be reached"):
        oidc.begin(hub)


@pytest.mark.parametrize(
    ("to", "safe"),
    [
        ("/machines", "/machines"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("", "/"),
        (None, "/"),
        ("/" + "x" * 2000, "/"),
    ],
)
def test_nobody_is_sent_elsewhere(to: str | None, safe: str) -> None:
    assert oidc.local_path(to) == safe


def test_off_unless_configured(data: Path) -> None:
    hub_process.configure(data, {})
    hub = open_hub(data)
    assert not oidc.enabled(hub)
    for call in (lambda: oidc.begin(hub), lambda: oidc.finish(hub, {}, None, PEER)):
        with pytest.raises(ApiError) as refused:
            call()
        assert refused.value.status == 404
    hub.database.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"admit": []}, "admit"),
        ({"admit": [{"claim": "groups", "value": "x", "role": "God"}]}, "God"),
        ({"admit": [{"claim": "groups", "value": "x", "role": "Owner", "scope": "all"}]}, "scope"),
        ({"issuer": "http://idp.example"}, "issuer"),
        ({"secret": "in the file"}, "secret"),
    ],
)
def test_configurations_that_are_refused(data: Path, change: dict[str, Any], told: str) -> None:
    section = yaml.safe_load((data / "config.yaml").read_text())["oidc"]
    hub_process.configure(data, {"oidc": {**section, **change}})
    with pytest.raises(OperatorError, match=told):
        open_hub(data)


def test_through_the_browser(tmp_path: Path, idp: Provider) -> None:
    """The routes of a real hub process, followed as a browser does."""
    hub = hub_process.make(tmp_path / "hub")
    (tmp_path / "client.secret").write_text(SECRET)
    section = {
        "issuer": idp.issuer,
        "client_id": CLIENT,
        "client_secret_file": str(tmp_path / "client.secret"),
        "ca_file": idp.ca_file,
        "admit": [{"claim": "preferred_username", "value": "ada", "role": "Reader"}],
    }
    hub_process.configure(hub.data, {"oidc": section})
    both = tmp_path / "both.pem"
    both.write_bytes(Path(hub.ca_file).read_bytes() + Path(idp.ca_file).read_bytes())
    hub.start()
    try:
        with hub.session() as browser:
            browser.verify = str(both)
            landed = browser.get(f"{hub.url}/signin/oidc", timeout=30)
            assert [step.status_code for step in landed.history][:2] == [303, 302]
            assert (landed.status_code, landed.url) == (200, f"{hub.url}/fleet")
            assert "ada" in landed.text
            assert sessions.COOKIE in browser.cookies
        with hub.session() as browser:
            browser.verify = str(both)
            idp.account = {"sub": "2", "preferred_username": "eve"}
            landed = browser.get(f"{hub.url}/signin/oidc", timeout=30)
            assert (landed.status_code, sessions.COOKIE in browser.cookies) == (403, False)
            assert "may not sign in here" in landed.text
            forged = browser.get(f"{hub.url}/signin/oidc/callback?code=x&state=y", timeout=30)
            assert (forged.status_code, sessions.COOKIE in browser.cookies) == (400, False)
    finally:
        assert hub.stop() == 0

# SPDX-License-Identifier: Apache-2.0
"""Users, passwords, sessions, on a real data directory."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import argon2
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from control_plane.arm.roles import Action, allows
from control_plane.cli import main
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.hub import Hub, open_hub
from control_plane.people import passwords, sessions, throttle

PASSWORD = "a quiet harbour at noon"
MACHINE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.HybridCompute/machines/m"


def run(data: Path, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, ["--data", str(data), *arguments], input=given, catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("hub") / "data"
    assert run(data, "init", "--url", "https://hub.example:8443").exit_code == 0
    assert run(data, "user", "create", "Ada", "--role", "Reader", given=f"{PASSWORD}\n").exit_code == 0
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def hub(data: Path) -> Iterator[Hub]:
    opened = open_hub(data)
    yield opened
    opened.database.close()


def rows(data: Path, query: str) -> list[Any]:
    with sqlite3.connect(data / "hub.db") as connection:
        return connection.execute(query).fetchall()


def test_a_session_is_a_caller_with_the_users_roles(hub: Hub, data: Path) -> None:
    token = sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1")
    person = sessions.of_cookie(hub, token)
    assert person is not None
    assert (person.caller.kind, person.caller.name, person.caller.audit_type) == ("user", "Ada", "User")
    assert allows(person.caller, Action.MACHINE_READ, MACHINE)
    assert not allows(person.caller, Action.MACHINE_DELETE, MACHINE)
    assert token.encode() not in (data / "hub.db").read_bytes() + (data / "hub.db-wal").read_bytes()
    assert rows(data, "SELECT actor_type, actor, action, outcome FROM audit ORDER BY id DESC LIMIT 1") == [
        ("user", "Ada", "session/create", "Succeeded")
    ]
    sessions.sign_out(hub, token)
    assert sessions.of_cookie(hub, token) is None
    sessions.sign_out(hub, token)
    assert len(rows(data, "SELECT 1 FROM audit WHERE action = 'session/delete'")) == 1


@pytest.mark.parametrize("cookie", [None, "", "x" * 43, "x" * 100000, "\ud800" * 43, "' OR 1=1 --"])
def test_no_text_is_a_session(hub: Hub, cookie: str | None) -> None:
    assert sessions.of_cookie(hub, cookie) is None
    sessions.sign_out(hub, cookie)


def test_the_form_belongs_to_the_session(hub: Hub) -> None:
    token, other = (sessions.sign_in(hub, "Ada", PASSWORD, "192.0.2.1") for _ in range(2))
    person = sessions.of_cookie(hub, token)
    assert person is not None
    sessions.check_csrf(person, person.csrf)
    for wrong in (None, "", token, sessions.csrf_of(other), "é"):
        with pytest.raises(ApiError) as refused:
            sessions.check_csrf(person, wrong)
        assert refused.value.status == 403


@pytest.mark.parametrize(
    ("command", "given"),
    [(("disable", "ada"), None), (("passwd", "ada"), "another quiet harbour"), (("delete", "ada"), None)],
)
def test_sessions_end_with_the_right_to_sign_in(hub: Hub, data: Path, command: tuple[str, ...], given: str) -> None:
    token = sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1")
    assert run(data, "user", *command, given=given).exit_code == 0
    assert sessions.of_cookie(hub, token) is None
    with pytest.raises(ApiError) as refused:
        sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1")
    assert refused.value.code == "InvalidCredentials"


def test_enabled_again_he_signs_in_but_old_sessions_stay_ended(hub: Hub, data: Path) -> None:
    token = sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1")
    run(data, "user", "disable", "ada")
    assert "nothing was changed" in run(data, "user", "disable", "ada").stdout
    run(data, "user", "enable", "ada")
    assert sessions.of_cookie(hub, token) is None
    assert sessions.of_cookie(hub, sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1")) is not None


def _at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(sessions, "now", lambda: at)


def test_sessions_in_use_end_with_their_life(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    token, at = sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1"), now()
    for after in range(0, 2 * sessions.LIFE_SECONDS, sessions.IDLE_SECONDS - 60):
        _at(monkeypatch, at + after)
        assert (sessions.of_cookie(hub, token) is not None) == (after < sessions.LIFE_SECONDS)


def test_unused_sessions_end(hub: Hub, monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    token, at = sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1"), now()
    _at(monkeypatch, at + sessions.IDLE_SECONDS + 5)
    assert sessions.of_cookie(hub, token) is None
    sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1")
    assert rows(data, "SELECT count(*) FROM user_sessions") == [(1,)]


def test_failures_are_alike_audited_and_counted(hub: Hub, data: Path) -> None:
    told = set()
    for name, password in (("ada", "wrong"), ("nobody", PASSWORD), ("hunter2 typed here", "")):
        with pytest.raises(ApiError) as refused:
            sessions.sign_in(hub, name, password, "192.0.2.9")
        told.add((refused.value.status, refused.value.code, refused.value.message))
    assert len(told) == 1
    found = rows(data, "SELECT actor, outcome, code FROM audit WHERE action = 'session/create'")
    assert found == [
        ("Ada", "Refused", "InvalidCredentials"),
        ("unknown", "Refused", "InvalidCredentials"),
    ]
    text = hub.metrics.text().decode()
    assert 'hawser_refusals_total{action="session/create",code="InvalidCredentials"} 3.0' in text


def test_failures_do_not_fill_the_audit(hub: Hub, data: Path) -> None:
    for number in range(40):
        with pytest.raises(ApiError):
            sessions.sign_in(hub, f"nobody{number}", PASSWORD, f"192.0.2.{number}")
    assert rows(data, "SELECT count(*) FROM audit WHERE action = 'session/create'") == [(1,)]


def test_many_at_once_fail_no_more_often_than_one_after_the_other(hub: Hub) -> None:
    def attempt(_number: int) -> int:
        try:
            sessions.sign_in(hub, "ada", "wrong", "192.0.2.1")
        except ApiError as error:
            return error.status
        return 200

    with ThreadPoolExecutor(20) as pool:
        told = Counter(pool.map(attempt, range(20)))
        told.update(pool.map(attempt, range(20)))
    assert told == {401: throttle.NAME_AND_PEER.amount, 429: 40 - throttle.NAME_AND_PEER.amount}


def test_too_many_failures_are_throttled_for_that_address_alone(hub: Hub) -> None:
    for _ in range(throttle.NAME_AND_PEER.amount):
        with pytest.raises(ApiError, match="wrong"):
            sessions.sign_in(hub, "ada", "wrong", "192.0.2.1")
    with pytest.raises(ApiError) as refused:
        sessions.sign_in(hub, "Ada", PASSWORD, "192.0.2.1")
    assert (refused.value.status, int(refused.value.headers["Retry-After"]) > 0) == (429, True)
    assert sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.2")


def test_throttle_by_name_and_by_address() -> None:
    counted = throttle.Throttle()

    def come(name: str, peer: str, *, failed: bool = False) -> None:
        with counted.attempt(name, peer) as attempt:
            attempt.failed = failed

    for index in range(throttle.PEER.amount):
        come(f"name{index}", "192.0.2.1", failed=True)
        come(f"name{index}", f"2001:db8::{index}", failed=True)
    for index in range(throttle.NAME.amount):
        come("ada", f"192.0.2.{index + 10}", failed=True)
    for name, peer in (("fresh", "192.0.2.1"), ("fresh", "2001:db8::ffff:1"), ("ADA", "198.51.100.1")):
        with pytest.raises(ApiError):
            come(name, peer)
    for _ in range(2 * throttle.PEER.amount):
        come("fresh", "198.51.100.1")


def test_a_password_made_before_other_parameters_is_hashed_anew(hub: Hub, data: Path) -> None:
    old = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    with sqlite3.connect(data / "hub.db") as connection:
        connection.execute("UPDATE users SET password = ?", (old,))
    token = sessions.sign_in(hub, "ada", PASSWORD, "192.0.2.1")
    assert sessions.of_cookie(hub, token) is not None
    assert rows(data, "SELECT password FROM users")[0][0].startswith("$argon2id$v=19$m=65536,t=3,p=1$")


@given(st.text(max_size=40), st.text(max_size=20))
def test_what_is_refused_as_a_password(password: str, name: str) -> None:
    told = passwords.refusal(password, name)
    if told is None:
        assert len(password) >= passwords.MIN_LENGTH
        assert password.isprintable()
        assert password.lower() != name.lower()


def test_made_passwords_may_be_passwords() -> None:
    assert all(passwords.refusal(passwords.made(), "ada") is None for _ in range(50))


def test_commands(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "grace.password"
    answer = run(
        data, "user", "create", "grace", "--new-password-file", str(file), "--email", "g@example.org", "--json"
    )
    made = json.loads(answer.stdout)
    assert (made["roles"], made["email"], file.stat().st_mode & 0o777) == ([], "g@example.org", 0o600)
    assert file.read_text() not in answer.stdout
    assert run(data, "role", "assign", "grace", "owner", "--scope", "/").exit_code == 0
    again = run(data, "role", "assign", "grace", "Owner")
    assert (again.exit_code, "nothing was changed" in again.stdout) == (0, True)
    listed = json.loads(run(data, "role", "list", "--name", "grace", "--json").stdout)
    assert [(item["kind"], item["role"], item["scope"]) for item in listed] == [("user", "Owner", "/")]
    assert "no longer" in run(data, "role", "remove", "grace", "Owner").stdout
    assert "was not" in run(data, "role", "remove", "grace", "Owner").stdout
    assert [item["name"] for item in json.loads(run(data, "user", "list", "--json").stdout)] == ["Ada", "grace"]
    given = tmp_path / "given"
    given.write_text("given in a file, long\n")
    assert run(data, "user", "passwd", "grace", "--password-file", str(given)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (("user", "create", "ada"), PASSWORD, "exists already"),
        (("user", "create", "a b"), PASSWORD, "cannot be a user's name"),
        (("user", "create", "bob"), "short", "at least 12"),
        (("user", "create", "bob"), "aaaaaaaaaaaaaaa", "easy to guess"),
        (("user", "create", "bob", "--email", "<b>"), PASSWORD, "not an e-mail"),
        (("user", "create", "bob", "--password-file", "/nonexistent"), None, "cannot be read"),
        (
            ("user", "create", "bob", "--password-file", "-", "--new-password-file", "x"),
            PASSWORD,
            "either given or made",
        ),
        (("user", "create", "bob", "--role", "Owner", "--scope", "/x"), PASSWORD, "not a scope"),
        (("user", "create", "bob", "--role", "Owner", "--scope", "/subscriptions/x"), PASSWORD, "no subscription"),
        (("user", "disable", "nobody"), None, "no user 'nobody'"),
        (("role", "assign", "nobody", "Owner"), None, "no principal or user"),
        (("role", "list", "--scope", "nowhere"), None, "not a scope"),
    ],
)
def test_bad_input_makes_nothing(data: Path, arguments: tuple[str, ...], given: str | None, message: str) -> None:
    before = rows(data, "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM audit)")
    answer = run(data, *arguments, given=given)
    assert (answer.exit_code, message in answer.stderr) == (1, True), answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 2
    assert rows(data, "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM audit)") == before


def test_a_name_that_two_have_is_refused(data: Path) -> None:
    assert run(data, "principal", "create", "ada", "--role", "Reader").exit_code == 0
    answer = run(data, "role", "assign", "ada", "Owner")
    assert (answer.exit_code, "Both a principal and a user" in answer.stderr) == (1, True)

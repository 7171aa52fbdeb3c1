# SPDX-License-Identifier: Apache-2.0
"""Rotation of the keys that sign access tokens."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from control_plane import pki, token_keys
from control_plane.authority import claims
from control_plane.authority import tokens as module
from control_plane.authority.claims import Subject
from control_plane.authority.tokens import Tokens
from control_plane.cli import main
from control_plane.errors import ApiError
from control_plane.token_keys import KEPT_SECONDS, Folder, TokenKey, published, signing

URL, TENANT = "https://hub.example:8443", "6f1f6c8e-2a56-4c6e-9b0e-6f6f1d0b7a11"
MADE = [pki.make_token_key(TENANT) for _ in range(3)]
TIMES = st.lists(st.integers(0, 10 * KEPT_SECONDS), min_size=1, max_size=3, unique=True)


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--data", str(data), *arguments], catch_exceptions=False)


@given(TIMES, st.integers(0, 12 * KEPT_SECONDS), st.integers(0, claims.MACHINE_SECONDS))
def test_a_token_is_believed_as_long_as_it_lives(begins: list[int], at: int, life: int) -> None:
    keys = [TokenKey(*made, begin) for made, begin in zip(MADE, begins, strict=False)]
    signer = signing(keys, at)
    assert published(keys, at)[0] is signer
    assert signer in published(keys, at + life)
    assert all(key in published(keys, at) for key in keys if key.signs_from > at)


@given(TIMES, st.integers(0, 12 * KEPT_SECONDS))
def test_one_key_signs_whatever_the_order_of_files(begins: list[int], at: int) -> None:
    keys = [TokenKey(*made, begin) for made, begin in zip(MADE, begins, strict=False)]
    assert signing(keys, at) is signing(keys[::-1], at)
    assert published(keys, at) == published(keys[::-1], at)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    assert run(tmp_path / "data", "init", "--url", URL).exit_code == 0
    return tmp_path / "data"


def _tokens(data: Path) -> Tokens:
    return Tokens(URL, TENANT, token_keys.load(data / "keys"), Folder(data / "keys"))


def _kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def test_a_successor_is_published_before_it_signs(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = int(time.time())
    tokens = _tokens(data)
    before = _kid(tokens.issue(Subject("a", "o"), URL, "1", at, 60))
    made = json.loads(run(data, "keys", "rotate", "token", "--json").stdout)
    assert tokens.refresh()
    assert not tokens.refresh()
    assert [item["kid"] for item in tokens.jwks()["keys"]] == [before, made["kid"]]
    old = tokens.issue(Subject("a", "o"), URL, "1", at, claims.MACHINE_SECONDS)
    assert _kid(old) == before
    again = run(data, "keys", "rotate", "token")
    assert (again.exit_code, "published already" in again.stderr) == (1, True)
    later = at + 24 * 3600 + 5
    monkeypatch.setattr(module, "now", lambda: later)
    assert _kid(tokens.issue(Subject("a", "o"), URL, "1", later, 60)) == made["kid"]
    assert [item["kid"] for item in tokens.jwks()["keys"]] == [made["kid"], before]
    assert tokens.verify(old, frozenset({URL}), at + 100)["oid"] == "o"
    over = later + KEPT_SECONDS
    monkeypatch.setattr(module, "now", lambda: over)
    assert [item["kid"] for item in tokens.jwks()["keys"]] == [made["kid"]]
    tokens.prune(over)
    assert not (data / "keys/token.key").exists()
    assert not (data / "keys/token.crt").exists()
    assert [item.kid for item in token_keys.load(data / "keys")] == [made["kid"]]


def test_another_process_believes_a_new_key_at_once(data: Path) -> None:
    one, other = _tokens(data), _tokens(data)
    made = json.loads(run(data, "keys", "rotate", "token", "--now", "--json").stdout)
    one.refresh()
    at = int(time.time()) + 1
    token = one.issue(Subject("a", "o"), URL, "1", at, 60)
    assert _kid(token) == made["kid"]
    assert other.verify(token, frozenset({URL}), at)["oid"] == "o"
    listed = json.loads(run(data, "keys", "list", "--json").stdout)
    assert [item["state"] for item in listed] == ["signs", "published"]


def test_revoked_keys_vouch_for_nothing(data: Path) -> None:
    tokens, at = _tokens(data), int(time.time())
    token = tokens.issue(Subject("a", "o"), URL, "1", at, 60)
    assert tokens.verify(token, frozenset({URL}), at)
    assert run(data, "keys", "rotate", "token").exit_code == 0
    assert run(data, "keys", "rotate", "token", "--revoke-old").exit_code == 0
    tokens.refresh()
    with pytest.raises(ApiError):
        tokens.verify(token, frozenset({URL}), at)
    assert len(token_keys.load(data / "keys")) == 1


def test_damaged_keys_change_nothing_in_a_running_hub(data: Path) -> None:
    tokens = _tokens(data)
    (data / "keys/token-5.pem").write_text("half")
    assert not tokens.refresh()
    assert len(tokens.jwks()["keys"]) == 1
    answer = run(data, "keys", "list")
    assert (answer.exit_code, "cannot be loaded" in answer.stderr) == (1, True)


def test_key_files_are_private_and_audited(data: Path) -> None:
    run(data, "keys", "rotate", "token", "--now")
    modes = {path.stat().st_mode & 0o777 for path in (data / "keys").glob("token*")}
    assert modes == {0o600}

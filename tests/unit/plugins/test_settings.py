# SPDX-License-Identifier: Apache-2.0
"""Where credentials come from, and what is said when they are not there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _errors as errors
from ansible_collections.hawser.machine.plugins.plugin_utils import _settings as settings

EMPTY: dict[str, Any] = dict.fromkeys(settings.VARIABLES)


@pytest.mark.parametrize(
    ("options", "environment", "profile", "option", "expected"),
    [
        ({"tenant_id": "o"}, {"HAWSER_TENANT_ID": "h", "AZURE_TENANT_ID": "a"}, {"tenant_id": "p"}, "tenant_id", "o"),
        ({}, {"HAWSER_TENANT_ID": "h", "AZURE_TENANT_ID": "a"}, {"tenant_id": "p"}, "tenant_id", "h"),
        ({}, {"AZURE_TENANT_ID": "a"}, {"tenant_id": "p"}, "tenant_id", "a"),
        ({}, {"HAWSER_TENANT_ID": ""}, {"tenant_id": "p"}, "tenant_id", "p"),
        ({}, {}, None, "tenant_id", None),
        ({}, {"HAWSER_ARM": "https://hub/"}, None, "arm", "https://hub"),
        ({"client_secret_file": "f"}, {"HAWSER_CLIENT_SECRET": "h"}, None, "client_secret", None),
        ({"client_secret": "o"}, {"HAWSER_CLIENT_SECRET_FILE": "h"}, None, "client_secret_file", None),
        ({}, {"HAWSER_CLIENT_SECRET_FILE": "h", "AZURE_CLIENT_SECRET": "a"}, None, "client_secret", None),
        ({}, {"HAWSER_CLIENT_SECRET": "s", "HAWSER_CLIENT_SECRET_FILE": "h"}, None, "client_secret_file", None),
    ],
)
def test_precedence(options: Any, environment: Any, profile: Any, option: str, expected: str | None) -> None:
    assert settings.resolve({**EMPTY, **options}, environment, profile)[option] == expected


def test_options_that_a_module_does_not_have_are_not_added() -> None:
    assert settings.resolve({"config": {}}, {"HAWSER_ARM": "https://hub"}, None) == {"config": {}}


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(errors.OptionError) as caught:
        settings.hub_settings({**EMPTY, "authority": "https://hub"}, None)
    assert "arm, tenant_id, client_id, client_secret" in caught.value.message
    assert "HAWSER_ARM, HAWSER_TENANT_ID, HAWSER_CLIENT_ID, HAWSER_CLIENT_SECRET" in caught.value.remedy


def full(**changes: Any) -> dict[str, Any]:
    base = {
        "arm": "https://hub",
        "authority": "https://hub",
        "tenant_id": "t",
        "client_id": "c",
        "client_secret": "hush",
    }
    return {**EMPTY, **base, **changes}


def test_a_token_stands_for_the_principal() -> None:
    found = settings.hub_settings(full(client_id=None, client_secret=None, access_token="x"), None)
    assert found.access_token == "x"


def test_http_is_refused() -> None:
    with pytest.raises(errors.OptionError, match="arm is http://hub"):
        settings.hub_settings(full(arm="http://hub"), None)


def test_secret_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "secret"
    path.write_text("hush\n")
    assert settings.hub_settings(full(client_secret=None, client_secret_file=str(path)), None).client_secret == "hush"
    with pytest.raises(errors.OptionError, match="cannot be read"):
        settings.hub_settings(full(client_secret=None, client_secret_file=str(tmp_path / "no")), None)


def test_secrets_are_not_in_what_is_printed() -> None:
    found = settings.hub_settings(full(access_token="token-text"), None)
    assert "hush" not in repr(found)
    assert "token-text" not in repr(found)
    assert "hush" not in found.cache_key("scope")


def test_tokens_of_different_principals_are_kept_apart() -> None:
    keys = {
        settings.hub_settings(full(**changes), None).cache_key(scope)
        for changes in (
            {},
            {"client_id": "d"},
            {"client_secret": "other"},
            {"tenant_id": "u"},
            {"authority": "https://b"},
        )
        for scope in ("a", "b")
    }
    assert len(keys) == 10


def test_profile(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "p.json").write_text(json.dumps({"name": "demo"}))
    assert settings.load_profile("p.json", str(tmp_path)) == {"name": "demo"}
    assert settings.load_profile({"name": "demo"}, "/") == {"name": "demo"}
    assert settings.load_profile(None, "/") is None


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"name": 1}', "x" * 300_000])
def test_what_is_no_profile_is_refused(tmp_path, text: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(errors.OptionError):
        settings.load_profile("p.json", str(tmp_path))

# SPDX-License-Identifier: Apache-2.0
"""The JSON Schemas are valid themselves, take what the protocol describes and refuse what it forbids."""

from __future__ import annotations

import copy
import json
import pathlib
from typing import Any

import jsonschema
import pytest

SCHEMAS = pathlib.Path(__file__).parents[3] / "docs" / "schemas"
GUID = "0b0c6a52-57f1-4f11-9d6d-0f3f9d1d2c3b"
PROFILE: dict[str, Any] = {
    "schema": 1,
    "name": "demo",
    "arm": "https://hub.example:8443",
    "authority": "https://hub.example:8443",
    "tenant_id": GUID,
    "channel": ["https://hub.example:8443/channel"],
    "artefacts": ["https://hub.example:8443/artefacts"],
    "gateway": None,
    "ca_pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "tuf_root": None,
    "locations": ["local"],
    "desired_state_keys": [{"kid": "key-1", "kty": "OKP", "crv": "Ed25519", "x": "A" * 43}],
}
WISH: dict[str, Any] = {
    "schema": 1,
    "cloud": PROFILE,
    "connection": {
        "state": "connected",
        "cloud": "demo",
        "tenant_id": GUID,
        "subscription_id": GUID,
        "resource_group": "rg-(1)",
        "location": "local",
        "name": "web-01",
        "credential": {"access_token": "abc"},
    },
    "config": {"proxy.url": None, "extensions.blocklist": ["a/b"], "extensions.enabled": True},
    "tags": {"env": "demo"},
}
CHECKIN: dict[str, Any] = {
    "protocol": 1,
    "requestId": GUID,
    "slot": 1,
    "epoch": 1,
    "nonce": "n",
    "evidenceDigest": "0" * 64,
    "agentVersion": "1.0.0.1",
    "holdSeconds": 300,
    "bootId": None,
    "generations": {"resource": 3, "policy": 0},
}


def load(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def accepts(name: str, document: Any) -> bool:
    return jsonschema.Draft7Validator(load(name)).is_valid(document)


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `document` with `value` at the dotted `path`; list indices are numbers."""
    result = copy.deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    target: Any = result
    for part in parents:
        target = target[part]
    target[last] = value
    return result


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: str(path.name))
def test_schema_is_valid(path: pathlib.Path) -> None:
    jsonschema.Draft7Validator.check_schema(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("name", "document"), [("cloud-profile", PROFILE), ("apply-input", WISH), ("channel-checkin", CHECKIN)]
)
def test_takes_what_the_protocol_shows(name: str, document: dict[str, Any]) -> None:
    assert accepts(name, document)


@pytest.mark.parametrize(
    ("name", "document", "path", "value"),
    [
        ("cloud-profile", PROFILE, "arm", "http://hub.example"),
        ("cloud-profile", PROFILE, "arm", "https://hub.example/"),
        ("cloud-profile", PROFILE, "name", "../etc"),
        ("cloud-profile", PROFILE, "name", ".hidden"),
        ("cloud-profile", PROFILE, "locations", []),
        ("cloud-profile", PROFILE, "desired_state_keys", []),
        ("cloud-profile", PROFILE, "desired_state_keys/0/kty", "RSA"),
        ("cloud-profile", PROFILE, "run", "rm"),
        ("apply-input", WISH, "schema", 2),
        ("apply-input", WISH, "command", "id"),
        ("apply-input", WISH, "connection/state", "present"),
        ("apply-input", WISH, "connection/name", "a" * 55),
        ("apply-input", WISH, "connection/name", "web-"),
        ("apply-input", WISH, "connection/resource_group", "rg."),
        ("apply-input", WISH, "connection/credential/secret", "x"),
        ("apply-input", WISH, "config/proxy.url", {"a": 1}),
        ("apply-input", WISH, "cloud/ca_pem", "not a certificate"),
        ("apply-input", WISH, "tags", {"env": 1}),
        ("apply-input", WISH, "tags", {str(number): "" for number in range(51)}),
        ("channel-checkin", CHECKIN, "holdSeconds", 301),
        ("channel-checkin", CHECKIN, "generations/resource", -1),
        ("channel-checkin", CHECKIN, "slot", 0),
        ("channel-checkin", CHECKIN, "evidenceDigest", "short"),
    ],
)
def test_refuses(name: str, document: dict[str, Any], path: str, value: Any) -> None:
    assert not accepts(name, changed(document, path, value))

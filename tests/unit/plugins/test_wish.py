# SPDX-License-Identifier: Apache-2.0
"""What is composed obeys the schema of the apply input, and says what is wrong before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _errors as errors
from ansible_collections.hawser.machine.plugins.plugin_utils import _wish as wish
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs/schemas/apply-input.schema.json").read_text())
GUID = "11111111-2222-3333-4444-555555555555"
PROFILE = {
    "schema": 1,
    "name": "demo",
    "arm": "https://hub:8443",
    "authority": "https://hub:8443",
    "tenant_id": GUID,
    "channel": ["https://hub:8443/channel"],
    "ca_pem": "-----BEGIN CERTIFICATE-----\nx\n",
    "locations": ["local"],
    "desired_state_keys": [{"kid": "a", "kty": "OKP", "crv": "Ed25519", "x": "A" * 43}],
}
PLACE = {"tenant_id": GUID, "subscription_id": GUID, "resource_group": "servers", "location": "local"}


def options(**given_options: Any) -> dict[str, Any]:
    return {"state": "connected", "force_local_only": False, **PLACE, **given_options}


def test_the_whole_wish_obeys_the_schema() -> None:
    composed = wish.compose(
        options(tags={"env": "demo", "n": 1, "on": True}, config={"proxy.url": None, "extensions.blocklist": ["a/b"]}),
        "web01",
        PROFILE,
    )
    jsonschema.validate(composed, SCHEMA)
    assert composed["tags"] == {"env": "demo", "n": "1", "on": "true"}
    assert composed["connection"]["cloud"] == "demo"
    jsonschema.validate(wish.with_credential(composed, "secret"), SCHEMA)
    assert "credential" not in composed["connection"]


def test_absent_keys_are_not_sent() -> None:
    assert wish.compose({"config": {"config.mode": "full"}}, "web01", None) == {
        "schema": 1,
        "config": {"config.mode": "full"},
    }
    assert wish.compose(options(cloud="demo", tags=None, config=None), "web01", None).keys() == {"schema", "connection"}


def test_the_wish_of_an_image_obeys_the_schema() -> None:
    given_options = {"state": "sealed", "image_id": "web-1", "force": True, "keep_logs": False}
    token = "hwe_" + "x" * 43
    joins = {"enroll_on_first_boot": "web", "enrolment_token": token, "cloud": "demo"}
    for more in ({}, joins):
        composed = wish.compose_image({**given_options, **more}, "web01", None)
        jsonschema.validate(composed, SCHEMA)
        assert composed.keys() == {"schema", "image"}
        assert composed["image"].get("token") == more.get("enrolment_token")
    assert wish.compose_image({"state": "unsealed"}, "web01", None)["image"] == {"state": "unsealed"}
    copy = wish.compose_image({"state": "specialised", "is_copy": True}, "web01", None)
    assert copy == {"schema": 1, "image": {"state": "specialised", "is_copy": True}}
    jsonschema.validate(copy, SCHEMA)
    whole = wish.compose(options(state="disconnected", image={**given_options, **joins}), "web01", None)
    jsonschema.validate(whole, SCHEMA)
    assert (whole["connection"]["state"], whole["image"]["image_id"]) == ("disconnected", "web-1")
    with pytest.raises(errors.OptionError, match="no name"):
        wish.compose_image({**given_options, "image_id": None}, "web01", None)


def test_no_tags_are_not_absent_tags() -> None:
    assert wish.compose(options(tags={}), "web01", PROFILE)["tags"] == {}


def test_who_leaves_needs_no_place_and_no_profile() -> None:
    composed = wish.compose({"state": "disconnected", "force_local_only": True, "tags": {"a": "b"}}, "web01", PROFILE)
    assert composed == {"schema": 1, "connection": {"state": "disconnected", "force_local_only": True}}
    jsonschema.validate(composed, SCHEMA)


def test_every_missing_part_is_named_at_once() -> None:
    with pytest.raises(errors.OptionError) as caught:
        wish.compose(options(resource_group=None, location=""), "web01", PROFILE)
    assert caught.value.code == "AZCM0016"
    assert "resource_group, location missing" in caught.value.message
    assert "HAWSER_RESOURCE_GROUP, HAWSER_LOCATION" in caught.value.remedy


@pytest.mark.parametrize(
    ("given_options", "profile", "word"),
    [
        ({}, None, "no cloud"),
        ({"cloud": "other"}, PROFILE, "cloud is other"),
        ({"tags": {"a": None}}, PROFILE, "the tag a"),
        ({"tags": {"a": ["x"]}}, PROFILE, "the tag a"),
    ],
)
def test_what_cannot_be_meant_is_refused(given_options: dict[str, Any], profile: Any, word: str) -> None:
    with pytest.raises(errors.OptionError, match=word):
        wish.compose(options(**given_options), "web01", profile)


def test_a_host_that_becomes_an_image_is_not_connected() -> None:
    connected = wish.compose(options(), "web01", PROFILE)
    with pytest.raises(errors.OptionError, match="packer_builder_type is qemu") as caught:
        wish.refuse_builder(connected, "qemu")
    assert caught.value.code == "AZCM0027"
    for wanted, builder in (
        (connected, None),
        (connected, ""),
        ({"schema": 1, "connection": {"state": "disconnected"}, "image": {}}, "qemu"),
        ({"schema": 1, "config": {}}, "qemu"),
    ):
        wish.refuse_builder(wanted, builder)


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_what_is_sent_is_one_line_of_ascii(tags: dict[str, str]) -> None:
    text = wish.dump({"schema": 1, "tags": tags})
    assert text.isascii()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert json.loads(text)["tags"] == tags


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "x" * wish.LIMIT])
def test_what_cannot_be_sent_is_refused(value: Any) -> None:
    with pytest.raises(errors.OptionError):
        wish.dump({"schema": 1, "config": {"a": value}})


def test_a_credential_alone_makes_a_valid_connection() -> None:
    jsonschema.validate(wish.with_credential({"schema": 1, "tags": {}}, "t"), SCHEMA)

# SPDX-License-Identifier: Apache-2.0
"""Locks, tags, batches and bodies of the smaller types: pure functions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.arm import batch, kinds, paths, tags
from control_plane.arm.locks import CAN_NOT_DELETE, READ_ONLY, standing_against
from control_plane.errors import ApiError
from control_plane.http import Call, Reply

GROUP = "/subscriptions/s/resourceGroups/g"
MACHINE = f"{GROUP}/providers/Microsoft.HybridCompute/machines/m"
LOCK = f"{MACHINE}/providers/Microsoft.Authorization/locks/l"


@pytest.mark.parametrize(
    ("method", "target", "scope", "level", "stands"),
    [
        ("DELETE", MACHINE, MACHINE, CAN_NOT_DELETE, True),
        ("DELETE", MACHINE, GROUP.upper(), CAN_NOT_DELETE, True),
        ("DELETE", GROUP, MACHINE, CAN_NOT_DELETE, True),
        ("DELETE", f"{MACHINE}2", MACHINE, CAN_NOT_DELETE, False),
        ("PUT", MACHINE, MACHINE, CAN_NOT_DELETE, False),
        ("PATCH", MACHINE, GROUP, READ_ONLY, True),
        ("POST", f"{MACHINE}/assessPatches", MACHINE, READ_ONLY, True),
        ("PUT", GROUP, MACHINE, READ_ONLY, False),
        ("DELETE", GROUP, MACHINE, READ_ONLY, True),
        ("DELETE", LOCK, MACHINE, READ_ONLY, False),
        ("PUT", f"{MACHINE}/providers/Microsoft.Resources/tags/default", MACHINE, READ_ONLY, True),
    ],
)
def test_what_a_lock_stands_against(method: str, target: str, scope: str, level: str, stands: bool) -> None:
    assert (standing_against(method, target, [(scope, level)]) == scope) == stands


@pytest.mark.parametrize(
    ("operation", "given_tags", "after"),
    [
        ("Merge", {"A": "2", "c": "3"}, {"b": "1", "A": "2", "c": "3"}),
        ("Replace", {"c": "3"}, {"c": "3"}),
        ("Delete", {"A": "1"}, {"b": "1"}),
        ("Delete", {"a": "another"}, {"a": "1", "b": "1"}),
    ],
)
def test_changes_of_tags(operation: str, given_tags: dict[str, str], after: dict[str, str]) -> None:
    assert tags.changed({"a": "1", "b": "1"}, operation, given_tags) == after


_TAGS = st.dictionaries(st.sampled_from("aAbBc"), st.sampled_from("12"), max_size=4).filter(
    lambda found: len({name.lower() for name in found}) == len(found)
)


@given(_TAGS, _TAGS)
def test_merging_twice_is_merging_once_and_deleting_takes_it_back(old: dict[str, str], new: dict[str, str]) -> None:
    once = tags.changed(old, "Merge", new)
    assert tags.changed(once, "Merge", new) == once
    assert len({name.lower() for name in once}) == len(once)
    left = tags.changed(once, "Delete", new)
    assert not {name.lower() for name in left} & {name.lower() for name in new}


def _call(**changes: Any) -> Call:
    known: dict[str, Any] = {
        "method": "POST",
        "path": "/batch",
        "query": {},
        "headers": {},
        "body": b"",
        "request_id": "1",
        "correlation_id": "2",
        "origin": "https://hub:1",
        "peer": "",
    }
    return Call(**{**known, **changes})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "InvalidRequestContent"),
        ({"requests": {}}, "InvalidRequestContent"),
        ({"requests": [1]}, "InvalidRequestContent"),
        ({"requests": [{"url": "/x"}]}, "InvalidRequestContent"),
        ({"requests": [{"httpMethod": "TRACE", "url": "/x"}]}, "InvalidRequestContent"),
        ({"requests": [{"httpMethod": "GET"}]}, "InvalidRequestContent"),
        ({"requests": [{"httpMethod": "GET", "url": "/x", "name": 7}]}, "InvalidRequestContent"),
        ({"requests": [{"httpMethod": "GET", "url": "/x"}] * 501}, "BatchLimitExceeded"),
    ],
)
def test_batches_that_cannot_be_read(body: dict[str, Any], code: str) -> None:
    with pytest.raises(ApiError) as refused:
        batch.read(json.dumps(body).encode())
    assert (refused.value.status, refused.value.code) == (400, code)


@pytest.mark.parametrize(
    "url",
    [
        "http://hub:1/subscriptions",
        "https://evil.example/subscriptions",
        "//evil.example/x",
        "https://hub:1/batch?api-version=1",
        "https://hub:1//BATCH/",
        "subscriptions",
        "https://[",
        "file:///etc/passwd",
    ],
)
def test_requests_of_a_batch_that_lead_elsewhere(url: str) -> None:
    with pytest.raises(ApiError) as refused:
        batch.call_of(_call(), batch.Item("a", "GET", url, b""), frozenset({"hub:1"}), "https://hub:1")
    assert refused.value.code == "InvalidRequestUri"


def test_a_request_of_a_batch_is_as_if_it_had_come_by_itself() -> None:
    item = batch.Item("a", "GET", "https://HUB:1/subscriptions//a%20b?API-version=2020-01-01&$top=2", b"")
    inner = batch.call_of(_call(headers={"authorization": "x"}), item, frozenset({"hub:1"}), "https://hub:1")
    assert (inner.method, inner.path) == ("GET", "/subscriptions/a b")
    assert inner.query == {"api-version": "2020-01-01", "$top": "2"}
    assert (inner.headers, inner.correlation_id) == ({"authorization": "x"}, "2")
    assert inner.request_id != "1"


def test_answers_of_a_batch_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_ANSWER", 10)
    items = [batch.Item(name, "GET", "/x", b"") for name in "abc"]
    told = batch.answers(items, lambda item: Reply(200, {"name": item.name}))["responses"]
    assert [(item["name"], item["httpStatusCode"]) for item in told] == [("a", 200), ("b", 413), ("c", 413)]


@pytest.mark.parametrize(
    ("kind", "value", "member"),
    [
        (kinds.LICENSE, [], "properties"),
        (kinds.LICENSE, {"licenseType": "Free"}, "properties.licenseType"),
        (kinds.LICENSE, {"licenseDetails": {"processors": "16"}}, "properties.licenseDetails.processors"),
        (kinds.LICENSE, {"licenseDetails": {"processors": 0}}, "properties.licenseDetails.processors"),
        (kinds.LICENSE, {"licenseDetails": "x"}, "properties.licenseDetails"),
        (kinds.GATEWAY, {"allowedFeatures": ["*", 1]}, "properties.allowedFeatures[1]"),
        (kinds.PRIVATE_LINK_SCOPE, {"publicNetworkAccess": "Maybe"}, "properties.publicNetworkAccess"),
        (
            kinds.SETTINGS,
            {"gatewayProperties": {"gatewayResourceId": "https://evil"}},
            "properties.gatewayProperties.gatewayResourceId",
        ),
        (kinds.LICENSE_PROFILE, {"esuProfile": {"assignedLicense": 1}}, "properties.esuProfile.assignedLicense"),
    ],
)
def test_bad_properties_are_named(kind: kinds.Kind, value: Any, member: str) -> None:
    with pytest.raises(ApiError) as refused:
        kinds.properties(kind, value)
    assert (refused.value.code, refused.value.target) == ("InvalidRequestContent", member)


def test_what_only_the_service_writes_is_ignored() -> None:
    sent = {
        "provisioningState": "Failed",
        "licenseDetails": {"immutableId": "x", "state": "Activated"},
        "tenantId": None,
    }
    assert kinds.properties(kinds.LICENSE, sent) == {"licenseDetails": {"state": "Activated"}}
    assert kinds.properties(kinds.PRIVATE_LINK_SCOPE, {"publicNetworkAccess": "Enabled"}, patch=True) == {}


def test_gaps_in_paths() -> None:
    written = "/subscriptions/s/resourcegroups/g/providers/Microsoft.HybridCompute//machines/m"
    assert paths.machine_id(paths.without_gaps(written)) is not None
    assert paths.without_gaps("//subscriptions///s/") == "/subscriptions/s/"
    assert paths.scope_of(LOCK) == MACHINE

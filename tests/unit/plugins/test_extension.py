# SPDX-License-Identifier: Apache-2.0
"""Extensions, run commands and digests of protected settings, as far as they are functions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _digest as digest
from ansible_collections.hawser.machine.plugins.plugin_utils import _extension as extension
from ansible_collections.hawser.machine.plugins.plugin_utils import _place as place
from ansible_collections.hawser.machine.plugins.plugin_utils import _run as run
from ansible_collections.hawser.machine.plugins.plugin_utils import _spec as spec
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError
from hypothesis import given, settings
from hypothesis import strategies as st

ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.HybridCompute/machines/m/extensions/e"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def options(**given: Any) -> dict[str, Any]:
    base = dict.fromkeys(extension.MEMBERS)
    return {**base, "state": "present", "protected_settings": None, "protected_settings_digest": True, **given}


def found(tags: dict[str, str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"location": "local", "tags": tags or {}, "properties": {"provisioningState": "Succeeded", **properties}}


@pytest.mark.parametrize(
    ("wished", "actual", "minor", "automatic", "fits"),
    [
        ("1.0.3", "1.0.3", False, False, True),
        ("1.0", "1.0.3", False, False, True),
        ("1", "1.9.9.9", False, False, True),
        ("1.0.3", "1.0", False, False, False),
        ("1.0", "1.1.0", False, False, False),
        ("1.0", "1.10.0", True, False, True),
        ("1.10", "1.9", True, True, False),
        ("1.0", "2.0", True, False, False),
        ("1.0", "2.0", False, True, True),
        ("1.0", None, True, True, False),
        ("1.0", "newest", True, True, False),
    ],
)
def test_versions(wished: str, actual: str | None, minor: bool, automatic: bool, fits: bool) -> None:
    assert extension.version_fits(wished, actual, minor, automatic) is fits


@pytest.mark.parametrize("version", ["", "1.", "v1", "1.2.3.4.5", "-1"])
def test_a_version_that_is_none(version: str) -> None:
    with pytest.raises(OptionError, match="is none"):
        extension.check(options(type_handler_version=version), found())


@pytest.mark.parametrize(
    ("given", "there", "paths"),
    [
        ({}, None, ["extension"]),
        ({}, found(settings={"a": 1}), []),
        ({"publisher": "HAWSER", "type": "customscript"}, found(publisher="Hawser", type="CustomScript"), []),
        (
            {"settings": {"a": {"b": 1}, "c": 2}},
            found(settings={"a": {"b": 2}, "d": 3}),
            ["settings.a.b", "settings.c", "settings.d"],
        ),
        ({"settings": {}}, found(settings=None), []),
        ({"settings": {}}, found(settings={"a": 1}), ["settings.a"]),
        ({"settings": {"a": [1, 2]}}, found(settings={"a": [2, 1]}), ["settings.a"]),
        ({"settings": {"a": 1}}, found(), ["settings.a"]),
        ({"force_update_tag": "2"}, found(forceUpdateTag="1"), ["force_update_tag"]),
        ({"provision_after_extensions": ["B", "a"]}, found(provisionAfterExtensions=["A", "b"]), []),
        ({"provision_after_extensions": []}, found(), []),
        ({"provision_after_extensions": ["a"]}, found(), ["provision_after_extensions"]),
        ({"auto_upgrade_minor_version": False}, found(autoUpgradeMinorVersion=True), ["auto_upgrade_minor_version"]),
        ({"enable_automatic_upgrade": True}, found(), ["enable_automatic_upgrade"]),
        ({"type_handler_version": "1.0"}, found(typeHandlerVersion="1.0.7"), []),
        ({"type_handler_version": "1.1"}, found(typeHandlerVersion="1.0.7"), ["type_handler_version"]),
        ({"type_handler_version": "1.0"}, found(typeHandlerVersion="1.2", autoUpgradeMinorVersion=True), []),
        (
            {"type_handler_version": "1.0", "auto_upgrade_minor_version": False},
            found(typeHandlerVersion="1.2", autoUpgradeMinorVersion=True),
            ["type_handler_version", "auto_upgrade_minor_version"],
        ),
        (
            {"type_handler_version": "1.2"},
            found(typeHandlerVersion="1.0", instanceView={"typeHandlerVersion": "1.2.4"}),
            [],
        ),
        ({"protected_settings": {"a": 1}}, found(), ["protected_settings"]),
        ({"protected_settings": {}}, found(), []),
        ({"protected_settings": {"a": 1}, "protected_settings_digest": False}, found(), []),
        ({}, found(provisioningState="Failed"), ["provisioning_state"]),
        ({}, found(provisioningState="Updating"), []),
    ],
)
def test_differences(given: dict[str, Any], there: dict[str, Any] | None, paths: list[str]) -> None:
    reasons = extension.differences(options(**given), there, ID)
    assert sorted(reason["path"] for reason in reasons) == sorted(paths)


def test_before_and_after() -> None:
    wish = options(publisher="Hawser", type_handler_version="1.0", settings={"a": 2}, protected_settings={"b": "hush"})
    there = found(publisher="Hawser", typeHandlerVersion="1.0.3", settings={"a": 1}, provisioningState="Failed")
    before = extension.actual(wish, there, extension.differences(wish, there, ID))
    same = {"publisher": "Hawser", "type_handler_version": "1.0"}
    assert before == {
        **same,
        "settings": {"a": 1},
        "protected_settings": extension.OTHER,
        "provisioning_state": "Failed",
    }
    assert extension.described(wish) == {**same, "settings": {"a": 2}, "protected_settings": extension.DESCRIBED}
    gone = {**wish, "state": "absent"}
    assert extension.described(gone) == {}
    assert extension.actual(gone, there, [])["type_handler_version"] == "1.0.3"


def test_what_was_sent_is_not_sent_again() -> None:
    wish = options(publisher="Hawser", type="CustomScript", settings={"a": 1}, protected_settings={"secret": "hush"})
    body = extension.body_of(wish, None, "local", ID)
    assert body["properties"]["protectedSettings"] == {"secret": "hush"}
    there = {
        **body,
        "properties": {key: value for key, value in body["properties"].items() if key != "protectedSettings"},
    }
    assert extension.differences(wish, there, ID) == []
    assert "hush" not in json.dumps(body["tags"])
    other = {**wish, "protected_settings": {"secret": "husk"}}
    (reason,) = extension.differences(other, there, ID)
    assert reason == {"path": "protected_settings", "expected": extension.DESCRIBED, "actual": extension.OTHER}
    # A copied tag says nothing about another machine.
    assert extension.differences(wish, there, ID.replace("/m/", "/n/"))


def test_a_put_keeps_what_is_left_open() -> None:
    there = found({"env": "x", digest.TAG: "former"}, publisher="H", type="T", settings={"a": 1}, instanceView={"x": 1})
    body = extension.body_of(options(force_update_tag="2"), there, "local", ID)
    assert body == {
        "location": "local",
        "tags": {"env": "x", digest.TAG: "former"},
        "properties": {"publisher": "H", "type": "T", "settings": {"a": 1}, "forceUpdateTag": "2"},
    }
    wish = options(protected_settings={"a": 1}, protected_settings_digest=False)
    assert extension.body_of(wish, there, "local", ID)["tags"] == {"env": "x"}


@pytest.mark.parametrize(
    ("given", "there", "words"),
    [
        ({"publisher": "H"}, None, "type missing"),
        ({"publisher": "H", "type": "Other"}, found(publisher="H", type="T"), "Remove the extension first"),
    ],
)
def test_what_cannot_be_described(given: dict[str, Any], there: dict[str, Any] | None, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        extension.check(options(**given), there)
    assert words in f"{caught.value.message} {caught.value.remedy}"


@settings(max_examples=60, deadline=None)
@given(JSON, JSON)
def test_digests(one: Any, two: Any) -> None:
    made = digest.digest(one, ID, iterations=1)
    assert digest.matches(made, one, ID.upper())
    assert digest.matches(made, two, ID) is (json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True))
    assert made != digest.digest(one, ID, iterations=1)


def test_a_digest_is_short_enough_for_a_tag() -> None:
    made = digest.digest({"a": "b"}, ID)
    assert len(made) <= 256
    assert digest.matches(made, {"a": "b"}, ID)


@pytest.mark.parametrize(
    "tag",
    [
        None,
        "",
        "x",
        "pbkdf2-sha256.1.zz.a",
        "md5.1.00.a",
        "pbkdf2-sha256.99999999999.00.a",
        "pbkdf2-sha256.0.00.a",
        "....",
        "pbkdf2-sha256.1.00.ä",
    ],
)
def test_a_tag_that_is_no_digest(tag: str | None) -> None:
    assert digest.matches(tag, {"a": 1}, ID) is False


def test_leaves_of_protected_settings_are_secrets() -> None:
    given = {
        "protected_settings": {"a": ["hush-hush", True, "on"], "b": {"c": 123456}, "d": None},
        "settings": {"e": "f"},
    }
    assert sorted(spec.secrets_in(given)) == ["123456", "hush-hush"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "x" * 65, "ä"])
def test_names_of_children(name: str) -> None:
    with pytest.raises(OptionError, match="cannot be used"):
        place.child_of("/machine", "extensions", name)


def command(**given: Any) -> dict[str, Any]:
    names = ("parameters", "arguments", "protected_parameters", "protected_arguments", "run_as_user", "run_as_password")
    return {**dict.fromkeys(names), "timeout": 60, **given}


def test_parameters() -> None:
    wish = command(
        parameters={"A": 1, "B": True},
        arguments=["x", 2.5],
        protected_parameters={"P": "hush"},
        protected_arguments=["q"],
        run_as_user="app",
        run_as_password="hush-2",
    )
    made = run.properties_of(wish, "echo")
    assert made == {
        "source": {"script": "echo"},
        "parameters": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "true"},
            {"name": "", "value": "x"},
            {"name": "", "value": "2.5"},
        ],
        "protectedParameters": [{"name": "P", "value": "hush"}, {"name": "", "value": "q"}],
        "runAsUser": "app",
        "runAsPassword": "hush-2",
        "timeoutInSeconds": 60,
        "asyncExecution": False,
    }
    assert set(run.secret_part(made)) == {"protectedParameters", "runAsPassword"}


@pytest.mark.parametrize("given", [{"parameters": {"": 1}}, {"parameters": {"a": [1]}}, {"arguments": [None]}])
def test_parameters_that_are_none(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        run.properties_of(command(**given), "echo")
    with pytest.raises(OptionError, match="empty"):
        run.properties_of(command(), " \n")


@pytest.mark.parametrize(
    ("view", "fault"),
    [
        ({"executionState": "Succeeded", "exitCode": 0}, None),
        ({"executionState": "Succeeded", "exitCode": 3}, "the script ended Succeeded with the exit code 3"),
        ({"executionState": "TimedOut", "executionMessage": "Too slow."}, "the script ended TimedOut: Too slow"),
        ({}, "the script ended Unknown"),
    ],
)
def test_how_a_script_ended(view: dict[str, Any], fault: str | None) -> None:
    assert run.fault_of(run.outcome_of({"properties": {"instanceView": view}})) == fault
    assert run.ended({"properties": {"instanceView": view}}) is bool(view)


@pytest.mark.parametrize(
    ("changes", "once"),
    [
        ({}, True),
        ({"script": "other"}, False),
        ({"exitCode": 1}, False),
        ({"executionState": "Running"}, False),
        ({"runAsUser": "app"}, False),
        ({"parameters": [{"name": "A", "value": "1"}]}, False),
        ({"tag": "x"}, False),
    ],
)
def test_once(changes: dict[str, Any], once: bool) -> None:
    wanted = run.properties_of(command(), "echo")
    there = {
        "tags": {digest.TAG: changes["tag"]} if "tag" in changes else {},
        "properties": {
            "source": {"script": changes.get("script", "echo")},
            "parameters": changes.get("parameters"),
            "runAsUser": changes.get("runAsUser"),
            "instanceView": {"executionState": "Succeeded", "exitCode": 0, **changes},
        },
    }
    assert run.has_run(there, wanted, ID) is once
    assert run.has_run(None, wanted, ID) is False

# SPDX-License-Identifier: Apache-2.0
"""Config properties: what each takes, how lists grow, what monitor mode puts in force, and the file."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import errors
from agent_runtime.platform import paths as places
from agent_runtime.platform.paths import Paths
from agent_runtime.state import config

TYPES = st.lists(st.from_regex(r"[A-Za-z.]{1,8}/[A-Za-z.]{1,8}", fullmatch=True), max_size=5)


@pytest.mark.parametrize(
    ("name", "given_value", "kept"),
    [
        ("extensions.enabled", "FALSE", False),
        ("extensions.enabled", True, True),
        ("Extensions.Agent.CpuLimit", "80", 80),
        ("extensions.agent.cpulimit", 1, 1),
        ("proxy.url", "http://proxy.example:8080/", "http://proxy.example:8080"),
        ("proxy.url", "http://user:pass@[::1]:1", "http://user:pass@[::1]:1"),
        ("proxy.url", " ", ""),
        ("proxy.bypass", "arc, arm ,ARC", ["Arc", "ARM"]),
        ("extensions.allowlist", "a/b, c/d", ["a/b", "c/d"]),
        ("extensions.allowlist", "allow/none", ["Allow/None"]),
        ("incomingconnections.ports", [22, "6516"], ["22", "6516"]),
        ("config.mode", "Monitor", "monitor"),
    ],
)
def test_values_are_kept_in_one_form(name: str, given_value: object, kept: object) -> None:
    assert config.parse(name, given_value) == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nonsense", "x"),
        ("extensions.enabled", "yes"),
        ("extensions.enabled", 1),
        ("extensions.agent.cpulimit", "0"),
        ("extensions.agent.cpulimit", "101"),
        ("extensions.agent.cpulimit", True),
        ("extensions.agent.cpulimit", "٣"),
        ("proxy.url", "https://proxy.example"),
        ("proxy.url", "http://proxy.example:70000"),
        ("proxy.url", "http://a b"),
        ("proxy.url", ["http://a"]),
        ("proxy.bypass", "somewhere"),
        ("extensions.blocklist", "Allow/None/More"),
        ("extensions.blocklist", "justone"),
        ("incomingconnections.ports", "0"),
        ("incomingconnections.ports", [True]),
        ("extensions.allowlist", ["a/b"] * 2000),
        ("config.mode", "half"),
    ],
)
def test_wrong_values_are_refused_with_a_sentence(name: str, value: object) -> None:
    with pytest.raises(errors.ParameterInvalid) as refused:
        config.parse(name, value)
    assert refused.value.code == "AZCM0023"
    assert refused.value.remedy


def test_a_refused_proxy_does_not_show_its_password() -> None:
    with pytest.raises(errors.ParameterInvalid) as refused:
        config.parse("proxy.url", "https://user:hunter2@proxy")
    assert "hunter2" not in refused.value.message + refused.value.remedy


@given(TYPES, TYPES)
def test_what_is_added_is_there_and_what_is_removed_is_gone(first: list[str], second: list[str]) -> None:
    row = config.find("extensions.allowlist")
    both = config.with_added(row, config.parse(row.name, first), second)
    assert {item.lower() for item in both} == {item.lower() for item in first + second}
    left = config.with_removed(row, both, second)
    assert not {item.lower() for item in left} & {item.lower() for item in second}


@given(st.dictionaries(st.sampled_from(["extensions.enabled", "guestconfiguration.enabled"]), st.booleans()))
def test_only_what_differs_from_the_default_is_kept(wanted: dict[str, Any]) -> None:
    local = config.changed({}, wanted)
    assert all(value is False for value in local.values())
    assert {**config.defaults(), **wanted} == config.effective(local)
    assert config.changed(local, dict.fromkeys(wanted)) == {}


@pytest.mark.parametrize("name", ["extensions.agent.cpulimit", "guestconfiguration.agent.cpulimit"])
def test_a_limit_counts_also_where_it_is_the_displayed_one(paths: Paths, name: str) -> None:
    displayed = config.defaults()[name]
    assert config.update(paths, {name: displayed})
    assert not config.update(paths, {name: displayed})
    assert config.load(paths) == {name: displayed}
    assert config.update(paths, {name: None})
    assert config.load(paths) == {}


def test_monitor_mode_is_over_the_machine_s_own_values_and_gives_them_back() -> None:
    local = config.changed({}, {"extensions.allowlist": ["a/b"]})
    monitored = config.changed(local, {"config.mode": "monitor"})
    assert config.effective(monitored)["guestconfiguration.enabled"] is False
    assert "a/b" not in config.effective(monitored)["extensions.allowlist"]  # type: ignore[operator]
    with pytest.raises(errors.ConfigurationConflict):
        config.changed(monitored, {"extensions.allowlist": ["c/d"]})
    assert config.effective(config.changed(monitored, {"config.mode": None}))["extensions.allowlist"] == ["a/b"]


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    found = places.linux(str(tmp_path))
    os.makedirs(found.state)
    return found


def test_the_file_is_written_once_and_only_on_a_change(paths: Paths) -> None:
    assert config.update(paths, {"extensions.enabled": False})
    before = os.stat(paths.localconfig)
    assert before.st_mode & 0o777 == 0o640
    assert not config.update(paths, {"extensions.enabled": False})
    assert os.stat(paths.localconfig).st_mtime_ns == before.st_mtime_ns
    assert config.load(paths) == {"extensions.enabled": False}


@pytest.mark.parametrize("content", ["{", "[]", '{"extensions.enabled": "perhaps"}', "\0" * 40])
def test_a_damaged_file_is_named_and_left_alone(paths: Paths, content: str) -> None:
    pathlib.Path(paths.localconfig).write_text(content)
    with pytest.raises(errors.ConfigNotObtained) as refused:
        config.update(paths, {"extensions.enabled": False})
    assert paths.localconfig in refused.value.message
    assert pathlib.Path(paths.localconfig).read_text() == content


def test_a_property_of_a_newer_version_is_passed_over(paths: Paths) -> None:
    pathlib.Path(paths.localconfig).write_text(json.dumps({"future.thing": 1, "extensions.enabled": False}))
    assert config.load(paths) == {"extensions.enabled": False}
    assert config.update(paths, {"config.mode": "monitor"})
    assert json.loads(pathlib.Path(paths.localconfig).read_text())["future.thing"] == 1


def test_arm_sees_the_effective_values_and_no_password() -> None:
    local = config.changed({}, {"proxy.url": "http://u:secret@p:1", "extensions.allowlist": ["A.B/C"]})
    shown = config.agent_configuration(local)
    assert shown["extensionsAllowList"] == [{"publisher": "A.B", "type": "C"}]
    assert (shown["extensionsEnabled"], shown["configMode"], shown["proxyUrl"]) == ("true", "full", "http://p:1")

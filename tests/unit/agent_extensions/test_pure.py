# SPDX-License-Identifier: Apache-2.0
"""Tables over what is decided without a machine: manifests, lists, limits, texts, settings, documents."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.extensions import (
    commandlog,
    endings,
    environment,
    events,
    governance,
    lists,
    manifest,
    settings,
    status,
    texts,
    versions,
    wishes,
)
from agent_runtime.extensions.runner import Ended
from tests.unit.agent_extensions.kit import wish

COMMANDS = {f"{name}Command": f"/bin/x {name}" for name in manifest.COMMANDS}


@pytest.mark.parametrize(
    ("one", "other"), [("1.10", "1.9"), ("2", "1.9.9.9"), ("1.0.1", "1"), ("1.0.0.1", "1.0"), ("10.0", "9.9")]
)
def test_versions_are_numbers(one: str, other: str) -> None:
    assert versions.is_newer(one, other)
    assert not versions.is_newer(other, one)


def test_missing_parts_of_versions_are_zero() -> None:
    assert versions.same("1.0.0", "1")
    assert not versions.same("1.0.1", "1")
    with pytest.raises(ValueError, match="is no version"):
        versions.key("1.x")


@pytest.mark.parametrize(
    ("value", "meant", "warns"),
    [
        (True, True, False),
        (False, False, False),
        ("true", True, False),
        ("False", False, False),
        (" TRUE ", True, False),
        (1, False, True),
        ("yes", False, True),
    ],
)
def test_truth_in_manifests(value: Any, meant: bool, warns: bool) -> None:
    found = manifest.parse(json.dumps([{"handlerManifest": {**COMMANDS, "reportHeartbeat": value}}]).encode())
    assert found.heartbeat is meant
    assert bool(found.warnings) == warns
    assert found.commands["install"] == "bin/x install"


def test_limits_in_manifests() -> None:
    limits = {
        "cpuQuotaPercentage": "20",
        "memoryQuotaInMB": 100,
        "services": [{"name": "a", "cpuQuotaPercentage": 5}, {"name": "a; rm"}, 7],
    }
    found = manifest.parse(json.dumps([{"handlerManifest": COMMANDS, "resourceLimits": limits}]).encode())
    assert (found.cpu, found.memory, found.services) == (20, 100, (manifest.Service("a", 5, None),))
    assert len(found.warnings) == 2


@given(st.binary(max_size=200))
def test_no_manifest_breaks_the_reader(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"HandlerManifest\.json"):
        manifest.parse(content)


@pytest.mark.parametrize(
    ("allow", "block", "may"),
    [
        ([], [], True),
        (["p/t"], [], True),
        (["P/T"], ["x/y"], True),
        ([], ["p/T"], False),
        (["p/t"], ["P/t"], False),
        (["x/y"], [], False),
        ([], ["x/y"], True),
        (["Allow/None"], [], False),
        (["Allow/None", "p/t"], [], True),
    ],
)
def test_the_table_of_lists(allow: list[str], block: list[str], may: bool) -> None:
    config = {"extensions.allowlist": allow, "extensions.blocklist": block}
    assert (lists.refusal("P", "t", config) == "") is may


@pytest.mark.parametrize(
    ("kind", "system", "own", "resources", "cpu"),
    [
        ("CustomScript", "linux", {}, {}, 30),
        ("CustomScriptExtension", "windows", {}, {}, 5),
        ("azuremonitorlinuxagent", "linux", {}, {}, 60),
        ("AzureMonitorWindowsAgent", "windows", {}, {}, 100),
        ("LinuxOsUpdateExtension", "linux", {}, {}, 60),
        ("MDE.Linux", "linux", {}, {}, 60),
        ("MicrosoftDnsAgent", "windows", {}, {}, 100),
        ("MicrosoftMonitoringAgent", "windows", {}, {}, 60),
        ("OmsAgentForLinux", "linux", {}, {}, 60),
        ("MDE.Linux", "windows", {}, {}, 5),
        ("CustomScript", "linux", {governance.CPU_PROPERTY: 80}, {}, 80),
        ("CustomScript", "linux", {governance.CPU_PROPERTY: 80}, {"cpu": 20}, 20),
        ("CustomScript", "linux", {}, {"cpu": 50}, 30),
        ("MDE.Linux", "linux", {governance.CPU_PROPERTY: 10}, {}, 10),
        ("MDE.Linux", "linux", {governance.CPU_PROPERTY: 90}, {"cpu": 70}, 60),
    ],
)
def test_the_table_of_limits(kind: str, system: str, own: dict[str, Any], resources: dict[str, Any], cpu: int) -> None:
    assert governance.limits(kind, resources, own, system).cpu == cpu


def test_words_for_systemd() -> None:
    limits = governance.limits("Custom-Script", {"memory": 50, "services": [["agent", 7, None], ["b", None, None]]}, {})
    name = "hawser-extensions-Hawser.Custom_Script.slice"
    assert governance.enforcing("Hawser.Custom-Script", limits) == [
        ["set-property", "--runtime", name, "CPUQuota=30%", "MemoryMax=50M"],
        ["set-property", "--runtime", "agent.service", "CPUQuota=7%", "MemoryMax=infinity"],
    ]
    assert governance.lifting("Hawser.Custom-Script", limits)[0] == [
        "set-property", "--runtime", name, "CPUQuota=", "MemoryMax=infinity",
    ]  # fmt: skip
    assert "--property=KillMode=process" in governance.starting("u.service", "A.B")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://x/y?sv=1&sig=AbC%2f&se=2", "https://x/y?sv=1&sig=[hidden]&se=2"),
        ("SIG=abc", "SIG=[hidden]"),
        ("u?sig%3Dabc", "u?sig%3D[hidden]"),
        ("design=good", "design=good"),
    ],
)
def test_signatures_are_hidden(text: str, shown: str) -> None:
    assert texts.redacted(text) == shown
    body = {"status": "x", "name": text, "substatus": [{"status": "error", "formattedMessage": {"message": text}}]}
    told = status.verdict(json.dumps([{"status": body}]).encode()).status or {}
    assert (told["name"], told["substatus"][0]["formattedMessage"]["message"]) == (shown, shown)


def test_texts_are_cut_to_bytes() -> None:
    assert texts.cut("ä" * 10, 100) == "ä" * 10
    assert len(texts.cut("ä" * 100, 50).encode()) <= 50
    assert texts.cut("ä" * 100, 50).endswith(texts.MARK)
    assert texts.cut("a\x00b\ud83d") == "a\ufffdb\ufffd"


def test_the_environment_file_is_as_shims_cut_it() -> None:
    text = environment.text("P.t", "/lib/P.t-1", "/logs/P.t-1")
    assert text == (
        '[{"name": "P.t", "version": 1.0, "handlerEnvironment": {"logFolder": "/logs/P.t-1", "configFolder": '
        '"/lib/P.t-1/config", "statusFolder": "/lib/P.t-1/status", "heartbeatFile": "/lib/P.t-1/heartbeat.log", '
        '"eventsFolder": "/logs/P.t-1/events", "eventsFolder_preview": "/logs/P.t-1/events"}}]'
    )


@given(st.lists(st.tuples(st.integers(0, 2 * events.MOST_BYTES), st.integers(0, 9)), max_size=2 * events.MOST))
def test_the_newest_events_are_kept_within_bounds(sizes: list[tuple[int, int]]) -> None:
    files = [events.File(f"{number}.json", size, written) for number, (size, written) in enumerate(sizes)]
    gone = set(events.surplus(files))
    kept = [file for file in files if file.name not in gone]
    assert len(kept) <= events.MOST
    assert sum(file.size for file in kept) <= events.MOST_BYTES
    oldest = min((file.written for file in kept), default=None)
    if oldest is not None:
        assert all(file.written <= oldest for file in files if file.name in gone), "what goes is older"
    assert len(kept) == len(files) or len(files) > events.MOST or sum(file.size for file in files) > events.MOST_BYTES


def test_folders_and_links_among_events_are_let_be(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for number in range(events.MOST + 5):
        (outside / f"{number}.json").touch()
    folder = tmp_path / "events"
    folder.symlink_to(outside)
    events.trim(str(folder))
    assert len(list(outside.iterdir())) == events.MOST + 5, "a link in the place of the folder is not followed"
    folder.unlink()
    events.trim(str(folder))
    folder.mkdir()
    (folder / "sub").mkdir()
    (folder / "link.json").symlink_to(outside / "0.json")
    for number in range(events.MOST + 5):
        (folder / f"{number}.json").touch()
    events.trim(str(folder))
    assert (folder / "sub").is_dir()
    assert len(list(folder.iterdir())) == events.MOST + 1
    assert (outside / "0.json").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("#!/usr/bin/nosuchpython -u", "h.py needs /usr/bin/nosuchpython, which is not on this machine"),
        ("#!/usr/bin/env nosuchpython", "h.py needs nosuchpython, which is not on this machine"),
        ("#!/usr/bin/env -S A=1 nosuchpython -u", "h.py needs nosuchpython, which is not on this machine"),
        ("#!/bin/sh\r", "the first line of h.py ends with a carriage return: convert its line ends"),
        ("#!/bin/sh", None),
        ("#!", None),
        ("exit 127", None),
    ],
)
def test_what_a_command_lacks_is_named(tmp_path: Path, line: str, says: str | None) -> None:
    (tmp_path / "h.py").write_bytes(f"{line}\nexit 127\n".encode())
    assert endings.lacking(f"'{tmp_path}'/h.py -install") == says


def test_a_command_that_is_not_there_lacks_nothing_that_is_known() -> None:
    assert endings.lacking("/nonexistent/h.py -install") is None
    assert endings.lacking("") is None
    assert endings.lacking("'") is None


def test_a_pipe_where_a_command_was_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "h.sh")
    assert endings.lacking(f"{tmp_path}/h.sh -install") is None
    assert endings.lacking(f"{tmp_path} -install") is None


def test_bypassed_extensions_are_given_no_proxy() -> None:
    config = {"proxy.url": "http://p:1", "proxy.bypass": ["AMA"]}
    assert "HTTPS_PROXY" not in environment.surroundings({}, config, "Microsoft.Azure.Monitor")
    assert environment.surroundings({"LANG": "de", "LD_LIBRARY_PATH": "/x"}, config, "Hawser") == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "PYTHONPATH": "",
        "LANG": "de",
        "HTTPS_PROXY": "http://p:1",
        "https_proxy": "http://p:1",
        "ProxySettings": "http://p:1",
        "NO_PROXY": "localhost,127.0.0.1",
        "no_proxy": "localhost,127.0.0.1",
    }


@pytest.mark.parametrize(
    ("public", "protected", "content"),
    [
        (None, None, None),
        ({}, None, {"publicSettings": {}, "protectedSettings": None, "protectedSettingsCertThumbprint": None}),
        (None, "MII=", {"publicSettings": {}, "protectedSettings": "MII=", "protectedSettingsCertThumbprint": "AB"}),
    ],
)
def test_settings_files(public: Any, protected: str | None, content: Any) -> None:
    given = {
        "publicSettings": public,
        "protectedSettings": protected,
        "protectedSettingsCertThumbprint": "AB" if protected else None,
    }
    made = settings.content(given)
    assert made == (
        b"" if content is None else json.dumps({"runtimeSettings": [{"handlerSettings": content}]}).encode()
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"publisher": "a/b"}, "publisher and type"),
        ({"type": ".."}, "publisher and type"),
        ({"version": "1.0-beta"}, "version"),
        ({"rollbackTo": "x"}, "version"),
        ({"sequence": True}, "sequence"),
        ({"dependencyLevel": -1}, "sequence"),
        ({"publicSettings": "{}"}, "publicSettings is an object"),
        ({"protectedSettings": "MII="}, "thumbprint"),
        ({"protectedSettingsCertThumbprint": "AB" * 20}, "without protected settings"),
    ],
)
def test_documents_that_are_no_wishes(change: dict[str, Any], reason: str) -> None:
    found = wishes.read({"extensions": [wish(**change)]})
    assert found.wishes == ()
    assert reason in found.faults[0].reason


@pytest.mark.parametrize(
    ("told", "path"),
    [
        (
            {"path": "extensions/Test.Fake/1.0/linux-x86_64.zip", "length": 9},
            "extensions/Test.Fake/1.0/linux-x86_64.zip",
        ),
        (None, "extensions/Test.Fake/1.0.0/linux-arm64.zip"),
        ({"length": 9}, "extensions/Test.Fake/1.0.0/linux-arm64.zip"),
    ],
)
def test_the_former_version_may_have_a_package_of_another_name(told: Any, path: str) -> None:
    package = {"path": "extensions/Test.Fake/2.0/linux-arm64.zip"}
    entry = wish(version="2.0", rollbackTo="1.0", package=package, rollbackPackage=told)
    (found,) = wishes.read({"extensions": [entry]}).wishes
    assert found.at("1.0.0").package["path"] == path
    assert found.at("2.0").package["path"] == package["path"]
    assert found.at("1.5").package["path"] == "extensions/Test.Fake/1.5/linux-arm64.zip"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from([*wish(), "extensions", "certificates", "path"]), inner, max_size=6),
                    max_leaves=20))  # fmt: skip
def test_no_document_breaks_the_reader(value: Any) -> None:
    for content in (
        {"extensions": value},
        {"extensions": [value, {**wish(), "package": value}], "certificates": value},
    ):
        with contextlib.suppress(ValueError):
            wishes.read(content)


@pytest.mark.parametrize(
    ("content", "rest"),
    [(b"3Dhush&x=1", b"x=1"), (b"hush the end", b"the end"), (b"x" * 5000, b"x" * 5000), (b"", b"")],
)
def test_a_text_is_taken_up_at_a_word(content: bytes, rest: bytes) -> None:
    assert texts.from_a_word(content) == rest


def test_the_command_log_holds_its_last_part(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commandlog, "LIMIT", 2000)
    for number in range(60):
        text = commandlog.entry(0.0, f"bin/x {number}", {"A": "sig=secret"}, Ended(1, "out\n", "", 0.5))
        commandlog.append(str(tmp_path), None, text)
    content = (tmp_path / "CommandExecution.log").read_text()
    assert len(content) <= 2000
    assert "bin/x 59" in content
    assert "secret" not in content
    assert "exit code 1 after 0.5 s" in content

# SPDX-License-Identifier: Apache-2.0
"""Handlers as they are met: slow, sloppy, broken (extension-handler.md sections 7, 9, 15, 17, 25 and 26)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from agent_runtime.extensions import events
from agent_runtime.extensions.layout import Layout
from agent_runtime.platform import paths as places
from agent_runtime.platform import processes
from agent_runtime.service.loop import sleep
from tests.unit.agent_extensions.kit import Desk, Site, live, wish

STATUS = '[{"status": {"status": "%s", "code": "%s", "formattedMessage": {"lang": "en", "message": "%s"}}}]'
HEARTBEAT = "the handler's heartbeat cannot be read"
WRITE = '"$AZURE_GUEST_AGENT_EXTENSION_PATH/status/$ConfigSequenceNumber.status"'


def test_a_child_that_holds_the_descriptors_holds_nobody_up_and_lives_on(site: Site) -> None:
    site.package()
    site.way("install", f"sleep 60 & echo $! >{site.root}/child")
    took = [0.0]

    async def scenario(desk: Desk) -> None:
        begun = time.monotonic()
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        took[0] = time.monotonic() - begun

    live(site, scenario)
    child = int((site.root / "child").read_text())
    assert took[0] < 20
    assert processes.is_there(child)
    os.kill(child, signal.SIGKILL)


def test_a_command_that_ignores_the_end_of_its_time_is_killed_with_its_group(site: Site) -> None:
    site.package()
    site.way("install", f"trap '' TERM; sleep 60 & echo $! >{site.root}/child; echo started >&2; wait")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", "failed")
        assert (entry["code"], entry["operation"]) == (1011, "install")
        assert "was killed after 1 s: started" in entry["message"]
        child = int((site.root / "child").read_text())
        await desk.until(lambda: not processes.is_there(child), "the group is gone")

    live(site, scenario, install=1)


@pytest.mark.parametrize(
    ("verb", "ending", "code", "says"),
    [
        ("install", "exit 51", 1007, "operating system is not supported"),
        ("install", "exit 52", 1007, "something it depends on is missing"),
        ("install", "echo no room at sig=abc >&2; exit 9", 1007, "exit code 9: no room at sig=[hidden]"),
        ("enable", "/nonexistent; exit 127", 1009, "exit code 127 (the command, or the interpreter"),
        ("enable", "exit 126", 1009, "not executable: look at its mode"),
        ("enable", "kill -9 $PPID; kill -9 $$", 1009, "exit code 137"),
    ],
)
def test_exit_codes_are_explained(site: Site, verb: str, ending: str, code: int, says: str) -> None:
    site.package()
    site.way(verb, ending)

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", "failed")
        assert (entry["code"], entry["operation"], entry["status"]) == (code, verb, None)
        assert says in entry["message"]
        await desk.idle()
        await desk.wait("fake", "failed", handler={**entry["handler"], "status": "NotReady"})
        assert site.calls() == ["install 1.0.0", "enable 1.0.0"][: 1 if verb == "install" else 2]
        # The next document tries again from the beginning, or enables again.
        site.free(verb)
        desk.give(wish())
        await desk.wait("fake", "succeeded")

    live(site, scenario)


def test_what_a_wordy_handler_says_last_is_told_and_logged(site: Site) -> None:
    """A megabyte of a package manager's words before the one that counts."""
    site.package()
    many = "yes 'Reading package lists from https://repo.test/x?sig=hush' | head -c 1000000"
    site.way("install", f"echo first; {many} >&2; echo >&2; echo 'E: Unable to locate package' >&2; exit 100")
    log = site.root / "var/lib/GuestConfig/extension_logs/Test.Fake-1.0.0/CommandExecution.log"

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", "failed", code=1007)
        assert "failed with exit code 100: " in entry["message"]
        assert entry["message"].endswith("E: Unable to locate package")
        assert len(entry["message"]) < 2000
        assert "hush" not in entry["message"]

    live(site, scenario)
    text = log.read_text()
    assert len(text) < 70 * 1024
    assert "hush" not in text
    said = text.partition("[stderr]\n")[2]
    assert said.startswith("Reading package lists")
    assert said.endswith("\nE: Unable to locate package\n")
    (left,) = [line for line in said.splitlines() if line.endswith(" bytes left out]")]
    assert 900000 < int(left[1:].partition(" ")[0]) < 1000000
    assert "[stdout]\nfirst\n" in text


@pytest.mark.parametrize(
    ("script", "state", "code", "message"),
    [
        ("(sleep 0.3; say success 0 late) & exit 0", "succeeded", 0, "late"),
        ("say transitioning 5 working; (sleep 0.5; say success 0 ready) & exit 0", "succeeded", 0, "ready"),
        (f"printf '%s' '[{{\"sta' >{WRITE}; (sleep 0.1; say success 0 whole) & exit 0", "succeeded", 0, "whole"),
        (f"printf '%s' '[{{\"sta' >{WRITE}; exit 0", "failed", 1012, "is not JSON"),
        (
            f"printf '\\357\\273\\277%s' '{STATUS % ('success', '0', 'marked')}' >{WRITE}; exit 0",
            "succeeded",
            0,
            "marked",
        ),
        (f"printf '%s' '{STATUS % ('failed', '7', 'word')}' >{WRITE}; exit 0", "failed", 7, "word"),
        (f"printf '%s' '{STATUS % ('error', '-3', 'sig=xyz&a')}' >{WRITE}; exit 0", "failed", -3, "sig=[hidden]&a"),
        (f"printf '{{}}' >{WRITE}; exit 0", "failed", 1012, "is not an array"),
        (f"mkdir {WRITE}; exit 0", "failed", -1, "cannot be read"),
    ],
)
def test_status_files_as_handlers_write_them(site: Site, script: str, state: str, code: int, message: str) -> None:
    site.package()
    site.way("enable", script)

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", state)
        assert entry["code"] == code
        assert message in entry["message"]

    live(site, scenario)


def test_a_huge_status_is_shortened(site: Site) -> None:
    site.package()
    parts = [{"status": "success", "name": "part", "formattedMessage": {"lang": "en", "message": "y" * 20000}}]
    body = {"status": "success", "formattedMessage": {"lang": "en", "message": "x" * 5000}, "substatus": parts * 10}
    (site.root / "huge").write_text(json.dumps([{"status": body}]))
    site.way("enable", f"cp {site.root}/huge {WRITE}; exit 0")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", "succeeded")
        assert len(json.dumps(entry["status"])) <= 128 * 1024
        assert entry["status"]["substatus"][0]["formattedMessage"]["message"].endswith("[shortened]")
        assert entry["message"].endswith("[shortened]")

    live(site, scenario)


@pytest.mark.parametrize("depth", [400, 480, 600, 900])
def test_a_status_of_any_depth_stops_nobody(site: Site, depth: int) -> None:
    site.package()
    deep = "[" * depth + "]" * depth
    told = f'"status": "success", "data": {deep}, "formattedMessage": {{"lang": "en", "message": "deep"}}'
    (site.root / "deep").write_text(f'[{{"status": {{{told}}}}}]')
    site.way("enable", f"cp {site.root}/deep {WRITE}; exit 0")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded", message="deep")

    live(site, scenario)


def test_a_step_that_fails_in_a_way_nobody_thought_of_is_that_handlers_alone(site: Site) -> None:
    for kind in ("Odd", "Fake"):
        site.package(kind=kind)
    custom = site.root / "repo/extensions/Test.Odd/1.0.0/custom.json"
    custom.write_text("[" * 20)

    async def scenario(desk: Desk) -> None:
        desk.give(wish("odd", kind="Odd"), wish())
        await desk.wait("fake", "succeeded")
        entry = await desk.wait("odd", "failed", code=1000, operation="download")
        assert "download of Test.Odd failed: " in entry["message"]

    live(site, scenario)


def test_scrubbed_settings_are_no_reason_to_complain(site: Site) -> None:
    site.package()
    site.way("enable", ": >config/0.settings")

    async def scenario(desk: Desk) -> None:
        desk.give(wish(publicSettings={"a": 1}))
        await desk.wait("fake", "succeeded")
        await desk.idle()
        desk.give(wish(publicSettings={"a": 1}))
        await desk.wait("fake", "succeeded")
        await desk.idle()
        assert (site.folder_of() / "config/0.settings").read_bytes() == b""
        desk.give(wish(sequence=1, publicSettings={"a": 2}))
        await desk.wait("fake", "succeeded", sequence=1)
        assert b'"a": 2' in (site.folder_of() / "config/1.settings").read_bytes()

    live(site, scenario)


def test_a_handler_may_remove_its_own_folder(site: Site) -> None:
    site.package()
    site.way("uninstall", 'rm -rf "$AZURE_GUEST_AGENT_EXTENSION_PATH"')

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        desk.give()
        await desk.until(lambda: "fake" not in desk.last(), "gone")
        await desk.idle()

    live(site, scenario)
    assert site.record() is None


@pytest.mark.parametrize("verb", ["install", "enable"])
def test_a_handler_that_removes_itself_too_early_has_failed(site: Site, verb: str) -> None:
    site.package()
    site.way(verb, 'rm -rf "$AZURE_GUEST_AGENT_EXTENSION_PATH"')

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", "failed")
        assert (entry["code"], entry["operation"]) == (1002, verb)
        assert f"{verb} of Test.Fake 1.0.0 has removed its own files" in entry["message"]
        await desk.idle()
        assert len([call for call in site.calls() if call.startswith("install")]) == 1, "not again by itself"
        site.way(verb, "true")
        site.generation = 1
        desk.give(wish(sequence=1))
        await desk.wait("fake", "succeeded", sequence=1)

    live(site, scenario)


def test_a_folder_that_is_swapped_for_a_link_during_a_removal_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(places.linux(str(tmp_path)))
    folder, theirs = Path(layout.folder("Test.Fake", "1.0")), tmp_path / "theirs"
    for at in (folder / "data", theirs):
        at.mkdir(parents=True)
        for name in ("one", "two", "three"):
            (at / name).touch()
    (folder / "link").symlink_to(theirs)
    genuine = os.unlink

    def swapping(path: str, *, dir_fd: int | None = None) -> None:
        genuine(path, dir_fd=dir_fd)
        if os.path.basename(path) in ("one", "two", "three") and not (folder / "data").is_symlink():
            (folder / "data").rename(folder / "moved")
            (folder / "data").symlink_to(theirs)

    monkeypatch.setattr(os, "unlink", swapping)
    with contextlib.suppress(NotADirectoryError):
        layout.delete("Test.Fake", "1.0")
    monkeypatch.setattr(os, "unlink", genuine)
    assert sorted(os.listdir(theirs)) == ["one", "three", "two"]
    layout.delete("Test.Fake", "1.0")
    layout.delete("Test.Fake", "1.0")  # what is gone is no error
    assert not folder.exists()
    assert sorted(os.listdir(theirs)) == ["one", "three", "two"]


def test_removal_goes_on_over_failures(site: Site) -> None:
    site.package()
    site.way("disable", "exit 3")
    site.way("uninstall", "echo in use >&2; exit 4")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        desk.give()
        await desk.until(lambda: "fake" not in desk.last(), "gone")
        await desk.idle()
        told = [report["extensions"][0] for report in desk.reports if report["extensions"]]
        leaving = [entry for entry in told if entry["state"] == "removing" and entry["code"]]
        assert [(entry["operation"], entry["code"]) for entry in leaving] == [("disable", 1010), ("uninstall", 1000)]
        assert "uninstall of Test.Fake 1.0.0 failed with exit code 4: in use" in leaving[-1]["message"]

    live(site, scenario, report=1)
    assert not site.folder_of().exists()
    assert site.record() is None
    assert "uninstall of Test.Fake 1.0.0 failed with exit code 4" in site.log("extensions")


def test_one_of_several_goes_over_a_failure_that_is_told(site: Site) -> None:
    site.package(manifest={"supportsMultipleExtensions": True})
    site.way("disable-two", "exit 3")
    folder = site.folder_of() / "config"

    async def scenario(desk: Desk) -> None:
        desk.give(wish("one"), wish("two"))
        await desk.wait("two", "succeeded")
        await desk.idle()
        assert [(folder / f"{name}.HandlerState").read_text() for name in ("one", "two")] == ["enabled"] * 2
        desk.give(wish("one"))
        await desk.until(lambda: "two" not in desk.last(), "gone")
        await desk.wait("one", "succeeded")
        assert not (folder / "two.HandlerState").exists()
        codes = [(entry["name"], entry["code"]) for told in desk.reports for entry in told["extensions"]]
        assert ("two", 1010) in codes
        assert ("one", 1010) not in codes

    live(site, scenario)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_folder_that_cannot_be_deleted_is_still_there_and_goes_later(site: Site) -> None:
    site.package()
    busy = site.folder_of() / "busy"

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        busy.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(busy)], check=True)  # noqa: ASYNC221
        desk.give()
        entry = await desk.wait("fake", "failed")
        assert (entry["operation"], entry["code"]) == ("uninstall", 1000)
        assert "busy" in entry["message"]
        await desk.idle()
        assert "fake" in desk.last()
        record = site.record() or {}
        assert (record["version"], record["folders"], list(record["extensions"])) == (None, ["1.0.0"], ["fake"])
        subprocess.run(["umount", str(busy)], check=True)  # noqa: ASYNC221
        desk.give()
        await desk.until(lambda: "fake" not in desk.last(), "gone")
        await desk.idle()

    try:
        live(site, scenario)
    finally:
        subprocess.run(["umount", "--lazy", str(busy)], check=False, stderr=subprocess.DEVNULL)
    assert site.record() is None
    assert not site.folder_of().exists()
    assert site.calls() == ["install 1.0.0", "enable 1.0.0", "disable 1.0.0", "uninstall 1.0.0"]


def test_heartbeats_are_read_whatever_their_spelling(site: Site) -> None:
    site.package(manifest={"reportHeartbeat": "True"})
    beat = json.dumps([{"Version": 1.0, "HeartBeat": {"Status": "notready", "Code": "5", "Message": "tired"}}])
    site.way("enable", f"echo '{beat}' >heartbeat.log")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", "succeeded", handler={"status": "NotReady", "code": 5, "message": "tired"})
        assert entry["state"] == "succeeded"
        old = time.time() - 700
        os.utime(site.folder_of() / "heartbeat.log", (old, old))
        await desk.until(lambda: desk.last()["fake"]["handler"]["status"] == "Unresponsive", "unresponsive")

    live(site, scenario)


def test_a_folder_in_the_place_of_a_heartbeat_costs_nothing(site: Site) -> None:
    site.package(manifest={"reportHeartbeat": True})
    site.way("enable", "mkdir -p heartbeat.log")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded", handler={"status": "NotReady", "code": 0, "message": HEARTBEAT})
        await desk.idle()
        before = len(os.listdir("/proc/self/fd"))
        await sleep(1)
        assert len(os.listdir("/proc/self/fd")) <= before + 1

    live(site, scenario, heartbeat=0.01)


def test_events_that_a_handler_insists_on_writing_do_not_pile_up(site: Site) -> None:
    site.package()
    # As libraries of real handlers do: none without the folder, and never anything removed; old ones write beside.
    site.way(
        "install",
        """folder=$(sed 's/.*"eventsFolder": "\\([^"]*\\)".*/\\1/' HandlerEnvironment.json)
[ -d "$folder" ] || exit 52
case $AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES in *ExtensionTelemetryPipeline*) ;; *) exit 52 ;; esac
mkdir -p ../events
for number in $(seq 400); do echo '{}' >"$folder/$number.json"; echo '{}' >"../events/$number.tld"; done""",
    )
    told = site.root / "var/lib/GuestConfig/extension_logs/Test.Fake-1.0.0/events"
    beside = site.root / "var/lib/waagent/events"

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        await desk.until(lambda: len(os.listdir(told)) == events.MOST, "the oldest are gone")
        await desk.until(lambda: len(os.listdir(beside)) == events.MOST, "the oldest are gone")

    live(site, scenario, events=0.1)


def test_the_variables_and_the_folder_of_a_command(site: Site) -> None:
    site.package()
    site.way("enable", f"env >{site.root}/env; pwd >{site.root}/pwd; umask >{site.root}/umask; cat >{site.root}/stdin")

    async def scenario(desk: Desk) -> None:
        desk.own = {"proxy.url": "http://user:secret@proxy.test:3128"}
        desk.give(wish(sequence=3))
        await desk.wait("fake", "succeeded")

    live(site, scenario)
    told = dict(line.split("=", 1) for line in (site.root / "env").read_text().splitlines())
    folder = str(site.folder_of())
    assert told["AZURE_GUEST_AGENT_EXTENSION_PATH"] == folder
    assert told["AZURE_GUEST_AGENT_EXTENSION_VERSION"] == "1.0.0"
    assert told["ConfigSequenceNumber"] == "3"
    assert told["AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"] == "NOT_RUN"
    assert told["IDENTITY_ENDPOINT"] == "http://localhost:40342/metadata/identity/oauth2/token"
    assert told["HTTPS_PROXY"] == "http://user:secret@proxy.test:3128"
    assert told["PYTHONPATH"] == ""
    assert not {"ConfigExtensionName", "VIRTUAL_ENV", "PYTHONHOME", "LD_LIBRARY_PATH"} & set(told)
    assert (site.root / "pwd").read_text().strip() == folder
    assert (site.root / "umask").read_text().strip() == "0022"
    assert (site.root / "stdin").read_text() == ""
    logs = site.root / "var/lib/GuestConfig"
    assert not [path for path in logs.rglob("*.log") if "secret" in path.read_text()]

# SPDX-License-Identifier: Apache-2.0
"""Handlers whose heartbeats come seldom (extension-handler.md section 17), our own among them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_runtime.extensions import plan
from agent_runtime.service.loop import sleep
from tests.unit.agent_extensions.kit import Desk, Site, live, watching, wish
from tests.unit.agent_services.courier import CHECKOUT

BEAT = '[{"version": 1.0, "heartbeat": {"status": "ready", "code": 0, "message": ""}}]'


@pytest.mark.parametrize(
    ("pause", "words"),
    [(50, {"Ready"}), (120, {"Ready"}), (240, {"Ready"}), (550, {"Ready"}), (1500, {"Ready", "Unresponsive"})],
)
def test_a_handler_that_beats_seldom_is_believed_for_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: int, words: set[str]
) -> None:
    """Six hours of looks, every two minutes, from half a minute before the first beat on."""
    start = clock = 1_000_000.0
    begin = start + 30
    told: list[str] = []
    problems: list[BaseException] = []
    loop, watch = watching(tmp_path, problems, heard=lambda _, found: told.append(found.status))
    now = SimpleNamespace(monotonic=lambda: clock, time=lambda: clock)
    monkeypatch.setattr("agent_runtime.extensions.watch.time", now)
    watch.follow({"test.fake": {**plan.blank("Test", "Fake"), "version": "1.0", "state": plan.ENABLED, "heartbeat": 1}})
    ((place, entry),) = watch._entries.items()
    Path(place.path).parent.mkdir(parents=True)
    # At the first look there is none yet.
    entry.at = clock

    def beat() -> None:
        beaten = begin + (clock - begin) // pause * pause
        if beaten >= begin:
            Path(place.path).write_text(BEAT)
            os.utime(place.path, (beaten, beaten))

    async def scenario() -> None:
        nonlocal clock
        while clock < start + 6 * 3600:
            clock = entry.at
            beat()
            await watch._look(place, entry)
        loop.stop()

    loop.spawn(scenario(), "scenario")
    loop.run()
    assert problems == []
    assert told[0] == "NotReady", "none was written"
    assert set(told[1:]) == words


def test_our_own_probe_is_alive_while_a_probe_takes_an_hour(site: Site, tmp_path: Path) -> None:
    """The real package under the real service: its first verdict is an hour away."""
    build = [sys.executable, str(CHECKOUT / "packaging/build_packages.py"), "--only", "handlers", "--out"]
    subprocess.run([*build, str(tmp_path / "dist")], check=True, stdout=subprocess.DEVNULL)
    told = {"kind": "extension", "publisher": "Hawser", "type": "HealthProbe", "version": "1.0.0"}
    folder = site.root / "repo/extensions/Hawser.HealthProbe/1.0.0"
    folder.mkdir(parents=True)
    (tmp_path / "dist/Hawser.HealthProbe_1.0.0_linux.zip").rename(folder / "linux.zip")
    (folder / "custom.json").write_text(json.dumps({**told, "os": "linux", "arch": "any"}))
    asked = {"protocol": "command", "command": "sleep 3600", "intervalInSeconds": 3600, "timeoutInSeconds": 3600}
    package = {"path": "extensions/Hawser.HealthProbe/1.0.0/linux.zip"}
    entry = {**wish("probe", package=package, publicSettings=asked), "publisher": "Hawser", "type": "HealthProbe"}
    home = site.root / "var/lib/waagent/Hawser.HealthProbe-1.0.0"

    async def scenario(desk: Desk) -> None:
        desk.give(entry)
        health = {"status": "Ready", "code": 0, "message": "The application is initializing."}
        told = await desk.wait("probe", "transitioning", handler=health)
        assert told["status"]["substatus"][0]["formattedMessage"]["message"] == "Initializing"
        await sleep(1)
        assert desk.last()["probe"]["handler"] == health
        desk.give()
        await desk.until(lambda: "probe" not in desk.last(), "gone")
        assert not home.exists()

    try:
        live(site, scenario, heartbeat=0.3)
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((home / "watch.lock").read_text()), signal.SIGKILL)

# SPDX-License-Identifier: Apache-2.0
"""extd while the disk with its own state is full: one clear reason, nothing half done, and the service goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.extensions.store import Store
from agent_runtime.service.loop import sleep
from tests.unit.agent_extensions.kit import Desk, Site, live, wish

REASON = "this waits and is tried again: No space left on device"


class Disk:
    """Takes `room` more writes of extd's store."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.room = 1_000_000
        for name in ("save", "save_plan"):
            patch.setattr(Store, name, self._limited(getattr(Store, name)))

    def _limited(self, original: Callable[..., None]) -> Callable[..., None]:
        def write(*args: Any) -> None:
            if self.room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device", "handlers.json")
            self.room -= 1
            original(*args)

        return write


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_it_says_why_it_waits_and_goes_on_by_itself(site: Site, disk: Disk) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        disk.room = 0
        desk.give(wish())
        entry = await desk.wait("fake", "installing", message=REASON)
        assert (entry["code"], entry["operation"], entry["sequence"]) == (0, "none", 0)
        await desk.until(lambda: site.log("extensions").count("extensions wait: ") > 3, "tried again")
        assert [told["extensions"] for told in desk.reports] == [[entry]], "said once"
        assert site.calls() == []
        disk.room = 1_000_000
        await desk.wait("fake", "succeeded", message="done 0")

    live(site, scenario)
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]
    assert "extensions wait: handlers.json: No space left on device" in site.log("extensions")


def test_what_is_there_stands_and_what_shall_go_says_why_it_does_not(site: Site, disk: Disk) -> None:
    for kind in ("Fake", "Gone", "Bad"):
        site.package(kind=kind)
    site.way("enable", "case $0 in *Bad*) exit 1 ;; esac")
    bad = wish("bad", kind="Bad")

    async def scenario(desk: Desk) -> None:
        desk.give(wish(), wish("gone", kind="Gone"), bad)
        await desk.wait("fake", "succeeded")
        await desk.wait("bad", "failed", code=1009)
        await desk.idle()
        disk.room = 0
        desk.give(wish(), {**bad, "sequence": 1})
        await desk.wait("gone", "removing", message=REASON)
        await desk.wait("bad", "installing", message=REASON, sequence=1)
        assert (desk.last()["fake"]["state"], desk.last()["fake"]["message"]) == ("succeeded", "done 0")
        disk.room = 1_000_000
        await desk.until(lambda: "gone" not in desk.last(), "gone")
        await desk.wait("bad", "failed", code=1009, sequence=1)

    live(site, scenario)
    assert site.record("Gone") is None


@pytest.mark.parametrize("room", range(0, 36, 3))
def test_wherever_it_begins_an_update_is_carried_out_once(site: Site, disk: Disk, room: int) -> None:
    site.package()
    site.package("2.0.0")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        await desk.idle()
        disk.room = room
        desk.give(wish(version="2.0.0", sequence=1))

        def is_told() -> bool:
            last = desk.last()["fake"]
            said = tuple(last[name] for name in ("sequence", "version", "state", "message"))
            return said in ((1, "2.0.0", "installing", REASON), (1, "2.0.0", "succeeded", "done 1"))

        await desk.until(lambda: disk.room == 0, "the disk is full")
        await desk.until(is_told, "why it waits, or how it ended")
        await sleep(0.5)
        assert is_told(), "and nothing else, whatever the former version has left"
        disk.room = 1_000_000
        await desk.wait("fake", "succeeded", version="2.0.0", sequence=1)
        await desk.idle()

    live(site, scenario)
    assert site.calls()[2:] == ["disable 1.0.0", "update 2.0.0", "uninstall 1.0.0", "install 2.0.0", "enable 2.0.0"]


def test_what_the_former_version_says_is_no_answer_to_an_update(site: Site, disk: Disk) -> None:
    """The version alone is another one, so that nothing tells the two by their sequence."""
    site.package()
    site.package("2.0.0")
    file = site.folder_of() / "status/0.status"

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        first = await desk.wait("fake", "succeeded", version="1.0.0")
        await desk.idle()
        disk.room = 0
        desk.give(wish(version="2.0.0"))
        entry = await desk.wait("fake", "installing", message=REASON, version="2.0.0")
        assert entry["status"] == first["status"], "what is there goes on to be shown"
        file.write_text(file.read_text().replace("done 0", "done again"))
        await sleep(1)
        assert desk.last()["fake"] == entry
        desk.give(wish())
        disk.room = 1_000_000
        await desk.wait("fake", "succeeded", version="1.0.0", message="done again")

    live(site, scenario)
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]


def test_what_cannot_be_told_is_logged_and_the_service_goes_on(site: Site, disk: Disk) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        await desk.idle()
        whole = desk.engine._store.results["fake"]
        desk.engine._store.results["fake"] = {}  # as out of a damaged file
        desk.give(wish(sequence=1))
        await desk.until(lambda: "why extensions wait cannot be told: KeyError" in site.log("extensions"), "logged")
        desk.engine._store.results["fake"] = whole
        await desk.wait("fake", "succeeded", sequence=1)

    live(site, scenario)


def test_a_download_is_tried_again_in_its_own_time(site: Site, disk: Disk) -> None:
    """A round that fails meanwhile is tried again much later; that is no reason to wait for it."""
    site.package(trouble="network")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.until(
            lambda: "try 1 of" in desk.last().get("fake", {"message": ""})["message"], "the download failed"
        )
        await desk.idle()
        disk.room = 0
        desk.engine.look()
        await desk.until(lambda: "extensions wait: " in site.log("extensions"), "the round failed")
        disk.room = 1_000_000
        site.package()
        await desk.wait("fake", "succeeded")

    live(site, scenario, download_pause=2, failure=600)


def test_a_round_is_tried_again_in_its_own_time(site: Site, disk: Disk) -> None:
    site.package(trouble="network")

    async def scenario(desk: Desk) -> None:
        disk.room = 0
        desk.give(wish())
        await desk.wait("fake", "installing", message=REASON)
        disk.room = 1_000_000
        desk.engine.look()
        await desk.until(lambda: "try 1 of" in desk.last()["fake"]["message"], "the download failed")
        site.package()
        await desk.wait("fake", "succeeded")

    live(site, scenario, failure=2, download_pause=600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_on_a_file_system_that_is_full_indeed(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/GuestConfig"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    filler = folder / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    async def scenario(desk: Desk) -> None:
        fill()
        desk.give(wish())
        await desk.wait("fake", "installing", message=REASON)
        filler.unlink()
        await desk.wait("fake", "succeeded", message="done 0")
        await desk.idle()
        fill()
        desk.give(wish(sequence=1))
        await desk.wait("fake", "installing", message=REASON, sequence=1)
        filler.unlink()
        await desk.wait("fake", "succeeded", message="done 1")
        await desk.idle()

    try:
        site = Site(tmp_path)
        site.package()
        live(site, scenario)
        left = [path.name for path in (folder / "extensions").iterdir()]
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    assert site.calls() == ["install 1.0.0", "enable 1.0.0", "enable 1.0.0"]
    assert not [name for name in left if name.endswith(".tmp") or name == "plan.json"]

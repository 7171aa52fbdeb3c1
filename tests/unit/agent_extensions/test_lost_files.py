# SPDX-License-Identifier: Apache-2.0
"""Handlers whose files somebody has removed, or they themselves (extension-handler.md section 10)."""

from __future__ import annotations

import shutil

import pytest

from agent_runtime.service.loop import sleep
from tests.unit.agent_extensions.kit import Desk, Site, live, wish


@pytest.mark.parametrize("slowly", [False, True])
def test_what_somebody_removed_by_hand_is_installed_again(site: Site, slowly: bool) -> None:
    """`slowly`: the status file is missed long before the rest is gone, as where there is much to remove."""
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        await desk.idle()
        if slowly:
            shutil.rmtree(site.folder_of() / "status")
            await sleep(1)
            assert desk.last()["fake"]["state"] == "succeeded"
        shutil.rmtree(site.folder_of())
        await desk.until(lambda: site.calls()[2:] == ["install 1.0.0", "enable 1.0.0"], "installed again")
        await desk.wait("fake", "succeeded")
        await desk.idle()

    live(site, scenario)


def test_several_extensions_of_a_handler_that_was_removed_by_hand_come_back(site: Site) -> None:
    site.package(manifest={"supportsMultipleExtensions": True})

    async def scenario(desk: Desk) -> None:
        desk.give(wish("one"), wish("two"))
        await desk.wait("one", "succeeded")
        await desk.wait("two", "succeeded")
        await desk.idle()
        shutil.rmtree(site.folder_of())
        again = ["install 1.0.0", "enable 1.0.0", "enable 1.0.0"]
        await desk.until(lambda: site.calls()[3:] == again, "installed again")
        await desk.idle()
        await desk.wait("one", "succeeded")
        await desk.wait("two", "succeeded")

    live(site, scenario)


def test_a_handler_that_removes_itself_afterwards_is_not_installed_again_and_again(site: Site) -> None:
    site.package()
    site.way("enable", 'say success 0 fine; (sleep 0.3; rm -rf "$AZURE_GUEST_AGENT_EXTENSION_PATH") & exit 0')

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", "failed", code=1002, operation="enable")
        assert entry["message"] == "Test.Fake 1.0.0 has lost its files again"
        await sleep(1.5)
        assert site.calls() == ["install 1.0.0", "enable 1.0.0"] * 2
        site.free("enable")
        desk.give(wish())
        await desk.wait("fake", "succeeded", message="done 0")

    live(site, scenario)

# SPDX-License-Identifier: Apache-2.0
"""Limits are put in force and lifted (extension-handler.md sections 12 and 19)."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from agent_runtime.extensions import runner
from tests.unit.agent_extensions.kit import Desk, Site, live, wish

SLICE = "hawser-extensions-Test.Fake.slice"


@pytest.fixture
def limits(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """The limits of CPU time that were set for a unit, by its name."""
    control, told = site.root / "systemctl", site.root / "controlled"
    control.write_text(f'#!/bin/sh\necho "$@" >>{told}\n')
    control.chmod(0o755)
    monkeypatch.setattr(runner, "systemd", lambda: {"systemctl": str(control)})

    def of(unit: str) -> list[str]:
        words = [line.split() for line in told.read_text().splitlines()] if told.exists() else []
        return [line[line.index(unit) + 1] for line in words if unit in line]

    return of


def test_limits_follow_the_configuration_and_go_with_the_handler(
    site: Site, limits: Callable[[str], list[str]]
) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        await desk.idle()
        assert limits("extd.service") == ["CPUQuota=30%"]
        assert limits(SLICE) == ["CPUQuota=30%"]
        desk.configure(extensions_agent_cpulimit=50)
        await desk.until(lambda: limits(SLICE)[1:] == ["CPUQuota=50%"], "the new limit")
        assert limits("extd.service") == ["CPUQuota=30%", "CPUQuota=50%"]
        desk.give()
        await desk.until(lambda: not desk.last(), "gone")
        assert limits(SLICE)[-1] == "CPUQuota="
        assert len(limits("extd.service")) == 2

    live(site, scenario)


def test_limits_go_with_a_handler_that_removed_itself_while_nobody_looked(
    site: Site, limits: Callable[[str], list[str]]
) -> None:
    """The service ends in the middle of the uninstall, which ends before it is there again."""
    site.package()
    site.way(
        "uninstall",
        f"""rm -rf "$AZURE_GUEST_AGENT_EXTENSION_PATH"; touch {site.root}/begun
while [ ! -e {site.root}/go ]; do sleep 0.05; done; echo bye""",
    )
    log = site.root / "var/lib/GuestConfig/extension_logs/Test.Fake-1.0.0/CommandExecution.log"

    async def first(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        desk.give()
        await desk.until((site.root / "begun").exists, "the uninstall has begun")

    async def second(desk: Desk) -> None:
        desk.give()
        (site.root / "go").touch()
        await desk.until(lambda: site.record() is None, "gone")
        await desk.idle()

    live(site, first)
    assert limits(SLICE)[-1] == "CPUQuota=30%"
    live(site, second)
    assert limits(SLICE)[-1] == "CPUQuota="
    assert site.calls()[2:] == ["disable 1.0.0", "uninstall 1.0.0"]
    last = log.read_text().rpartition("\n20")[2]
    assert f" uninstall in {site.folder_of()}\n  exit code 0 after " in last
    assert last.endswith("[stdout]\nbye\n")


def test_limits_go_with_a_handler_whose_files_are_gone(site: Site, limits: Callable[[str], list[str]]) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        await desk.idle()
        shutil.rmtree(site.folder_of())
        desk.give()
        await desk.until(lambda: "fake" not in desk.last(), "gone")
        await desk.idle()
        assert limits(SLICE) == ["CPUQuota=30%", "CPUQuota="]

    live(site, scenario)
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]

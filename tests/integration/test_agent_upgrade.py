# SPDX-License-Identifier: Apache-2.0
"""The agent's own upgrade on a real host: from the hub's repository, by hand and by the hub, and the way back by itself
when the new version is no good (docs/upgrade.md)."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Host, Lab
from lab.errors import LabError
from tests.integration import hub_process
from tests.integration.agent_packages import mute, unconfigurable, variant
from tests.integration.connected_host import at_arm, connect, install, show
from tests.integration.hub_process import HubProcess
from tests.waiting import until

pytestmark = pytest.mark.hosts

UNIT = "azcmagent-upgrade.service"
FOLDER = "/var/lib/GuestConfig/upgrade"
SECOND, THIRD, MUTE, UNCONFIGURABLE, LAST = (f"1.0.0.9{number}" for number in range(11, 16))


@dataclass
class Site:
    lab: Lab
    host: Host
    hub: HubProcess
    owner: dict[str, Any]
    first: str
    keys: Path

    def arm(self, method: str = "GET", **body: Any) -> Any:
        """The machine at ARM."""
        return at_arm(self.host, self.hub, self.owner, "upgrades", method, **body)

    def wish(self, **members: Any) -> Any:
        """PATCH of `agentUpgrade`."""
        return self.arm("PATCH", json={"properties": {"agentUpgrade": members}})

    def attempt(self) -> dict[str, Any]:
        """`properties` as ARM shows them."""
        found: dict[str, Any] = self.arm().json()["properties"]
        return found

    def upgrade(self, *words: str, check: bool = True) -> tuple[int, dict[str, Any]]:
        """`azcmagent upgrade`: exit code, and its JSON."""
        try:
            done = self.host.run(["azcmagent", "upgrade", *words, "--json"], check=check, timeout=200)
        except LabError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None
        return done.code, json.loads(done.output)

    def told(self) -> str:
        """What machine and hub say of the last upgrade, for a test that has failed."""
        logs = [f"{FOLDER}/upgrade.log", "/var/opt/azcmagent/log/himds.log", "/var/opt/azcmagent/log/extd.log"]
        asked: list[list[str]] = [
            *(["tail", "-n", "40", log] for log in logs),
            ["azcmagent", "show", "--json"],
            ["systemctl", "status", "--no-pager", "--lines=20", UNIT, "himdsd", "extd", "gcad"],
        ]
        said = (self.host.run(words, check=False) for words in asked)
        text = "\n".join(f"{done.output}{done.errors}" for done in said)
        return f"{self.journal()}\n{self.attempt()}\n{text}"

    def journal(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.host.read(f"{FOLDER}/journal.json"))
        return found

    def until(self, check: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        return until(check, lambda: f"{what}: {self.told()}", seconds=seconds, pause=0.2)

    def left(self) -> list[str]:
        """What an upgrade has not tidied up."""
        folders = ("/etc/systemd/system", "/etc/systemd/system/multi-user.target.wants", FOLDER)
        names = self.host.run(["ls", *folders]).output.split()
        return [name for name in names if name in (UNIT, "watchdog.pyz")]

    def settled(self, version: str, status: str) -> dict[str, Any]:
        """Machine and hub once they say that an attempt has ended so; nothing of it is left on the host."""

        def found() -> Any:
            shown = self.attempt()
            ended = shown.get("agentUpgrade", {}).get("lastAttemptStatus") == status
            return shown if ended and (shown["agentVersion"], shown["status"]) == (version, "Connected") else None

        shown = self.until(found, f"{version} is not {status}")
        self.until(lambda: not self.left(), f"something is left: {self.left()}")
        on_host = show(self.host)
        assert (on_host["agentVersion"], on_host["status"]) == (version, "Connected")
        return dict(shown)


@pytest.fixture(scope="module")
def site(
    make_lab: Callable[..., Lab],
    agent_deb: Path,
    build_agent: Callable[[str | None], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    lab = make_lab("up01")
    work = tmp_path_factory.mktemp("upgrades")
    hub = hub_process.make(work / "data", "--location", "local=Laboratory", host=str(lab.gateway))
    hub.start()
    keys = work / "keys"
    hub.add_repository(keys)
    packages = [
        agent_deb,
        build_agent(SECOND),
        variant(agent_deb, THIRD, work),
        variant(agent_deb, MUTE, work, mute),
        variant(agent_deb, UNCONFIGURABLE, work, unconfigurable),
        variant(agent_deb, LAST, work),
    ]
    hub.publish(keys, *packages)
    host = lab.hosts["up01"]
    install(host, agent_deb)
    connect(host, hub, hub.principal("onboarding", "Onboarding"), "upgrades")
    yield Site(lab, host, hub, hub.principal("owner", "Owner"), show(host)["agentVersion"], keys)
    assert hub.stop() == 0


def test_an_upgrade_by_hand(site: Site) -> None:
    code, told = site.upgrade("--version", SECOND)
    assert (code, told["status"], told["changed"], told["version"]) == (0, "success", True, SECOND)
    assert [step["state"] for step in told["steps"]] == ["downloading", "installing", "waiting", "succeeded"]
    shown = site.settled(SECOND, "Success")
    assert shown["agentUpgrade"]["lastAttemptDesiredVersion"] == SECOND
    code, told = site.upgrade("--version", SECOND)
    assert (code, told["changed"]) == (0, False)
    # The package in force is kept; the former one is gone.
    assert site.host.run(["ls", f"{FOLDER}/packages"]).output.split() == [f"{SECOND}-linux.deb"]


def test_the_hub_upgrades_a_machine(site: Site) -> None:
    refused = site.wish(desiredVersion="9.9.9.9")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "AgentVersionNotFound")
    assert THIRD in refused.json()["error"]["message"]
    assert site.wish(desiredVersion=THIRD).status_code == 200
    site.until(lambda: site.attempt()["agentUpgrade"].get("lastAttemptDesiredVersion") == THIRD, "not begun")
    site.settled(THIRD, "Success")
    assert THIRD in site.hub.run("audit", "--action", "machines/agentUpgrade/outcome", "--json").stdout


def test_a_version_that_does_not_start_is_taken_back_without_the_network(site: Site) -> None:
    host, before = site.host, show(site.host)
    host.run(["azcmagent", "upgrade", "--version", MUTE, "--deadline", "20", "--background"])
    site.until(lambda: site.journal()["state"] == "waiting", "not installed")
    host.cut_network()
    try:
        host.kill(UNIT)  # systemd starts the watchdog again, which goes on with its count
        site.until(lambda: site.journal()["state"] == "rolled back", "not taken back")
        assert show(host)["agentVersion"] == THIRD
    finally:
        host.restore_network()
    shown = site.settled(THIRD, "Failed")
    assert "himds does not answer" in shown["agentUpgrade"]["lastAttemptMessage"]
    # The former version has read what the newer one had written: state of N is readable by N-1.
    newer = host.run(["cat", "/root/newer"]).output
    for name in (
        "identity.json",
        "lease.json",
        "evidence.json",
        "binding.json",
        "lab.json",
        "floor.json",
        "journal.json",
    ):
        assert f"/{name}\n" in newer, name
    assert show(host)["vmId"] == before["vmId"]
    assert "damaged" not in host.run(["find", "/var/opt/azcmagent", "/var/lib/GuestConfig"]).output


def test_a_package_that_cannot_be_configured_is_taken_back(site: Site) -> None:
    code, told = site.upgrade("--version", UNCONFIGURABLE, check=False)
    assert (code, told["error"]["code"]) == (101, "AZCM0101")
    assert "could not be installed" in told["error"]["message"]
    assert f"{THIRD} is back" in told["error"]["message"]
    site.settled(THIRD, "Failed")
    # By the hub once more: the same end, and it is not tried again by itself.
    assert site.wish(desiredVersion=UNCONFIGURABLE).status_code == 200
    wanted = site.attempt()["agentUpgrade"]["correlationId"]
    site.until(
        lambda: site.journal()["correlationId"] == wanted and site.journal()["state"] == "rolled back", "not tried"
    )
    site.settled(THIRD, "Failed")
    ident = site.journal()["id"]
    site.host.run(["systemctl", "restart", "extd"])
    time.sleep(6)
    assert site.journal()["id"] == ident


def test_a_watchdog_that_is_killed_again_and_again_comes_to_an_end(site: Site) -> None:
    site.host.run(["azcmagent", "upgrade", "--version", LAST, "--background"])
    killed = set()
    ends = time.monotonic() + 240
    while (state := site.journal()["state"]) not in ("succeeded", "rolled back", "failed"):
        assert time.monotonic() < ends, site.journal()["steps"]
        if state not in killed:
            try:
                # As people and memory killers do first, and with no chance to say anything.
                site.host.kill(UNIT, signal.SIGKILL if state == "installing" else signal.SIGTERM)
                killed.add(state)
            except LabError:
                pass  # it was down for a moment
        time.sleep(0.1)
    assert {"installing", "waiting"} <= killed
    journal = site.journal()
    assert journal["state"] in ("succeeded", "rolled back")
    version, status = (LAST, "Success") if journal["state"] == "succeeded" else (THIRD, "Failed")
    site.settled(version, status)


def test_an_upgrade_that_lost_its_unit_goes_on_when_extd_starts(site: Site) -> None:
    host = site.host
    before = show(host)["agentVersion"]
    host.run(["azcmagent", "upgrade", "--version", MUTE, "--deadline", "30", "--background"])
    site.until(lambda: site.journal()["state"] == "waiting", "not installed")
    host.run(["systemctl", "stop", "extd"])
    host.run(["systemctl", "disable", "--now", UNIT])
    host.run(["rm", "-f", f"/etc/systemd/system/{UNIT}", f"{FOLDER}/watchdog.pyz"])
    host.run(["systemctl", "start", "extd"])
    site.until(lambda: site.journal()["state"] == "rolled back", "not taken back")
    site.settled(before, "Failed")


def test_an_upgrade_goes_on_after_a_reboot(site: Site) -> None:
    before = show(site.host)["agentVersion"]
    site.host.run(["azcmagent", "upgrade", "--version", MUTE, "--deadline", "25", "--background"])
    site.until(lambda: site.journal()["state"] == "waiting", "not installed")
    site.lab.power_off(site.host.name)
    site.lab.power_on(site.host.name)
    site.until(lambda: site.journal()["state"] == "rolled back", "not taken back")
    site.settled(before, "Failed")


def test_another_upgrade_meanwhile_and_bad_input(site: Site) -> None:
    for words, code in (
        (["--version", "x"], 23),
        (["--version", "7.7"], 74),
        (["--deadline", "1"], 23),
    ):
        found, told = site.upgrade(*words, check=False)
        assert (found, told["error"]["code"]) == (code, f"AZCM{code:04}"), told
    journal = site.journal()
    site.host.write(
        f"{FOLDER}/journal.json", json.dumps({**journal, "state": "downloading", "from": "0.0.0.1"}), mode=0o600
    )
    found, told = site.upgrade(check=False)
    assert (found, told["error"]["code"]) == (27, "AZCM0027")
    site.until(lambda: site.journal()["state"] == "failed", "not ended")


def test_a_machine_that_connects_with_automatic_upgrades_is_brought_to_the_newest(site: Site) -> None:
    site.upgrade("--version", SECOND)
    site.settled(SECOND, "Success")
    assert site.arm("DELETE").ok
    site.host.run(["azcmagent", "disconnect", "--force-local-only"])
    site.host.run(["azcmagent", "connect", "--config", "/root/connect.json", "--enable-automatic-upgrade"])
    shown = site.settled(LAST, "Success")
    assert shown["agentUpgrade"]["enableAutomaticUpgrade"] is True


def test_the_newest_is_never_an_older_one(site: Site) -> None:
    site.hub.run("artefacts", "remove-agent", LAST)
    site.hub.run("artefacts", "sign", "--keys", site.keys)
    site.hub.run("artefacts", "publish")
    code, told = site.upgrade()
    assert (code, told["changed"], told["version"]) == (0, False, LAST)

# SPDX-License-Identifier: Apache-2.0
"""A connected host under real faults: a full disk, a cut cable, a killed service."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Host, HostSpec, Lab
from lab.errors import LabError
from tests.integration import hub_process
from tests.integration.connected_host import at_arm, connect, install, show
from tests.integration.hub_process import HubProcess
from tests.waiting import until

pytestmark = pytest.mark.hosts
METADATA = "http://localhost:40342/metadata/instance/compute?api-version=2020-06-01"


@dataclass(frozen=True)
class Site:
    """A hub and one host whose disk can be filled; the agent is installed, nothing more."""

    host: Host
    hub: HubProcess
    owner: dict[str, Any]

    def machine(self, method: str = "GET", **body: Any) -> Any:
        """The machine at ARM."""
        return at_arm(self.host, self.hub, self.owner, "faults", method, **body)


@pytest.fixture(scope="module")
def site(make_lab: Callable[..., Lab], agent_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab = make_lab(HostSpec("small", disk_mib=256))
    data = tmp_path_factory.mktemp("faults-hub") / "data"
    hub = hub_process.make(data, "--location", "local=Laboratory", host=str(lab.gateway))
    hub.start()
    host = lab.hosts["small"]
    install(host, agent_deb)
    yield Site(host, hub, hub.principal("owner", "Owner"))
    assert hub.stop() == 0


def test_a_full_disk_leaves_nothing_half_made(site: Site) -> None:
    host = site.host
    host.write("/root/profile.json", json.dumps(site.hub.profile("lab")))
    host.fill_disk()
    try:
        with pytest.raises(LabError, match=r"AZCM\d{4}"):
            connect(host, site.hub, site.owner, "faults")
        assert site.machine().status_code == 404
        assert show(host)["identityState"] == "disconnected"
        assert host.run(["ls", "/var/opt/azcmagent/certs"]).output == ""
    finally:
        host.free_disk()
    connect(host, site.hub, site.owner, "faults")
    assert show(host)["status"] == "Connected"
    assert site.machine().json()["properties"]["status"] == "Connected"


def test_tags_arrive_while_a_heartbeat_is_held(site: Site) -> None:
    site.machine("PATCH", json={"tags": {"stage": "gold"}}).raise_for_status()

    def arrived() -> bool:
        compute = json.loads(site.host.run(["curl", "-s", "-H", "Metadata:true", METADATA]).output)
        return bool(compute["tags"] == "stage:gold")

    until(arrived)


def test_a_cut_cable_is_survived(site: Site) -> None:
    host = site.host
    before = show(host)["lastHeartbeat"]
    host.cut_network()
    try:
        time.sleep(1.2)
        metadata = host.run(["curl", "-s", "-H", "Metadata:true", METADATA]).output
        assert json.loads(metadata)["name"] == "small"
        assert show(host)["identityState"] == "connected"
    finally:
        host.restore_network()
    host.run(["systemctl", "restart", "himdsd"])
    until(lambda: (found := _shown(host)) and found["lastHeartbeat"] > before, seconds=30)


@pytest.mark.parametrize("unit", ["himdsd", "gcad", "extd"])
def test_a_killed_service_is_back_with_the_same_identity(site: Site, unit: str) -> None:
    host = site.host
    before = show(host)["vmId"]
    old = host.run(["systemctl", "show", "--property=MainPID", "--value", unit]).output
    host.kill(unit)

    def back() -> bool:
        new = host.run(["systemctl", "show", "--property=MainPID", "--value", unit]).output
        return new not in (old, "0\n")

    until(back, seconds=20)
    shown = until(lambda: (found := _shown(host)) and found["status"] == "Connected" and found, seconds=20)
    assert shown["vmId"] == before


def _shown(host: Host) -> dict[str, Any] | None:
    done = host.run(["azcmagent", "show", "--json"], check=False)
    return json.loads(done.output) if done.code == 0 else None


def test_removal_while_connected_and_a_clean_end(site: Site) -> None:
    """The package goes, the identity stays for a reinstallation; the hub can delete the machine by itself."""
    site.host.run(["apt-get", "remove", "--yes", "azcmagent"])
    assert site.host.run(["systemctl", "is-active", "himdsd"], check=False).output.strip() != "active"
    assert site.host.run(["test", "-f", "/var/opt/azcmagent/state/identity.json"]).code == 0
    assert site.machine("DELETE").status_code == 204

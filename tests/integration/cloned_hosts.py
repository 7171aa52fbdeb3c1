# SPDX-License-Identifier: Apache-2.0
"""Real hosts whose disks are copied: what the tests of clones and of sealed images share, few or many at a time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import Host, HostSpec, Lab
from tests.integration import hub_process
from tests.integration.connected_host import connect, install, show
from tests.integration.hub_process import HubProcess

ORIGINAL = "web01"
ASK_TOKEN = """
import urllib.request
address = "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2020-06-01&resource=x"
try:
    urllib.request.urlopen(urllib.request.Request(address, headers={"Metadata": "true"}))
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


@dataclass
class Ground:
    """One host and a hub that it reaches; `seconds` is what was measured, by what it is."""

    lab: Lab
    hub: HubProcess
    owner: dict[str, Any]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def original(self) -> Host:
        return self.lab.hosts[ORIGINAL]

    def machines(self) -> dict[str, dict[str, Any]]:
        """The fleet by name."""
        return {machine["name"]: machine for machine in self.hub.json("machines")}

    def api(self, path: str) -> Any:
        """GET below /hawser/v1 as the owner."""
        token = self.hub.token(self.owner)
        answer = self.hub.session().get(
            f"{self.hub.url}/hawser/v1{path}", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def copies(self, prefix: str, image: Path, number: int, *, healthy: bool = True) -> list[Host]:
        """Boot so many machines with a copy of one disk, each on hardware of its own."""
        return self.lab.add(*[HostSpec(f"{prefix}{n}", image=image) for n in range(1, number + 1)], healthy=healthy)

    def wait(self, what: str, hosts: list[Host], done: Callable[[dict[str, Any]], bool], patience: float) -> None:
        """Until `show` of every host satisfies `done`; the seconds go into `seconds[what]`."""
        began = time.monotonic()
        left = {host.name: host for host in hosts}
        shown: dict[str, Any] = {}
        while left:
            for name, host in list(left.items()):
                shown[name] = state(host)
                if done(shown[name]):
                    self.seconds.setdefault(what, []).append(time.monotonic() - began)
                    del left[name]
            assert time.monotonic() - began < patience, {name: shown[name] for name in left}
            time.sleep(0.2)


def state(host: Host) -> dict[str, Any]:
    """`azcmagent show --json`, whatever its exit code."""
    done = host.run(["azcmagent", "show", "--json"], check=False)
    found: dict[str, Any] = json.loads(done.output)
    return {**found, "exitCode": done.code}


def is_connected(shown: dict[str, Any]) -> bool:
    return bool(shown["identityState"] == "connected" and shown["status"] == "Connected")


def key_digests(host: Host) -> list[str]:
    """SHA-256 of every private key that the agent has on the host: its own, and extd's once that is made."""
    extds = "/var/lib/GuestConfig/extensions/keys/settings.key"
    script = f"until [ -e {extds} ]; do sleep 1; done; cat /var/opt/azcmagent/certs/*.key {extds}"
    listed = host.run(["timeout", "120", "sh", "-c", script]).output
    keys = listed.split("-----END PRIVATE KEY-----")
    return [hashlib.sha256(key.encode()).hexdigest() for key in keys if key.strip()]


@contextmanager
def ground(make_lab: Callable[..., Lab], agent_deb: Path, work: Path) -> Iterator[Ground]:
    """The host ORIGINAL with the agent installed, not connected, and a running hub at the bridge's address."""
    lab = make_lab(ORIGINAL)
    hub = hub_process.make(work / "hub", "--location", "local=Laboratory", host=str(lab.gateway))
    hub.start()
    try:
        install(lab.hosts[ORIGINAL], agent_deb)
        yield Ground(lab, hub, hub.principal("owner", "Owner"))
    finally:
        hub.stop()


def copied_by_mistake(ground: Ground) -> Path:
    """Connect the original, shut it down, copy its disk, and boot it again."""
    connect(ground.original, ground.hub, ground.owner, "servers")
    assert is_connected(show(ground.original))
    ground.lab.power_off(ORIGINAL)
    image = ground.lab.image(ORIGINAL)
    ground.lab.power_on(ORIGINAL)
    return image


def quarantined_by_default(ground: Ground, image: Path, number: int) -> list[Host]:
    """Boot copies of a connected machine under the profile that machines have that were connected without one: each is
    quarantined, and can be seen to be so on the machine, by the hub's command and by its API."""
    before = state(ground.original)
    clones = ground.copies("clone", image, number)
    ground.wait("quarantined", clones, lambda shown: shown["identityState"] == "quarantined", 180)
    for clone in clones:
        shown = state(clone)
        assert (shown["exitCode"], shown["identityVerdict"], shown["identityEvent"]) == (44, "clone", 4102)
        assert "dmi_uuid" in shown["identityDiffers"]
        assert shown["identityReason"] == "quarantined"
        assert "into quarantine (dmi_uuid, dmi_serial differ)" in shown["agentErrorDetails"]
        assert clone.run(["python3", "-c", ASK_TOKEN]).output.startswith("503")
    after = state(ground.original)
    assert is_connected(after)
    assert {key: after[key] for key in ("resourceName", "vmId")} == {
        key: before[key] for key in ("resourceName", "vmId")
    }
    assert ground.machines().keys() == {ORIGINAL}
    listed = ground.hub.json("twins")
    assert [(twin["name"], twin["verdict"], twin["state"]) for twin in listed] == [(ORIGINAL, "clone", "open")] * number
    assert len(ground.api("/twins")["value"]) == number
    return clones


def adopted_by_themselves(ground: Ground, image: Path, number: int) -> list[Host]:
    """Boot copies of a connected machine under a profile that adopts: each becomes a machine with a name and a key of
    its own. Nobody touches them; they are only looked at."""
    ground.hub.run("profiles", "set", "default", "--clones", "adopt")
    before = state(ground.original)
    clones = ground.copies("copy", image, number)
    ground.wait("adopted", clones, lambda shown: is_connected(shown) and shown["resourceName"] != ORIGINAL, 300)
    shown = [state(host) for host in clones]
    names = {found["resourceName"] for found in shown}
    assert len(names) == number
    everybody = [before, *shown]
    for what in ("vmId", "identityCertificateThumbprint", "resourceId"):
        assert len({found[what] for found in everybody}) == number + 1, what
    keys = [key for host in [ground.original, *clones] for key in key_digests(host)]
    assert len(keys) == len(set(keys)) == 2 * (number + 1), "a copied key was left, or is shared"
    machines = ground.machines()
    assert machines.keys() == {ORIGINAL, *names}
    assert {machine["status"] for machine in machines.values()} == {"Connected"}
    after = state(ground.original)
    assert is_connected(after)
    assert {key: after[key] for key in ("resourceName", "vmId")} == {
        key: before[key] for key in ("resourceName", "vmId")
    }
    return clones


# Nothing makes a Debian host's SSH keys anew by itself where cloud-init is not there.
_SSH_KEYS = "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"
CLEAN = "rm -f /etc/ssh/ssh_host_*; : > /etc/machine-id; rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed"


def sealed_image(ground: Ground, uses: int) -> Path:
    """Seal the original as the image web-1, whose copies join by themselves, and copy its disk."""
    where = ("--subscription", ground.hub.subscription_id, "-g", "servers", "--location", "local")
    ground.hub.run("profiles", "set", "web", *where, "--tag", "role=web")
    token = ground.hub.json("profiles", "token", "web", "--uses", str(uses), "--days", "1", "--image", "web-1")["token"]
    host = ground.original
    host.write("/root/profile.json", json.dumps(ground.hub.profile("lab")))
    host.run(["azcmagent", "cloud", "add", "/root/profile.json"])
    host.write("/etc/systemd/system/ssh.service.d/keys.conf", _SSH_KEYS)
    enrol = ("--enroll-on-first-boot", "web", "--token-file", "-")
    host.run(["azcmagent", "seal", "--image-id", "web-1", *enrol], stdin=f"{token}\n")
    found = host.run(["azcmagent", "seal", "--check"], check=False)
    assert found.code == 27, "the operating system's identity is still there"
    host.run(["sh", "-c", CLEAN])
    found = host.run(["azcmagent", "seal", "--check"])
    assert token not in found.output
    ground.lab.power_off(ORIGINAL)
    return ground.lab.image(ORIGINAL)


def joined_by_themselves(ground: Ground, image: Path, number: int) -> list[Host]:
    """Boot copies of the sealed image: as many machines, with as many keys."""
    copies = ground.copies("image", image, number)
    ground.wait("joined", copies, is_connected, 300)
    shown = [state(host) for host in copies]
    for what in ("resourceName", "vmId", "identityCertificateThumbprint"):
        assert len({found[what] for found in shown}) == number, what
    assert {found["imageId"] for found in shown} == {"web-1"}
    keys = [key for host in copies for key in key_digests(host)]
    assert len(keys) == len(set(keys)) == 2 * number
    machines = ground.machines()
    assert len(machines) == number
    assert {(machine["status"], machine["tags"].get("role")) for machine in machines.values()} == {("Connected", "web")}
    (found,) = ground.hub.json("images")
    assert (found["imageId"], found["joined"]) == ("web-1", number)
    for host in copies:
        assert host.run(["test", "-e", "/var/opt/azcmagent/image.token"], check=False).code == 1
    assert ground.hub.json("twins") == []
    return copies

# SPDX-License-Identifier: Apache-2.0
"""Lane vm: images and clones on virtual machines. cloud-init and virt-sysprep themselves clean the disks; QEMU gives
each machine its hardware and its generation id, and a kernel whose control groups limit what extensions take."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime.extensions import governance
from benchmarks import packages
from benchmarks.extension_host_parts import BURN, HANDLER, LIMIT_PERCENT, STOP
from lab import Lab
from lab.vm import Hardware, Vm, Vms
from tests.integration import hub_process
from tests.integration.cloned_hosts import is_connected
from tests.integration.extension_site import arm_of, operation_of
from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.waiting import until

pytestmark = [pytest.mark.lane("vm"), pytest.mark.timeout(3600)]
JOIN_SECONDS = 300.0


class Ground:
    """A hub that the machines reach, and a disk with the agent on it, cloud profile included, not connected."""

    def __init__(self, lab: Lab, hub: HubProcess, deb: Path) -> None:
        self.lab, self.hub, self.vms = lab, hub, Vms(lab)
        self.owner = hub.principal("owner", "Owner")
        where = ("--subscription", hub.subscription_id, "-g", "servers", "--location", "local")
        hub.run("profiles", "set", "web", *where)
        self.secret = hub.json("profiles", "token", "web", "--uses", "20", "--days", "1")["token"]
        self.builder = Hardware()
        self.installed = self.vms.fresh_disk()
        machine = self.start("builder", self.installed, self.builder)
        machine.copy(deb, "/root/agent.deb")
        machine.run(["dpkg", "--install", "/root/agent.deb"])
        machine.run(["sh", "-c", "cat >/root/cloud.json"], stdin=hub.run("cloud-profile", "--name", "lab").stdout)
        machine.run(["azcmagent", "cloud", "add", "/root/cloud.json"])
        machine.power_off()

    def start(self, name: str, disk: Path, hardware: Hardware) -> Vm:
        """Boot, and wait until cloud-init is done."""
        machine = self.vms.boot(name, disk, hardware)
        machine.wait_ready()
        return machine

    def copies(self, image: Path, *names: str) -> list[Vm]:
        """Machines with copies of a disk, each on hardware of its own, that boot together."""
        started = [self.vms.boot(name, self.vms.copy_of(image), Hardware()) for name in names]
        for machine in started:
            machine.wait_ready()
        return started

    def joined(self, machines: list[Vm]) -> list[dict[str, Any]]:
        """`show` of each when all are connected."""
        found = [wait(machine, is_connected) for machine in machines]
        for what in ("vmId", "resourceName", "identityCertificateThumbprint"):
            assert len({shown[what] for shown in found}) == len(machines), what
        return found


def show(machine: Vm) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.run(["azcmagent", "show", "--json"], check=False).output)
    return found


def wait(machine: Vm, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look again and again, on the machine, until it is so."""
    for _ in range(int(JOIN_SECONDS / 3)):
        found = show(machine)
        if done(found):
            return found
        machine.run(["sleep", "2"])
    raise AssertionError((found, machine.run(["cat", "/var/opt/azcmagent/log/himds.log"]).output[-3000:]))


def evidence(machine: Vm) -> dict[str, str]:
    """Names and read status of the vector that the hub accepted last."""
    items = json.loads(machine.run(["cat", "/var/opt/azcmagent/state/evidence.json"]).output)["items"]
    return {item["name"]: item["status"] for item in items}


@pytest.fixture(scope="module")
def ground(make_lab: Callable[..., Lab], agent_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    lab = make_lab()
    data = tmp_path_factory.mktemp("hub") / "data"
    hub = hub_process.make(data, "--location", "local=Laboratory", host=str(lab.gateway))
    hub.start()
    try:
        yield Ground(lab, hub, agent_deb)
    finally:
        hub.stop()


def test_an_image_that_cloud_init_cleaned_gives_machines_of_their_own(ground: Ground) -> None:
    disk = ground.vms.copy_of(ground.installed)
    builder = ground.start("builder", disk, ground.builder)
    enrol = ("--enroll-on-first-boot", "web", "--token-file", "-")
    builder.run(["azcmagent", "seal", "--image-id", "cloud-1", *enrol], stdin=f"{ground.secret}\n")
    dirty = builder.run(["azcmagent", "seal", "--check"], check=False)
    assert dirty.code == 27
    assert "SSH host keys" in dirty.output
    # The package's hook runs in here; the image is sealed already and keeps its name.
    builder.run(["cloud-init", "clean", "--logs", "--seed", "--machine-id"])
    # In one breath: without its host keys nobody gets in again.
    last = "rm -f /etc/ssh/ssh_host_*; azcmagent seal --check --json; code=$?; systemctl poweroff; exit $code"
    clean = builder.run(["sh", "-c", last], check=False)
    assert clean.code == 0, clean.output
    builder.wait_off()

    shown = ground.joined(ground.copies(disk, "cloud1", "cloud2"))
    assert {found["resourceName"] for found in shown} == {"cloud1", "cloud2"}
    assert {found["imageId"] for found in shown} == {"cloud-1"}
    listed = ground.hub.json("images", "show", "cloud-1")
    assert {(item["name"], item["how"]) for item in listed} == {("cloud1", "joined"), ("cloud2", "joined")}


def test_cloud_init_alone_seals_an_image(ground: Ground) -> None:
    """Nobody thought of the agent: the hook of the package did."""
    disk = ground.vms.copy_of(ground.installed)
    builder = ground.start("builder", disk, ground.builder)
    builder.run(["env", "AZCMAGENT_IMAGE_ID=cloud-2", "cloud-init", "clean", "--logs", "--seed", "--machine-id"])
    found = show(builder)
    assert (found["identityState"], found["imageId"]) == ("sealed", "cloud-2")
    builder.power_off()
    # The builder again: as a machine of a cloud it keeps its instance.
    again = ground.start("builder", disk, ground.builder)
    assert show(again)["identityState"] == "sealed"
    again.power_off()
    (copy,) = ground.copies(disk, "plain")
    assert wait(copy, lambda shown: shown["identityState"] != "sealed")["identityState"] == "disconnected"


def test_the_hypervisor_and_the_cloud_tell_copies_apart(ground: Ground) -> None:
    """Two machines from one disk of a connected machine, that differ in one thing each."""
    disk = ground.vms.copy_of(ground.installed)
    hardware = Hardware()
    original = ground.start("twin", disk, hardware)
    connect(ground, original)
    read = evidence(original)
    assert {name for name, status in read.items() if status == "ok"} >= {
        "vmgenid",
        "cloud_instance_id",
        "dmi_uuid",
        "dmi_serial",
        "machine_id",
        "disk_id",
        "macs",
    }, read
    # What the playbook verify_unique reads is that id: a GUID, its first three parts little-endian.
    plays = yaml.safe_load((REPOSITORY / "playbooks" / "verify_unique.yml").read_text())
    (command,) = [task["ansible.builtin.raw"] for task in plays[0]["tasks"] if "ansible.builtin.raw" in task]
    (line,) = [line for line in original.run(["sh", "-c", command]).output.splitlines() if line.startswith("vmgenid ")]
    digits = line.removeprefix("vmgenid ").replace(" ", "")
    assert uuid.UUID(bytes_le=bytes.fromhex(digits)) == uuid.UUID(hardware.generation)
    original.power_off()

    image = disk
    original = ground.start("twin", ground.vms.copy_of(image), hardware)
    assert is_connected(wait(original, is_connected))
    cases = {
        "vmgenid": replace(hardware, generation=Hardware().generation),
        "cloud_instance_id": replace(hardware, instance=Hardware().instance),
        "dmi_uuid": replace(hardware, uuid=Hardware().uuid),
    }
    for name, other in cases.items():
        clone = ground.start("twin", ground.vms.copy_of(image), other)
        found = wait(clone, lambda shown: shown["identityState"] == "quarantined")
        assert name in found["identityDiffers"], (name, found)
        clone.power_off()
    assert is_connected(show(original))
    assert [twin["verdict"] for twin in ground.hub.json("twins")] == ["clone"] * len(cases)
    ground.hub.run("profiles", "set", "default", "--clones", "adopt")
    clone = ground.start("adopted", ground.vms.copy_of(image), Hardware())
    found = wait(clone, lambda shown: is_connected(shown) and shown["resourceName"] != "twin")
    assert found["resourceName"].startswith("adopted")
    assert show(original)["resourceName"] == "twin"


def test_other_parts_and_a_wrong_clock_make_no_other_machine(ground: Ground) -> None:
    """The same disk and firmware; at every boot another network card and another address."""
    name, hardware, disk = "rebuilt", Hardware(), ground.vms.copy_of(ground.installed)
    machine = ground.start(name, disk, hardware)
    connect(ground, machine)
    before, address = show(machine), machine.address
    machine.power_off()
    hardware = replace(hardware, memory_mib=hardware.memory_mib + 256, processors=2, spare_disk=True)
    machine = ground.start(name, disk, hardware)
    assert machine.address != address
    assert machine.run(["nproc"]).output.strip() == "2"
    assert machine.run(["test", "-b", "/dev/vdc"], check=False).code == 0
    heard = wait(machine, lambda shown: shown["lastHeartbeat"] != before["lastHeartbeat"])
    assert (heard["identityState"], heard["vmId"]) == ("connected", before["vmId"])
    machine.power_off()

    # Ten years on no certificate is good for TLS: the hub is out of reach, and the identity is what it was.
    machine = ground.start(name, disk, replace(hardware, clock="2036-11-28T12:00:00"))
    assert machine.run(["date", "+%Y"]).output.strip() == "2036"
    off = wait(machine, lambda shown: bool(shown["agentErrorCode"]))
    assert (off["identityState"], off["status"], off["agentErrorCode"]) == ("connected", "Disconnected", "AZCM0026")
    machine.run(["date", "--utc", "--set", time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())])
    machine.run(["systemctl", "restart", "himdsd"])
    assert wait(machine, is_connected)["vmId"] == before["vmId"]
    assert before["vmId"] not in [twin["vmId"] for twin in ground.hub.json("twins")]
    machine.power_off()


def connect(ground: Ground, machine: Vm) -> None:
    """Under its name."""
    machine.run(["sh", "-c", "umask 077; cat >/root/connect.json"], stdin=json.dumps(wish(ground, machine.name)))
    machine.run(["azcmagent", "connect", "--config", "/root/connect.json"])
    assert is_connected(show(machine))


def wish(ground: Ground, name: str) -> dict[str, str]:
    """For `connect --config`."""
    return {
        "access-token": ground.hub.token(ground.owner),
        "subscription-id": ground.hub.subscription_id,
        "resource-group": "servers",
        "location": "local",
        "resource-name": name,
    }


def test_virt_sysprep_seals_a_disk_that_does_not_run(ground: Ground, tmp_path: Path) -> None:
    """The disk of a machine that somebody had connected."""
    if shutil.which("virt-sysprep") is None:
        pytest.fail("virt-sysprep is not here: apt-get install guestfs-tools")
    disk = ground.vms.copy_of(ground.installed)
    machine = ground.start("connected", disk, ground.builder)
    connect(ground, machine)
    script = tmp_path / "virt-sysprep-seal"
    script.write_text(machine.run(["cat", "/usr/share/azcmagent/virt-sysprep-seal"]).output)
    script.chmod(0o755)
    machine.power_off()
    name = tmp_path / "azcmagent-image-id"
    name.write_text("sysprep-1\n")
    kernel = next((ground.vms.root / "boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    environment = {
        **os.environ,
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
        # The appliance boots with the kernel of the machines, for this one may have none of its own in /boot.
        "SUPERMIN_KERNEL": str(kernel),
        "SUPERMIN_KERNEL_VERSION": version,
        "SUPERMIN_MODULES": str(ground.vms.root / "lib" / "modules" / version),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        ["virt-sysprep", "--add", str(disk), "--upload", f"{name}:/etc/azcmagent-image-id", "--run", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    copies = ground.copies(disk, "prepared1", "prepared2")
    for copy in copies:
        found = wait(copy, lambda shown: shown["identityState"] != "sealed")
        assert (found["identityState"], found["imageId"]) == ("disconnected", "sysprep-1")
        assert copy.run(["sh", "-c", "ls /var/opt/azcmagent/certs"]).output == ""


def test_an_extension_that_takes_what_it_gets_is_held_at_its_limit(ground: Ground, tmp_path: Path) -> None:
    hub, keys, name = ground.hub, tmp_path / "keys", "hungry"
    hub.add_repository(keys)
    hub.publish(keys, packages.write(tmp_path / "package.zip", "1.0.0", enable=BURN, disable=STOP))
    machine = ground.start(name, ground.vms.copy_of(ground.installed), Hardware())
    # That of the image is of a time when the hub had no packages.
    machine.run(["sh", "-c", "cat >/root/cloud.json"], stdin=hub.run("cloud-profile", "--name", "lab").stdout)
    machine.run(["azcmagent", "cloud", "add", "/root/cloud.json"])
    connect(ground, machine)
    arm, group = arm_of(hub, hub.token(ground.owner)), f"/subscriptions/{hub.subscription_id}/resourceGroups/servers"
    extension = f"{group}/providers/Microsoft.HybridCompute/machines/{name}/extensions/bench"
    answer = arm("PUT", extension, packages.wish("1.0.0"))
    told = until(lambda: (found := operation_of(arm, answer))["status"] != "InProgress" and found, seconds=600)
    assert told["status"] == "Succeeded", told

    slice_ = governance.slice_of(HANDLER)
    held = watched(machine, slice_)
    assert held["limit_percent"] == LIMIT_PERCENT
    assert abs(held["used_percent"] - LIMIT_PERCENT) <= 1, held
    machine.run(["systemctl", "set-property", "--runtime", slice_, "CPUQuota="])
    free = watched(machine, slice_)
    assert free["limit_percent"] is None
    assert free["used_percent"] > 2 * LIMIT_PERCENT, f"nothing but the limit held it: {free}"


def watched(machine: Vm, slice_: str) -> dict[str, Any]:
    """What a slice takes in a minute, as benchmarks/slice_watch.py tells it."""
    script = (REPOSITORY / "benchmarks" / "slice_watch.py").read_text()
    argv = ["python3", "-I", "-", "--slice", slice_, "--seconds", "60"]
    found: dict[str, Any] = json.loads(machine.run(argv, stdin=script).output)
    assert found["writable"]
    return found

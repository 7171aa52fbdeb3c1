# SPDX-License-Identifier: Apache-2.0
"""Virtual machines under QEMU, on the bridge of a lab: for what containers cannot show. They have a kernel and hardware
of their own, a generation id from their hypervisor, and a first boot by cloud-init.

Slow on purpose: the processor is emulated (TCG), because /dev/kvm is not to be had everywhere; a boot takes a minute or
two.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import base, network
from lab.errors import LabError
from lab.fleet import Lab
from lab.host import Completed
from lab.ledger import run

SUITE = base.SUITE
PACKAGES = (*base.PACKAGES, "cloud-init", "e2fsprogs", "initramfs-tools", "linux-image-cloud-amd64")
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs"}
DISK_MIB = 3072
MEMORY_MIB = 768
BOOT_SECONDS = 600.0
_CUSTOMIZE = r"""set -eu
root="$1"
echo '/dev/vda / ext4 defaults 0 1' > "$root/etc/fstab"
cat > "$root/etc/cloud/cloud.cfg.d/50-lab.cfg" <<'END'
datasource_list: [NoCloud]
disable_root: false
locale: false
updates: {network: {when: [boot-new-instance, boot]}}
ssh_deletekeys: true
ssh_genkeytypes: [ed25519]
apt: {preserve_sources_list: true}
system_info: {network: {renderers: [networkd]}}
END
cd "$root/etc/systemd/system"
mkdir -p multi-user.target.wants
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer getty.target serial-getty@ttyS0.service; do
    ln -sf /dev/null "$unit"
done
ln -s /lib/systemd/system/systemd-networkd.service multi-user.target.wants/
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/resolv.conf"
: > "$root/etc/machine-id"
"""


@dataclass(frozen=True)
class Hardware:
    """What the hypervisor tells. `generation`: its VM generation id; `instance`: cloud-init's; `memory_mib`,
    `processors`; `spare_disk`: a second, empty one; `clock`: of its board at the start, as `-rtc base` has it."""

    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    serial: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    generation: str = field(default_factory=lambda: str(uuid.uuid4()))
    instance: str = field(default_factory=lambda: f"i-{uuid.uuid4().hex[:12]}")
    memory_mib: int = MEMORY_MIB
    processors: int = 1
    spare_disk: bool = False
    clock: str = "utc"


def path(cache: Path) -> Path:
    """Where the root of this recipe lies in a cache directory."""
    recipe = json.dumps({"suite": SUITE, "packages": PACKAGES, "customize": _CUSTOMIZE, "version": 1}, sort_keys=True)
    return cache / f"vm-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"


@dataclass
class Vm:
    """One machine. It runs when it was made by `Vms.boot`, until `power_off`."""

    name: str
    disk: Path
    address: ipaddress.IPv4Address
    private_key: Path
    process: subprocess.Popen[bytes]
    console: Path

    def ssh_argv(self) -> list[str]:
        """Start of a command line as root. Its host key is new after every first boot, and the network has one cable:
        it is not looked at."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR")
        flags = [part for option in (*options, "ConnectTimeout=10") for part in ("-o", option)]
        return ["ssh", "-F", "none", "-i", str(self.private_key), *flags, f"root@{self.address}"]

    def run(self, argv: Sequence[str], *, check: bool = True, stdin: str = "", timeout: float = 300) -> Completed:
        """Run a command as root.

        :raises LabError: it ended with another code than 0 and `check` is set.
        """
        done = subprocess.run(
            [*self.ssh_argv(), "--", shlex.join(argv)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise LabError(f"`{shlex.join(argv)}` on {self.name} ended with {done.returncode}: {said}", "")
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)

    def copy(self, source: Path, target: str) -> None:
        """Copy a file of this machine there."""
        with source.open("rb") as file:
            argv = [*self.ssh_argv(), "--", f"cat > {shlex.quote(target)}"]
            subprocess.run(argv, stdin=file, check=True, timeout=300)

    def wait_ready(self) -> None:
        """Until it has booted and cloud-init has done its work."""
        ends = time.monotonic() + BOOT_SECONDS
        while True:
            if self.process.poll() is not None or time.monotonic() > ends:
                said = self.console.read_text(encoding="utf-8", errors="replace")[-1500:]
                raise LabError(f"The machine {self.name} did not come up: {said}", f"See {self.console}.")
            try:
                done = self.run(["cloud-init", "status", "--wait"], check=False, timeout=BOOT_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            if done.code == 0:
                return
            if "status: error" in done.output:
                raise LabError(f"cloud-init failed on {self.name}: {done.output.strip()}", f"See {self.console}.")
            time.sleep(1)

    def power_off(self) -> None:
        """Shut it down in good order. Its disk stays."""
        self.run(["systemctl", "poweroff"], check=False)
        self.wait_off()

    def wait_off(self) -> None:
        """Until it has shut down, as it was told."""
        try:
            self.process.wait(180)
        except subprocess.TimeoutExpired:
            raise LabError(f"The machine {self.name} does not shut down.", f"See {self.console}.") from None


class Vms:
    """Machines on the bridge of a lab that runs; they go with it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._number = 100
        self._folder = lab.directory / "vms"
        missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
        if missing:
            raise LabError("QEMU is not here.", f"apt-get install {' '.join(missing)}")
        base.made(path(lab.cache), SUITE, PACKAGES, _CUSTOMIZE)
        lab.ledger.record("tree", path=str(self._folder))
        self._folder.mkdir(mode=0o700)

    @property
    def root(self) -> Path:
        """The tree that disks are made of; nobody changes it."""
        return path(self._lab.cache)

    def fresh_disk(self) -> Path:
        """A disk with the root on it, one file system, no partitions."""
        disk = self._folder / f"disk-{uuid.uuid4().hex[:8]}.raw"
        run(["mke2fs", "-q", "-t", "ext4", "-d", str(self.root), "-L", "root", str(disk), f"{DISK_MIB}M"])
        return disk

    def copy_of(self, disk: Path) -> Path:
        """A copy of the disk of a machine that does not run: what it writes is its own."""
        copy = self._folder / f"disk-{uuid.uuid4().hex[:8]}.qcow2"
        format_ = "raw" if disk.suffix == ".raw" else "qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", format_, str(copy)])
        return copy

    def boot(self, name: str, disk: Path, hardware: Hardware) -> Vm:
        """Start a machine; `wait_ready` waits for it."""
        self._number += 1
        number, lab = self._number, self._lab
        address = lab.network[number]
        tap = f"vm-{lab.name}-{number}"[:15]
        network.refuse_existing(tap)
        lab.ledger.record("interface", name=tap)
        run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"])
        run(["ip", "link", "set", "dev", tap, "master", lab.bridge, "up"])
        home = self._folder / f"{name}-{number}"
        home.mkdir()
        mac = f"52:54:00:{number:02x}:{int(address) >> 8 & 255:02x}:{int(address) & 255:02x}"
        self._write_seed(home / "seed", name, hardware, mac, f"{address}/{lab.network.prefixlen}")
        if hardware.spare_disk:
            with (home / "spare.raw").open("wb") as file:
                file.truncate(64 << 20)
        console = home / "console.log"
        process = lab.ledger.spawn(f"machine {name}", self._argv(home, disk, hardware, tap, mac, console))
        return Vm(name, disk, address, lab.private_key, process, console)

    def _write_seed(self, seed: Path, name: str, hardware: Hardware, mac: str, address: str) -> None:
        """What a NoCloud source tells cloud-init: who the machine is, who may come in, where it is in the network."""
        seed.mkdir()
        key = self._lab.private_key.with_suffix(".pub").read_text(encoding="ascii").strip()
        interface = {"match": {"macaddress": mac}, "set-name": "eth0", "addresses": [address], "dhcp4": False}
        # JSON is YAML.
        users = {"users": [{"name": "root", "ssh_authorized_keys": [key]}]}
        (seed / "user-data").write_text(f"#cloud-config\n{json.dumps(users)}\n", encoding="ascii")
        about = {"instance-id": hardware.instance, "local-hostname": name}
        (seed / "meta-data").write_text(json.dumps(about), encoding="ascii")
        wanted = {"version": 2, "ethernets": {"lab": interface}}
        (seed / "network-config").write_text(json.dumps(wanted), encoding="ascii")

    def _argv(self, home: Path, disk: Path, hardware: Hardware, tap: str, mac: str, console: Path) -> list[str]:
        kernel, initrd = (next((self.root / "boot").glob(f"{stem}-*")) for stem in ("vmlinuz", "initrd.img"))
        kind = "raw" if disk.suffix == ".raw" else "qcow2"
        spare = ["-drive", f"file={home / 'spare.raw'},format=raw,if=virtio"] if hardware.spare_disk else []
        return [
            *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot"),
            *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", str(hardware.memory_mib)),
            *("-smp", str(hardware.processors), "-rtc", f"base={hardware.clock}"),
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off"),
            *("-drive", f"file={disk},format={kind},if=none,id=root"),
            *("-device", f"virtio-blk-pci,drive=root,serial={hardware.serial}"),
            *("-drive", f"file.driver=vvfat,file.dir={home / 'seed'},file.label=CIDATA,if=virtio,readonly=on"),
            *spare,
            *("-netdev", f"tap,id=lab,ifname={tap},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=lab,mac={mac}", "-device", "virtio-rng-pci"),
            *("-smbios", f"type=1,manufacturer=Hawser,uuid={hardware.uuid},serial={hardware.serial}"),
            *("-device", f"vmgenid,guid={hardware.generation}"),
            *("-serial", f"file:{console}", "-monitor", "none"),
        ]

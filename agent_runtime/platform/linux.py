# SPDX-License-Identifier: Apache-2.0
"""What Linux knows of its machine: operating system, hardware, network.

Read from /proc, /sys and /etc without helpers; `root` is put in front of every path (tests). Members are those that
ARM shows (identity-and-arm-api.md C.5) and the overview's section 'Instance metadata'. The signals of the evidence
vector are linux_signals.py's.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from typing import Any

from agent_runtime.platform.base import Signal

assert sys.platform != "win32"  # noqa: S101 - read by the type checker

from agent_runtime.platform.linux_signals import COPIES, DMI, Signals  # noqa: E402 - only Linux has it

READ_LIMIT = 1024 * 1024


class Linux:
    """One look at the machine. Every method reads afresh."""

    def __init__(self, root: str = "") -> None:
        self._root = root

    def _read(self, path: str) -> str:
        with open(f"{self._root}{path}", "rb") as file:
            return file.read(READ_LIMIT).decode("utf-8", "replace").strip("\0\n ")

    def _text(self, path: str) -> str:
        """Content of a file, empty when it cannot be read."""
        try:
            return self._read(path)
        except OSError:
            return ""

    def _dmi(self, name: str) -> str:
        return self._text(f"{DMI}/{name}") or self._text(f"{COPIES}/{name}")

    def signals(self) -> list[Signal]:
        """The signals of the evidence vector."""
        return Signals(self._root).read()

    def boot_id(self) -> str | None:
        return self._text("/proc/sys/kernel/random/boot_id") or None

    def inventory(self, version: str) -> dict[str, Any]:
        """The data of an `inventory` report (docs/protocol.md section 8)."""
        release = self._os_release()
        kernel = os.uname()
        computer = socket.gethostname()
        fqdn = self._fqdn(computer)
        domain = fqdn.partition(".")[2]
        manufacturer, model = self._dmi("sys_vendor"), self._dmi("product_name")
        serial = self._dmi("product_serial")
        memory, processors = self._memory(), self._processors()
        return {
            "osType": "linux",
            "osName": release.get("ID", "linux"),
            "osVersion": kernel.release,
            "osSku": release.get("PRETTY_NAME", "Linux"),
            "osEdition": release.get("VARIANT", ""),
            "computerName": computer,
            "machineFqdn": fqdn,
            "dnsFqdn": fqdn,
            "adFqdn": "",
            "domainName": domain,
            "vmUuid": self._dmi("product_uuid").lower(),
            "agentVersion": version,
            "manufacturer": manufacturer,
            "model": model,
            "serialNumber": serial,
            "smbiosAssetTag": self._dmi("chassis_asset_tag"),
            "hardwareProfile": {
                "totalPhysicalMemoryInBytes": memory,
                "numberOfCpuSockets": len(processors),
                "processors": processors,
            },
            "networkProfile": {"networkInterfaces": self._interfaces()},
            "storageProfile": {"disks": self._disks()},
            "firmwareProfile": {
                "serialNumber": serial,
                "type": "EFI" if os.path.isdir("/sys/firmware/efi") else "BIOS",
            },
            "detectedProperties": {
                "architecture": kernel.machine,
                "cloudprovider": "N/A",
                "manufacturer": manufacturer,
                "model": model,
                "serialNumber": serial,
                "coreCount": str(sum(row["numberOfCores"] for row in processors)),
                "logicalCoreCount": str(os.cpu_count() or 1),
                "processorCount": str(len(processors)),
                "processorNames": ", ".join(sorted({row["name"] for row in processors})),
                "totalPhysicalMemoryInBytes": str(memory),
                "totalPhysicalMemoryInGigabytes": str(round(memory / 1024**3)),
                "mssqldiscovered": str(os.path.exists(f"{self._root}/opt/mssql/bin/sqlservr")).lower(),
                "mysqldiscovered": str(self._any("/usr/sbin/mysqld", "/usr/sbin/mariadbd")).lower(),
                "pgsqldiscovered": str(os.path.isdir(f"{self._root}/usr/lib/postgresql")).lower(),
            },
            "cloudMetadata": {"provider": "N/A"},
        }

    def _any(self, *paths: str) -> bool:
        return any(os.path.exists(self._root + path) for path in paths)

    def _fqdn(self, computer: str) -> str:
        """From /etc/hosts, as `hostname --fqdn` finds it first; a name server is not asked: it may not answer for
        long."""
        for line in self._text("/etc/hosts").splitlines():
            names = line.partition("#")[0].split()[1:]
            for name in names:
                if name.lower().startswith(f"{computer.lower()}."):
                    return name
        return computer

    def _os_release(self) -> dict[str, str]:
        text = self._text("/etc/os-release") or self._text("/usr/lib/os-release")
        found = re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)
        return {name: value.strip().strip("\"'") for name, value in found}

    def _memory(self) -> int:
        found = re.search(r"^MemTotal:\s+(\d+) kB", self._text("/proc/meminfo"), re.MULTILINE)
        return int(found.group(1)) * 1024 if found else 0

    def _processors(self) -> list[dict[str, Any]]:
        """One row a socket, with its physical cores."""
        sockets: dict[str, tuple[str, set[str]]] = {}
        for number, block in enumerate(self._text("/proc/cpuinfo").split("\n\n")):
            rows = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", block, re.MULTILINE))
            if not rows:
                continue
            name = rows.get("model name") or rows.get("Model") or rows.get("CPU part") or "unknown"
            _, cores = sockets.setdefault(rows.get("physical id", "0"), (name, set()))
            cores.add(rows.get("core id", str(number)))
        return [{"name": name, "numberOfCores": len(cores)} for name, cores in sockets.values()]

    def _disks(self) -> list[dict[str, Any]]:
        found = []
        try:
            names = sorted(os.listdir(f"{self._root}/sys/block"))
        except OSError:
            return []
        for name in names:
            if re.match(r"loop|ram|zram|sr|fd|dm-|md|nbd", name):
                continue
            size = self._text(f"/sys/block/{name}/size")
            if size.isdigit() and int(size):
                found.append({"path": f"/dev/{name}", "name": name, "maxSizeInBytes": int(size) * 512})
        return found

    def _interfaces(self) -> list[dict[str, Any]]:
        """Interfaces with an address; the loopback and bridges' own ends of containers' cables are left out."""
        addresses = _addresses()
        rows = []
        try:
            names = sorted(os.listdir(f"{self._root}/sys/class/net"))
        except OSError:
            return []
        for name in names:
            if name == "lo" or not addresses.get(name):
                continue
            rows.append(
                {
                    "name": name,
                    "macAddress": self._text(f"/sys/class/net/{name}/address"),
                    "ipAddresses": [
                        {
                            "address": address,
                            "ipAddressVersion": "IPv4" if family == socket.AF_INET else "IPv6",
                            "subnet": {"addressPrefix": _prefix(family, address, length)},
                        }
                        for family, address, length in addresses[name]
                    ],
                }
            )
        return rows


def _prefix(family: int, address: str, length: int) -> str:
    packed = int.from_bytes(socket.inet_pton(family, address), "big")
    bits = 32 if family == socket.AF_INET else 128
    network = packed >> (bits - length) << (bits - length)
    return f"{socket.inet_ntop(family, network.to_bytes(bits // 8, 'big'))}/{length}"


def _addresses() -> dict[str, list[tuple[int, str, int]]]:
    """Interface name to (family, address, prefix length), asked of the kernel by rtnetlink (rtnetlink(7),
    RTM_GETADDR)."""
    found: dict[str, list[tuple[int, str, int]]] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
            link.settimeout(5)
            # nlmsghdr: length, type RTM_GETADDR, flags REQUEST|DUMP, sequence, pid; then ifaddrmsg of any family.
            link.send(struct.pack("=IHHII", 24, 22, 0x301, 1, 0) + struct.pack("=BBBBI", 0, 0, 0, 0, 0))
            while True:
                data = link.recv(262144)
                while data:
                    length, kind = struct.unpack_from("=IH", data)
                    if kind != 20:  # RTM_NEWADDR; NLMSG_DONE and NLMSG_ERROR end the dump
                        return found
                    _one_address(data[16:length], found)
                    data = data[(length + 3) & ~3 :]
    except OSError:
        return found


def _one_address(message: bytes, found: dict[str, list[tuple[int, str, int]]]) -> None:
    family, prefix, _, scope, index = struct.unpack_from("=BBBBI", message)
    attributes = {}
    rest = message[8:]
    while len(rest) >= 4:
        length, kind = struct.unpack_from("=HH", rest)
        if length < 4:
            break
        attributes[kind] = rest[4:length]
        rest = rest[(length + 3) & ~3 :]
    raw = attributes.get(2) or attributes.get(1)  # IFA_LOCAL, IFA_ADDRESS
    if raw is None or scope >= 253:  # link and host scope are nobody's way to the machine
        return
    try:
        name = socket.if_indextoname(index)
    except OSError:
        return
    found.setdefault(name, []).append((family, socket.inet_ntop(family, raw), prefix))

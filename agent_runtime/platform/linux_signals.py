# SPDX-License-Identifier: Apache-2.0
"""The signals of the evidence vector on Linux (docs/protocol.md section 14.1; clone-specialization.md section 2).

Files alone: nothing is started and nothing is asked over the network. What only root may read is copied by root before
himds starts (himdsd.service). A signal is `ok` only when its value says something about this machine: placeholders of
boards, and what a container's host shows of itself, are `absent`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import uuid

from agent_runtime.platform.base import Signal

assert sys.platform != "win32"  # noqa: S101 - read by the type checker

DMI = "/sys/class/dmi/id"
COPIES = "/run/azcmagent"
VMGENID = "/sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw"
# Within the blob the GUID follows 40 bytes of padding and the header of OVMF's parser (QEMU, docs/specs/vmgenid).
GUID_AT = 40
CLOUD = ("/run/cloud-init/.instance-id", "/run/cloud-init/instance-data.json")
READ_LIMIT = 1024 * 1024
_CONTAINERS = ("/run/systemd/container", "/run/host/container-manager", "/.dockerenv", "/run/.containerenv")
# What boards and clouds write where they have nothing to say, compared without case, blanks and dots.
_EMPTY_WORDS = frozenset(
    (
        "none",
        "na",
        "default",
        "defaultstring",
        "notspecified",
        "notavailable",
        "notapplicable",
        "unknown",
        "empty",
        "oem",
        "invalid",
        "tobefilledbyoem",
        "systemserialnumber",
        "chassisassettag",
        "assettag",
        "noassettag",
        "noassetinformation",
        "uninitialized",
        # Instance ids that cloud-init takes where its datasource names none, and those of its examples: machines that
        # have nothing to do with one another share them.
        "nocloud",
        "iid-datasource",
        "iid-datasource-none",
        "iid-datasource-nocloud",
        "iid-dsconfigdrive",
        "iid-dsopennebula",
        "iid-dsovf",
        "iid-abcdefg",
        "i-abcdefg",
        "someid",
        "someidsomehostname",
    )
)
# What cloud-localds and most examples of a NoCloud seed say: iid-local01.
_EMPTY_INSTANCE = re.compile(r"iid-local[-_]?\d{0,3}")
# Firmware of boards that were never given an id of their own.
_EMPTY_GUIDS = frozenset(("03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc"))


def says_nothing(value: str) -> bool:
    """Whether a value is a placeholder: one letter repeated (zeros, F), or words that stand for nothing. Pure."""
    folded = re.sub(r"[\s.:/]", "", value).lower()
    return (
        len(set(folded.replace("-", ""))) <= 1
        or folded in _EMPTY_WORDS
        or folded in _EMPTY_GUIDS
        or _EMPTY_INSTANCE.fullmatch(folded) is not None
    )


def guid_of(blob: bytes) -> str:
    """The GUID in QEMU's blob `etc/vmgenid_guid`; empty when there is none. Pure."""
    raw = blob[GUID_AT : GUID_AT + 16]
    return str(uuid.UUID(bytes_le=raw)) if len(raw) == 16 and any(raw) else ""


class Signals:
    """Reads afresh. `root` is put in front of every path (tests)."""

    def __init__(self, root: str = "") -> None:
        self._root = root

    def read(self) -> list[Signal]:
        """Every signal of the vector."""
        return [
            self._text("machine_id", "/etc/machine-id"),
            self._text("boot_id", "/proc/sys/kernel/random/boot_id"),
            self._dmi("dmi_uuid", "product_uuid"),
            self._dmi("dmi_serial", "product_serial"),
            self._dmi("dmi_asset_tag", "chassis_asset_tag"),
            self._generation(),
            self._instance(),
            self._disk(),
            self._macs(),
            Signal("tpm_key", "absent", None),
        ]

    def _bytes(self, path: str) -> bytes:
        with open(f"{self._root}{path}", "rb") as file:
            return file.read(READ_LIMIT)

    def _reading(self, path: str, copy: str) -> tuple[str, bytes, str]:
        """Status, content and source of a file, or of its copy where the file is root's."""
        for place in (path, f"{COPIES}/{copy}") if copy else (path,):
            try:
                return "ok", self._bytes(place), source_of(place)
            except FileNotFoundError:
                status = "absent"
                if place == path:
                    break
                status = "denied"
            except PermissionError:
                status = "denied"
            except OSError:
                return "error", b"", source_of(place)
        return status, b"", source_of(path)

    def _text(self, name: str, path: str, copy: str = "") -> Signal:
        status, content, source = self._reading(path, copy)
        value = content.decode("utf-8", "replace").strip("\0\n ")
        return _signal(name, status, value, source)

    def _dmi(self, name: str, file: str) -> Signal:
        if self._in_container() and not self._has_own_dmi():
            return Signal(name, "absent", None, "container")
        return self._text(name, f"{DMI}/{file}", file)

    def _in_container(self) -> bool:
        return any(os.path.lexists(self._root + path) for path in _CONTAINERS)

    def _has_own_dmi(self) -> bool:
        """Whether somebody mounted an identity for this container over the host's."""
        try:
            lines = self._bytes("/proc/self/mountinfo").decode("utf-8", "replace").splitlines()
        except OSError:
            return False
        points = (line.split(" ")[4] for line in lines if line.count(" ") > 4)
        return any(point.startswith("/sys/") and "/dmi" in point for point in points)

    def _generation(self) -> Signal:
        status, content, source = self._reading(VMGENID, "vmgenid_guid")
        return _signal("vmgenid", status, guid_of(content), source)

    def _instance(self) -> Signal:
        """Only what this boot has written: the cache below /var/lib/cloud is copied with the disk."""
        for path in CLOUD:
            status, content, source = self._reading(path, "")
            if status == "absent":
                continue
            if status != "ok":
                return Signal("cloud_instance_id", status, None, source)
            value = content.decode("utf-8", "replace").strip()
            if path.endswith(".json"):
                try:
                    value = str((json.loads(value).get("v1") or {}).get("instance_id") or "")
                except (ValueError, AttributeError, RecursionError):
                    return Signal("cloud_instance_id", "error", None, source)
            if value:
                return _signal("cloud_instance_id", "ok", value[:1024], source)
        return Signal("cloud_instance_id", "absent", None, source_of(CLOUD[0]))

    def _disk(self) -> Signal:
        """The root file system's id, else its partition's, as udev knows them."""
        try:
            mounts = self._bytes("/proc/self/mountinfo").decode("utf-8", "replace").splitlines()
            device = next(fields[2] for fields in map(str.split, mounts) if len(fields) > 4 and fields[4] == "/")
        except (OSError, StopIteration):
            return Signal("disk_id", "absent", None, "proc/self/mountinfo")
        status, content, source = self._reading(f"/run/udev/data/b{device}", "")
        rows = dict(re.findall(r"^E:([A-Z_]+)=(.+)$", content.decode("utf-8", "replace"), re.MULTILINE))
        value = rows.get("ID_FS_UUID") or rows.get("ID_PART_ENTRY_UUID") or ""
        # The number of the device is this machine's business.
        return _signal("disk_id", status, value, source.partition("/b")[0])

    def _macs(self) -> Signal:
        """Addresses that interfaces with hardware behind them have from it; not those drawn at random."""
        place = "/sys/class/net"
        try:
            names = sorted(os.listdir(f"{self._root}{place}"))
        except OSError:
            return Signal("macs", "absent", None, source_of(place))
        found = set()
        for name in names:
            if not os.path.exists(f"{self._root}{place}/{name}/device"):
                continue
            kind = self._text("", f"{place}/{name}/addr_assign_type").value
            address = self._text("", f"{place}/{name}/address")
            if kind in (None, "0") and address.value:
                found.add(address.value.lower())
        return _signal("macs", "ok", ",".join(sorted(found)), source_of(place))


def source_of(path: str) -> str:
    """A path as `source` of an item."""
    return path.lstrip("/")


def _signal(name: str, status: str, value: str, source: str) -> Signal:
    if status != "ok":
        return Signal(name, status, None, source)
    if not value or says_nothing(value):
        return Signal(name, "absent", None, source)
    return Signal(name, "ok", value, source)

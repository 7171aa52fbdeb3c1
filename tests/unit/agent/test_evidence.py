# SPDX-License-Identifier: Apache-2.0
"""What tells a machine from its copy: reading the signals, comparing vectors."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.identity import evidence
from agent_runtime.platform import linux_signals
from agent_runtime.platform.base import Signal
from agent_runtime.platform.linux_signals import COPIES, DMI, VMGENID, Signals

NAMES = sorted((*evidence.STRONG, *evidence.WEAK, "boot_id"))
READINGS = st.one_of(
    st.tuples(st.just("ok"), st.sampled_from(["a", "b", "c"])),
    st.tuples(st.sampled_from(["absent", "denied", "error"]), st.none()),
)
VECTORS = st.fixed_dictionaries(dict.fromkeys(NAMES, READINGS))
Reading = tuple[str, "str | None"]


def items(readings: dict[str, Reading], key: str = "0b0c6a52-57f1-4f11-9d6d-0f3f9d1d2c3b") -> Sequence[evidence.Item]:
    return evidence.vector(key, [Signal(name, status, value) for name, (status, value) in readings.items()])


@given(VECTORS, VECTORS)
def test_only_readings_that_succeeded_on_both_sides_differ(
    before: dict[str, Reading], after: dict[str, Reading]
) -> None:
    found = evidence.compare(items(before), items(after))
    differ = {n for n in NAMES if before[n][0] == after[n][0] == "ok" and before[n] != after[n]}
    assert set(found.strong) == differ & evidence.STRONG
    assert set(found.weak) == differ & evidence.WEAK
    assert found.altered == any(before[n] != after[n] for n in NAMES if n != "boot_id")


@given(VECTORS)
def test_a_machine_is_itself_in_every_boot(readings: dict[str, Reading]) -> None:
    rebooted = {**readings, "boot_id": ("ok", "another")}
    assert evidence.compare(items(readings), items(rebooted)) == ((), (), False)
    assert not evidence.is_copy(items(readings), items(rebooted))


@given(VECTORS, VECTORS)
def test_a_copy_is_judged_by_hardware_and_by_the_machine_id_only_without(
    builder: dict[str, Reading], now: dict[str, Reading]
) -> None:
    comparable = [n for n in evidence.OFF_DISK if builder[n][0] == now[n][0] == "ok"]
    found = evidence.is_copy(items(builder), items(now))
    if comparable:
        assert found == any(builder[n] != now[n] for n in comparable)
    elif builder["machine_id"][0] == now["machine_id"][0] == "ok":
        assert found == (builder["machine_id"] != now["machine_id"])
    elif (builder["machine_id"][0], now["machine_id"][0]) == ("absent", "ok"):
        assert found  # cleared before it was sealed
    else:
        assert not found
        assert not evidence.is_comparable(items(builder), items(now))


def test_digests_say_nothing_without_the_key() -> None:
    readings: dict[str, Reading] = {"machine_id": ("ok", "a")}
    one = items(readings)
    salted = evidence.vector(bytes(32), [Signal("machine_id", "ok", "a", "etc/machine-id")])
    assert one[0]["digest"] != salted[0]["digest"]
    assert salted[0]["source"] == "etc/machine-id"


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        {},
        ["text"],
        [{"name": 1, "status": "ok", "digest": "a"}],
        [{"name": "machine_id", "status": "fine", "digest": "a"}],
        [{"name": "machine_id", "status": "ok", "digest": None}],
        [{"name": "machine_id", "status": "absent", "digest": "a"}],
    ],
)
def test_a_damaged_vector_is_refused(damaged: object) -> None:
    with pytest.raises(ValueError, match="evidence"):
        evidence.valid(damaged)


@pytest.mark.parametrize(
    ("value", "nothing"),
    [
        ("00000000-0000-0000-0000-000000000000", True),
        ("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", True),
        ("03000200-0400-0500-0006-000700080009", True),
        ("To Be Filled By O.E.M.", True),
        ("Default string", True),
        ("Not Specified", True),
        ("N/A", True),
        ("0", True),
        ("iid-datasource-none", True),
        ("iid-datasource-nocloud", True),
        ("nocloud", True),
        ("NoCloud", True),
        ("iid-local01", True),
        ("iid-local1", True),
        ("iid-dsconfigdrive", True),
        ("iid-local01-web7", False),
        ("iid-local-4c4c4544", False),
        ("VMware-56 4d 3c", False),
        ("i-0abcd", False),
        ("4c4c4544-0042-3510-8052-b4c04f4d3233", False),
    ],
)
def test_placeholders_say_nothing(value: str, nothing: bool) -> None:
    assert linux_signals.says_nothing(value) is nothing


# Reading


def write(root: Path, path: str, content: str | bytes) -> None:
    target = Path(f"{root}{path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())


def read(root: Path) -> dict[str, Signal]:
    found = Signals(str(root)).read()
    assert sorted(signal.name for signal in found) == NAMES
    return {signal.name: signal for signal in found}


def test_a_virtual_machine_is_read_whole(tmp_path: Path) -> None:
    generation = uuid.uuid4()
    write(tmp_path, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    write(tmp_path, f"{DMI}/product_uuid", "4c4c4544-0042-3510-8052-b4c04f4d3233\n")
    write(tmp_path, f"{DMI}/product_serial", "To Be Filled By O.E.M.\n")
    write(tmp_path, VMGENID, bytes(40) + generation.bytes_le + bytes(4040))
    write(tmp_path, "/run/cloud-init/instance-data.json", json.dumps({"v1": {"instance_id": "i-0abc"}}))
    write(tmp_path, "/proc/self/mountinfo", "22 1 259:2 / / rw - ext4 /dev/root rw\n")
    write(tmp_path, "/run/udev/data/b259:2", "S:x\nE:ID_FS_UUID=c0ffee00-1111\nE:ID_PART_ENTRY_UUID=p\n")
    for name, kind in (("eth0", "0"), ("eth1", "0"), ("wlan0", "1")):
        write(tmp_path, f"/sys/class/net/{name}/address", f"02:00:00:00:00:0{name[-1]}\n")
        write(tmp_path, f"/sys/class/net/{name}/addr_assign_type", f"{kind}\n")
        write(tmp_path, f"/sys/class/net/{name}/device/vendor", "x")
    write(tmp_path, "/sys/class/net/docker0/address", "02:42:00:00:00:01\n")
    found = read(tmp_path)
    assert found["vmgenid"].value == str(generation)
    assert found["cloud_instance_id"].value == "i-0abc"
    assert found["disk_id"].value == "c0ffee00-1111"
    assert found["macs"].value == "02:00:00:00:00:00,02:00:00:00:00:01"
    assert found["dmi_serial"].status == "absent"
    assert found["dmi_uuid"].source == "sys/class/dmi/id/product_uuid"
    assert found["tpm_key"].status == "absent"
    assert all(len(signal.source) <= evidence.SOURCE_LIMIT for signal in found.values())
    assert not any(signal.value and signal.value in signal.source for signal in found.values())


def test_the_instance_id_of_this_boot_counts_not_the_one_that_came_with_the_disk(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/cloud/data/instance-id", "i-the-builder")
    assert read(tmp_path)["cloud_instance_id"].status == "absent"
    write(tmp_path, "/run/cloud-init/instance-data.json", "{")
    assert read(tmp_path)["cloud_instance_id"].status == "error"
    write(tmp_path, "/run/cloud-init/.instance-id", "i-this\n")
    assert read(tmp_path)["cloud_instance_id"].value == "i-this"


@pytest.mark.parametrize(
    ("marker", "mounts", "status"),
    [
        (None, "", "ok"),
        ("/run/systemd/container", "", "absent"),
        ("/.dockerenv", "30 22 0:5 / /proc rw - proc proc rw\n", "absent"),
        ("/run/systemd/container", "30 22 8:1 /lab/dmi /sys/class/dmi/id rw - ext4 /dev/sda rw\n", "ok"),
        ("/run/systemd/container", "30 22 8:1 /x /sys/devices/virtual/dmi/id/product_uuid rw - ext4 d rw\n", "ok"),
    ],
)
def test_a_container_has_no_hardware_but_what_was_mounted_for_it(
    tmp_path: Path, marker: str | None, mounts: str, status: str
) -> None:
    write(tmp_path, f"{DMI}/product_uuid", "4c4c4544-0042-3510-8052-b4c04f4d3233\n")
    write(tmp_path, "/proc/self/mountinfo", "22 1 259:2 / / rw - ext4 /dev/root rw\n" + mounts)
    if marker:
        write(tmp_path, marker, "systemd-nspawn\n")
    assert read(tmp_path)["dmi_uuid"].status == status


def test_what_root_alone_may_read_is_read_from_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A himds without root's rights, on whatever account this test runs."""
    right = Signals._bytes

    def forbidden(self: Signals, path: str) -> bytes:
        if path.startswith("/sys/"):
            raise PermissionError
        return right(self, path)

    monkeypatch.setattr(Signals, "_bytes", forbidden)
    assert read(tmp_path)["dmi_uuid"].status == "denied"
    write(tmp_path, f"{COPIES}/product_uuid", "4c4c4544-0042-3510-8052-b4c04f4d3233\n")
    write(tmp_path, f"{COPIES}/vmgenid_guid", bytes(40) + uuid.uuid4().bytes_le)
    found = read(tmp_path)
    assert (found["dmi_uuid"].status, found["vmgenid"].status) == ("ok", "ok")
    assert found["dmi_uuid"].source == f"{COPIES}/product_uuid".lstrip("/")


@pytest.mark.parametrize("blob", [b"", bytes(40), bytes(55), bytes(4096)])
def test_a_blob_without_a_generation_is_absent(tmp_path: Path, blob: bytes) -> None:
    write(tmp_path, VMGENID, blob)
    assert read(tmp_path)["vmgenid"].status == "absent"


def test_nothing_to_read_is_no_accusation(tmp_path: Path) -> None:
    assert {signal.status for signal in read(tmp_path).values()} == {"absent"}
    assert os.listdir(tmp_path) == []

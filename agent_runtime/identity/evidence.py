# SPDX-License-Identifier: Apache-2.0
"""The evidence vector: what tells this machine from a copy of it (docs/protocol.md sections 6 and 14.1;
clone-specialization.md section 2). Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Union

from agent_runtime.platform.base import Signal

Item = Mapping[str, Any]

# What the hardware, its hypervisor or its cloud says; `machine_id` is a file, and a copy of the disk has it too.
OFF_DISK = ("tpm_key", "vmgenid", "cloud_instance_id", "dmi_uuid", "dmi_serial")
STRONG = frozenset((*OFF_DISK, "machine_id"))
WEAK = frozenset(("dmi_asset_tag", "disk_id", "macs"))
SOURCE_LIMIT = 128


class Difference(NamedTuple):
    """Names that differ between two vectors, sorted. `altered`: the digests of the vectors differ, be it only because
    something can be read now that could not be read then."""

    strong: tuple[str, ...]
    weak: tuple[str, ...]
    altered: bool


def vector(key: Union[str, bytes], signals: Iterable[Signal]) -> list[dict[str, Any]]:
    """The items of the vector: values as HMAC-SHA-256, keyed with the tenant id (text) or an image's salt (bytes)."""
    secret = key.lower().encode("ascii") if isinstance(key, str) else key
    return [
        {
            "name": signal.name,
            "status": signal.status,
            **({"source": signal.source[:SOURCE_LIMIT]} if signal.source else {}),
            "digest": hmac.new(secret, (signal.value or "").encode(), hashlib.sha256).hexdigest()
            if signal.status == "ok"
            else None,
        }
        for signal in signals
    ]


def digest(items: Iterable[Item]) -> str:
    """SHA-256 over the items without the boot id, sorted by name."""
    kept = sorted((item for item in items if item["name"] != "boot_id"), key=lambda item: str(item["name"]))
    text = "".join(f"{item['name']}={item['status']}:{item['digest'] or ''}\n" for item in kept)
    return hashlib.sha256(text.encode()).hexdigest()


def compare(recorded: Sequence[Item], now: Sequence[Item]) -> Difference:
    """What differs between two vectors of the same key. A reading that failed equals nothing and differs from
    nothing."""
    before, after = _readings(recorded), _readings(now)
    unequal = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    return Difference(tuple(sorted(unequal & STRONG)), tuple(sorted(unequal & WEAK)), digest(recorded) != digest(now))


def is_copy(builder: Iterable[Item], now: Iterable[Item]) -> bool:
    """Whether a sealed image finds itself on another machine than its builder (docs/protocol.md section 14.5).

    The machine id decides only where no hardware can be compared: cleaning an image gives its builder another one at
    the next boot. An image that was sealed without one, so that every copy makes its own, has been copied when there is
    one. Where nothing at all can be compared the machine stays what it is.
    """
    sealed, found = list(builder), list(now)
    before, after = _readings(sealed), _readings(found)
    both = before.keys() & after.keys()
    hardware = [name for name in OFF_DISK if name in both]
    if hardware:
        return any(before[name] != after[name] for name in hardware)
    if "machine_id" in both:
        return before["machine_id"] != after["machine_id"]
    return "machine_id" in after and any(item["name"] == "machine_id" and item["status"] == "absent" for item in sealed)


def tells_copies(builder: Sequence[Item], now: Sequence[Item]) -> bool:
    """Whether copies of a sealed image will find themselves to be some: by what is not on its disk, or by their machine
    ids, because the image has none any more or another one than it was sealed with."""
    if _readings(builder).keys() & set(OFF_DISK):
        return True
    has_none = any(item["name"] == "machine_id" and item["status"] == "absent" for item in now)
    return has_none or is_copy(builder, now)


def is_comparable(builder: Iterable[Item], now: Iterable[Item]) -> bool:
    """Whether any strong name was read on both sides."""
    return bool(_readings(builder).keys() & _readings(now).keys() & STRONG)


def valid(items: object) -> list[dict[str, Any]]:
    """Items out of a file. Errors: ValueError."""
    if not isinstance(items, list):
        raise ValueError("evidence is not a list")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise ValueError("evidence holds what is no item")
        if item.get("status") not in ("ok", "absent", "denied", "error"):
            raise ValueError("evidence holds an item without status")
        if (item["status"] == "ok") != isinstance(item.get("digest"), str):
            raise ValueError("evidence holds an item whose digest contradicts its status")
    return items


def _readings(items: Iterable[Item]) -> dict[str, str]:
    return {str(item["name"]): str(item["digest"]) for item in items if item["status"] == "ok"}

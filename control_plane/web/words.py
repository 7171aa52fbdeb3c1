# SPDX-License-Identifier: Apache-2.0
"""How the page says things: times, states, events and names of settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from control_plane.arm.status import AWAITING, CONNECTED, DISCONNECTED, EXPIRED
from control_plane.clock import parse_rfc3339
from control_plane.storage import history
from control_plane.support import ENDED, SUPPORTED

# Word shown and name of shape and colour, for each status; the order of the bar and of the charts.
STATUSES: dict[str, tuple[str, str]] = {
    CONNECTED: ("Connected", "connected"),
    DISCONNECTED: ("Disconnected", "disconnected"),
    EXPIRED: ("Expired", "expired"),
    AWAITING: ("Awaiting connection", "awaiting"),
}
SUPPORT = {SUPPORTED: "supported", ENDED: "support ended", "unknown": "support unknown"}
_STEPS = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (60 * 86400, 86400, "d"), (None, 30 * 86400, "months"))
_INNER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SPECIAL = {
    "osName": "OS name",
    "osVersion": "OS version",
    "osSku": "Product",
    "osEdition": "Edition",
    "proxyUrl": "Proxy URL",
    "type": "Firmware",
    "totalPhysicalMemoryInBytes": "Memory",
    "numberOfCpuSockets": "CPU sockets",
    "maxSizeInBytes": "Size",
    "vmId": "vmId",
    "vmUuid": "VM UUID",
    "osType": "OS",
    "machineFqdn": "FQDN",
    "dnsFqdn": "DNS name",
    "adFqdn": "AD name",
    "smbiosAssetTag": "SMBIOS asset tag",
}


def ago(seconds: int) -> str:
    """How long ago something was: `5 s ago`, `12 min ago`, `3 h ago`, `40 d ago`, `4 months ago`. static/page.js says
    the same."""
    seconds = max(0, seconds)
    if seconds < 5:
        return "just now"
    for limit, unit, name in _STEPS:
        if limit is None or seconds < limit:
            return f"{seconds // unit} {name} ago"
    raise AssertionError("the last step has no limit")


def exact(text: str) -> str:
    """`2026-11-23 10:00:00 UTC` of an RFC 3339 time as the API writes it."""
    return text.replace("T", " ").replace("Z", " UTC")


def when(text: str | None, at: int) -> Markup:
    """A time as people read it, with the exact one in its title; a dash when there is none."""
    seconds = parse_rfc3339(text) if text else None
    if text is None or seconds is None:
        return Markup('<span class="none">never</span>')
    return Markup('<time datetime="{}" title="{}">{}</time>').format(text, exact(text), ago(at - seconds))


def label(name: str) -> str:
    """`guestConfigurationEnabled` as `Guest configuration enabled`."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    words = _INNER.sub(" ", name.replace("_", " ").replace(".", " ")).split()
    return " ".join(word if word.isupper() else word.lower() for word in words).capitalize() if words else name


def size(number: float) -> str:
    """Bytes as `64 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def fact(name: str, found: Any) -> str:
    """A reported value with the unit that its name says."""
    if name.endswith("InBytes") and isinstance(found, int | float) and not isinstance(found, bool):
        return size(found)
    return value(found)


def value(found: Any) -> str:
    """A reported value in one line; what stands in a list several times is counted."""
    if isinstance(found, bool) or found in ("true", "false"):
        return "yes" if found in (True, "true") else "no"
    if isinstance(found, list):
        said = [value(item) for item in found]
        told = ((said.count(item), item) for item in dict.fromkeys(said))
        return ", ".join(item if number == 1 else f"{number}x {item}" for number, item in told) or "none"
    if isinstance(found, Mapping):
        first = value(found["name"]) if found.get("name") else ""
        others = [
            f"{label(str(name)).lower()} {fact(str(name), item)}" for name, item in found.items() if name != "name"
        ]
        return ", ".join(filter(None, [first, *others])) or "none"
    return "none" if found is None or found == "" else str(found)


def event(kind: str, data: Mapping[str, Any]) -> str:
    """What happened, in a few words."""
    if kind == history.STATUS:
        return STATUSES.get(str(data.get("to")), (str(data.get("to")), ""))[0]
    if kind == history.CHANGED:
        return f"Changed: {', '.join(str(item) for item in data.get('members', []))}"
    if kind == history.VERSION:
        return f"Agent {data.get('from')} became {data.get('to')}"
    if kind == history.RENAMED:
        return f"Host renamed from {data.get('from')} to {data.get('to')}"
    if kind == history.TWIN:
        return f"A twin is {data.get('state')}: {data.get('verdict')}"
    return {
        history.CREATED: "Created",
        history.DELETED: "Deleted",
        history.CONFLICT: "Its identity was used by two hosts",
    }.get(kind, kind)


def shape(kind: str, data: Mapping[str, Any]) -> str:
    """Name of the shape that goes with an event."""
    if kind == history.STATUS:
        return STATUSES.get(str(data.get("to")), ("", "awaiting"))[1]
    return "expired" if kind in (history.DELETED, history.CONFLICT, history.TWIN) else "event"

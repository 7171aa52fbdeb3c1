# SPDX-License-Identifier: Apache-2.0
"""An extension as ARM shows it (identity-and-arm-api.md C.7, extension-handler.md section 24). Pure: rows in, JSON out.
Protected settings are in none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.arm.paths import EXTENSION_TYPE
from control_plane.clock import parse_rfc3339, rfc3339
from control_plane.extensions.progress import FAILED, LONGEST, message_of
from control_plane.storage.extensions import Kept
from control_plane.storage.resource_models import Resource

_DISPLAYED = {
    "succeeded": "Provisioning succeeded",
    "failed": "Provisioning failed",
    "transitioning": "Provisioning in progress",
    "installing": "Installing",
    "removing": "Removing",
}
# By the state of its handler: what is shown of an extension, and the level.
_SILENT = {"Unresponsive": ("Unresponsive", "Error"), "NotReady": ("Not ready", "Warning")}


# The part of a status that says how an application is, by the name that handlers give it (docs/extensions.md).
_HEALTH = "AppHealthStatus"
_HEALTHS = {"success": "Healthy", "error": "Unhealthy", "transitioning": "Initializing"}


def _words(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and word, in lower case, of each part of a reported status."""
    listed = (item.get("status") or {}).get("substatus")
    parts = [part for part in listed if isinstance(part, Mapping)] if isinstance(listed, list) else []
    return [(str(part.get("name", "")), str(part.get("status", "")).lower()) for part in parts]


def _health(item: Mapping[str, Any]) -> str | None:
    """Of the application that a handler asks: Initializing, Healthy, Unhealthy; None where nothing says, or the handler
    is not there to vouch for it."""
    found = next((word for name, word in _words(item) if name == _HEALTH), "")
    return None if _silent(item) else _HEALTHS.get(found)


def _level(item: Mapping[str, Any]) -> str:
    word = str((item.get("status") or {}).get("status", "")).lower()
    is_bad = word in ("error", "failed") or any(part == "error" for _, part in _words(item))
    if item["state"] == "failed" or is_bad:
        return "Error"
    goes_badly = item["state"] == "removing" and item["code"] != 0
    return "Warning" if word == "warning" or goes_badly else "Information"


def _silent(item: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown in the place of a success whose handler is not there to vouch for it any more, empty otherwise: the
    state of the handler, and what was said last, with its time."""
    handler = item["handler"]
    shown, level = _SILENT.get(handler["status"], ("", ""))
    if item["state"] not in ("succeeded", "transitioning") or not shown or not handler["message"]:
        return {}
    said = message_of({**item, "handler": {}})
    at = parse_rfc3339(str((item.get("status") or {}).get("configurationAppliedTime", "")))
    before = f" What was said last{f', at {rfc3339(at)}' if at is not None else ''}: {said}" if said else ""
    return {
        "code": str(handler["code"] or handler["status"]),
        "level": level,
        "displayStatus": shown,
        "message": f"The handler is {shown.lower()}: {handler['message']}.{before}"[:LONGEST],
    }


def _status(kept: Kept) -> dict[str, Any] | None:
    row, item = kept.row, kept.row.reported
    if row.state == FAILED and row.code is not None:
        return {
            "code": row.code,
            "level": "Error",
            "displayStatus": _DISPLAYED["failed"],
            "message": row.message,
            "time": rfc3339(row.began),
        }
    if item is None:
        return None
    shown = {
        "code": "success" if item["state"] == "succeeded" and item["code"] == 0 else str(item["code"]),
        "level": _level(item),
        "displayStatus": _DISPLAYED[item["state"]],
        "message": message_of(item),
        **_silent(item),
    }
    at = parse_rfc3339(item["at"])
    return shown | ({"time": rfc3339(at)} if at is not None else {})


def instance_view(kept: Kept) -> dict[str, Any] | None:
    """What the machine told of it; None before it has told anything."""
    status = _status(kept)
    if status is None:
        return None
    item = kept.row.reported or {}
    return {
        "name": kept.resource.name,
        "type": kept.resource.properties["type"],
        "typeHandlerVersion": item.get("version", kept.row.version),
        "status": status,
    }


def tracked(resource: Resource, kind: str) -> dict[str, Any]:
    """All but the properties of what hangs below a machine. `kind`: its type as it is shown."""
    return {
        "id": resource.resource_id,
        "name": resource.name,
        "type": kind,
        "location": resource.location,
        "tags": resource.tags,
        "systemData": {
            "createdBy": resource.created_by,
            "createdByType": resource.created_by_type,
            "createdAt": rfc3339(resource.created),
            "lastModifiedBy": resource.modified_by,
            "lastModifiedByType": resource.modified_by_type,
            "lastModifiedAt": rfc3339(resource.modified),
        },
    }


def extension_json(kept: Kept) -> dict[str, Any]:
    """The whole resource."""
    row, resource = kept.row, kept.resource
    properties: dict[str, Any] = {
        "autoUpgradeMinorVersion": False,
        "enableAutomaticUpgrade": False,
        **resource.properties,
        # Which may be another than was asked for: a newer minor one, or that of an automatic upgrade.
        "typeHandlerVersion": row.version,
        "provisioningState": row.state,
    }
    view = instance_view(kept)
    if view is not None:
        properties["instanceView"] = view
    return {**tracked(resource, EXTENSION_TYPE), "properties": properties}


def summary(kept: Kept) -> dict[str, Any]:
    """One line of an extension, for lists and pages; null where unknown. `version`: the one that is wished,
    `installed`: what the machine told; `health`: of the application that it asks."""
    row, properties = kept.row, kept.resource.properties
    status = _status(kept) or {}
    return {
        "name": kept.resource.name,
        "publisher": properties["publisher"],
        "type": properties["type"],
        "version": row.version,
        "installed": (row.reported or {}).get("version"),
        "state": row.state,
        "health": _health(row.reported) if row.reported else None,
        "code": status.get("code"),
        "message": status.get("message") or None,
        "at": status.get("time"),
    }

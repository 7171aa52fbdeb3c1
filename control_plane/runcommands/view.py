# SPDX-License-Identifier: Apache-2.0
"""A run command as ARM shows it (identity-and-arm-api.md C.8). Pure. Protected parameters, the password and the
signatures of addresses are in none of it."""

from __future__ import annotations

from typing import Any

from control_plane.arm.paths import RUN_COMMAND_TYPE
from control_plane.extensions.progress import FAILED
from control_plane.extensions.view import tracked
from control_plane.runcommands.wish import BLOBS, without_query, without_signature
from control_plane.storage.run_commands import KeptCommand

_SHOWN = ("executionState", "executionMessage", "exitCode", "output", "error", "startTime", "endTime")


def instance_view(kept: KeptCommand) -> dict[str, Any]:
    """How it goes, of the sequence that is wished."""
    row, item = kept.row, kept.row.reported
    if item is not None and item["sequence"] < row.sequence:  # a higher one is of before a restore of the hub
        item = None
    expired = row.state == FAILED and row.code is not None
    if expired and (item is None or item["executionState"] != "Running"):
        return {"executionState": "Unknown", "executionMessage": row.message, "statuses": []}
    if item is None:
        return {"executionState": "Pending", "statuses": []}
    return {name: item[name] for name in _SHOWN if item.get(name) is not None} | {"statuses": []}


def command_json(kept: KeptCommand) -> dict[str, Any]:
    """The whole resource."""
    resource = kept.resource
    properties = dict(resource.properties)
    properties["source"] = {
        name: without_signature(text) if name == "scriptUri" else text for name, text in properties["source"].items()
    }
    # Those that a former version has kept may still have their query.
    properties |= {name: without_query(properties[name]) for name in BLOBS if name in properties}
    return {
        **tracked(resource, RUN_COMMAND_TYPE),
        "properties": {
            "asyncExecution": False,
            **properties,
            "provisioningState": kept.row.state,
            "instanceView": instance_view(kept),
        },
    }

# SPDX-License-Identifier: Apache-2.0
"""An event as everybody is told of it: the API, the stream, webhooks (docs/api.md)."""

from __future__ import annotations

from typing import Any

from control_plane.clock import rfc3339
from control_plane.storage.fleet_models import MachineEvent


def event_json(row: MachineEvent) -> dict[str, Any]:
    """`id` rises with every event and is never used again: whoever may get an event twice knows it by this."""
    return {
        "id": row.id,
        "at": rfc3339(row.at),
        "kind": row.kind,
        "resourceId": row.resource_id,
        "name": row.resource_id.rpartition("/")[2],
        "vmId": row.vm_id,
        "data": row.data,
    }

# SPDX-License-Identifier: Apache-2.0
"""Reports of kind `agent` (docs/protocol.md section 15.6): checked, and audited at their end.
Their shape is docs/schemas/report-agent.schema.json (shipped beside this module)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from control_plane.extensions import shapes
from control_plane.storage import audit, twins
from control_plane.storage.models import Machine
from control_plane.upgrades.view import status_of

_SCHEMA = Path(__file__).parent / "report-agent.schema.json"


def cleaned(data: dict[str, Any]) -> dict[str, Any]:
    """A report that has its shape.

    Errors: ApiError 400 naming the member.
    """
    shapes.check(data, _SCHEMA)
    return data


def take(session: Session, machine: Machine, data: Mapping[str, Any]) -> None:
    """Write the end of an upgrade down; once, for a report is news once."""
    if status_of(data) is None:
        return
    detail = {name: data[name] for name in ("fromVersion", "desiredVersion", "state", "correlationId")}
    audit.record(
        session,
        audit.Actor("machine", machine.client_id),
        "machines/agentUpgrade/outcome",
        twins.resource_id(session, machine),
        detail={**detail, "message": data["message"]},
    )

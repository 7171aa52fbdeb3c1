# SPDX-License-Identifier: Apache-2.0
"""Events of machines, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from control_plane.api.events import read_filter
from control_plane.errors import ApiError, OperatorError
from control_plane.fleet.events import event_json
from control_plane.operate.database import opened
from control_plane.storage.fleet_models import MachineEvent


def newest(data: Path, machine: str | None, kind: str | None, limit: int) -> list[dict[str, Any]]:
    """The last events, the newest first. `machine`: a name, a resource id or a vmId.

    Errors: OperatorError.
    """
    query = select(MachineEvent).order_by(MachineEvent.id.desc()).limit(limit)
    named = machine is not None and "/" not in machine and len(machine) != 36
    try:
        wanted = read_filter({"kind": kind or "", "machine": "" if named or machine is None else machine})
    except ApiError as error:
        raise OperatorError(error.message, "See docs/api.md, Events.") from error
    query = query.where(*wanted.conditions())
    if named and machine is not None:
        query = query.where(MachineEvent.name_key == machine.lower())
    with opened(data) as (database, _settings), database.read() as session:
        return [event_json(row) for row in session.scalars(query)]

# SPDX-License-Identifier: Apache-2.0
"""Extensions of machines, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from control_plane.errors import OperatorError
from control_plane.extensions.view import summary
from control_plane.operate.database import opened
from control_plane.storage import extensions
from control_plane.storage.models import Machine

_BATCH = 500


def listed(data: Path, machine: str | None) -> list[dict[str, Any]]:
    """Every extension, by machine, each with its machine's name and id. `machine`: a name or a resource id.

    Errors: OperatorError when there is no such machine.
    """
    query = select(Machine.id).order_by(Machine.name_key, Machine.id)
    if machine is not None:
        query = query.where(Machine.name_key == machine.rstrip("/").rpartition("/")[2].lower())
    found = []
    with opened(data) as (database, _settings), database.read() as session:
        ids = session.scalars(query).all()
        if machine is not None and not ids:
            raise OperatorError(f"There is no machine '{machine}'.", "See: hawser-hub machines")
        for start in range(0, len(ids), _BATCH):
            kept = extensions.of_machines(session, ids[start : start + _BATCH])
            for machine_id in ids[start : start + _BATCH]:
                for item in kept.get(machine_id, []):
                    place = item.resource.resource_id.rpartition("/extensions/")[0]
                    found.append({"machine": place.rpartition("/")[2], "machineId": place, **summary(item)})
    if machine is not None and "/" in machine:
        found = [item for item in found if item["machineId"].lower() == machine.rstrip("/").lower()]
    return found

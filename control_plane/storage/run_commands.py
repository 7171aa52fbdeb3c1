# SPDX-License-Identifier: Apache-2.0
"""Reading run commands of machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm.paths import RUN_COMMAND_TYPE
from control_plane.extensions.progress import Standing, Wished
from control_plane.storage.extension_models import RunCommand
from control_plane.storage.resource_models import Resource

KEY = RUN_COMMAND_TYPE.lower()
VERSION = "0"
"""Run commands have no versions; operations compare one all the same."""


@dataclass(frozen=True)
class KeptCommand:
    """The two rows of a run command."""

    row: RunCommand
    resource: Resource

    @property
    def wished(self) -> Wished:
        """What of it decides."""
        row = self.row
        return Wished(row.sequence, VERSION, None, row.generation, row.removed is not None, row.state)

    @property
    def standing(self) -> Standing:
        """How it stands, with the reason of a failure."""
        if self.row.code is not None:
            return Standing(self.wished, {"code": self.row.code, "message": self.row.message or ""})
        told = (self.row.reported or {}).get("executionMessage") or "The script could not be started."
        return Standing(self.wished, {"code": "RunCommandFailed", "message": told})


_JOINED = select(RunCommand, Resource).join(Resource, Resource.id == RunCommand.resource_id)


def of_machine(session: Session, machine_id: int) -> list[KeptCommand]:
    """The run commands of a machine, oldest first."""
    query = _JOINED.where(RunCommand.machine_id == machine_id).order_by(RunCommand.resource_id)
    return [KeptCommand(row, resource) for row, resource in session.execute(query)]


def find(session: Session, resource_key: str) -> KeptCommand | None:
    """By resource id in lower case."""
    found = session.execute(_JOINED.where(Resource.key == resource_key)).one_or_none()
    return KeptCommand(found[0], found[1]) if found else None


def machines_with(session: Session, states: Iterable[str], before: int, limit: int) -> list[int]:
    """Machines with a run command in one of `states` that began at `before` (Unix seconds) or earlier."""
    query = select(RunCommand.machine_id).where(RunCommand.state.in_(tuple(states)), RunCommand.began <= before)
    return list(session.scalars(query.distinct().limit(limit)))

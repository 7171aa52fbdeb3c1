# SPDX-License-Identifier: Apache-2.0
"""Reading run commands of machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from control_plane.arm.paths import RUN_COMMAND_TYPE
from control_plane.extensions.progress import Standing, Wished
from control_plane.storage.extension_models import RunCommand
from control_plane.storage.resource_models import Resource

KEY = RUN_COMMAND_TYPE.lower()
VERSION = "0"
"""Run commands have no versions; operations compare one all the same."""
UNTOLD_SECONDS = 90 * 60
"""What the agent lets a script take whose `timeoutInSeconds` is not given (docs/protocol.md section 15.5)."""


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


_RUNS = and_(
    RunCommand.removed.is_(None),
    RunCommand.reported["executionState"].as_string() == "Running",
    # Machines may tell numbers that are too large for an integer of PostgreSQL's, or 1.0.
    RunCommand.reported["sequence"].as_float() >= RunCommand.sequence,
)
_GIVEN: ColumnElement[int] = case(
    (_RUNS, func.coalesce(Resource.properties["timeoutInSeconds"].as_integer(), UNTOLD_SECONDS)), else_=0
)
"""Seconds that a script may take, once the machine has told that it runs; until then, and for its removal, none."""


def _overdue(states: Iterable[str], before: int) -> tuple[ColumnElement[bool], ...]:
    # The second is implied by the third, and spares the young ones a look into their JSON.
    return RunCommand.state.in_(tuple(states)), RunCommand.began <= before, RunCommand.began + _GIVEN <= before


def overdue(session: Session, machine_id: int, states: Iterable[str], before: int) -> list[tuple[KeptCommand, int]]:
    """The run commands of a machine in one of `states` that began at `before` (Unix seconds) or earlier; one that runs,
    as much earlier as its script may take. With that time, in seconds."""
    query = _JOINED.add_columns(_GIVEN).where(RunCommand.machine_id == machine_id, *_overdue(states, before))
    return [(KeptCommand(row, resource), given) for row, resource, given in session.execute(query)]


def machines_with(session: Session, states: Iterable[str], before: int, limit: int) -> list[int]:
    """Machines for which `overdue` finds something."""
    query = select(RunCommand.machine_id).join(Resource, Resource.id == RunCommand.resource_id)
    return list(session.scalars(query.where(*_overdue(states, before)).distinct().limit(limit)))

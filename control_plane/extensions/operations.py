# SPDX-License-Identifier: Apache-2.0
"""Operations that run until a machine has told how its extensions stand (identity-and-arm-api.md C.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from control_plane.extensions.progress import RUNNING, Standing, Wait, outcome
from control_plane.storage import extensions, run_commands
from control_plane.storage.models import Machine
from control_plane.storage.resource_models import Operation


def stored(waits: Iterable[Wait]) -> list[dict[str, object]]:
    """What an operation's row keeps of what it waits for."""
    return [asdict(wait) for wait in waits]


def _end(operation: Operation, standings: dict[int, Standing], at: int) -> None:
    waits = [Wait(**wait) for wait in operation.waits or []]
    found = outcome(waits, standings)
    if found is not None:
        operation.status, operation.error, operation.ended = found.status, found.error, at


def settle(session: Session, machine_id: int, at: int) -> None:
    """End the operations of a machine that have nothing to wait for any more."""
    session.flush()
    query = select(Operation).where(Operation.machine_id == machine_id, Operation.status == RUNNING)
    running = session.scalars(query).all()
    if not running:
        return
    standings = {item.row.resource_id: item.standing for item in extensions.of_machine(session, machine_id)}
    standings |= {item.row.resource_id: item.standing for item in run_commands.of_machine(session, machine_id)}
    for operation in running:
        _end(operation, standings, at)


def orphaned() -> Select[Operation]:
    """Running operations of machines that are gone."""
    there = select(Machine.id).where(Machine.id == Operation.machine_id).exists()
    return select(Operation).where(Operation.status == RUNNING, Operation.machine_id.is_not(None), ~there)


def orphans(session: Session, at: int) -> None:
    """End them: their extensions went with the machines."""
    for operation in session.scalars(orphaned()):
        _end(operation, {}, at)

# SPDX-License-Identifier: Apache-2.0
"""Reading extensions of machines, and what decides which packages fit a machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm.paths import EXTENSION_TYPE
from control_plane.extensions.progress import Standing, Wished, error_of
from control_plane.storage.extension_models import Extension
from control_plane.storage.models import Machine, Report
from control_plane.storage.resource_models import Resource

KEY = EXTENSION_TYPE.lower()


@dataclass(frozen=True)
class Kept:
    """The two rows of an extension."""

    row: Extension
    resource: Resource

    @property
    def wished(self) -> Wished:
        """What of it decides (extensions/progress.py)."""
        row = self.row
        return Wished(row.sequence, row.version, row.rollback_to, row.generation, row.removed is not None, row.state)

    @property
    def standing(self) -> Standing:
        """How it stands, with the hub's own reason for a failure before the machine's."""
        if self.row.code is not None:
            return Standing(self.wished, {"code": self.row.code, "message": self.row.message or ""})
        return Standing(self.wished, error_of(self.row.reported) if self.row.reported else None)


_JOINED = select(Extension, Resource).join(Resource, Resource.id == Extension.resource_id)


def of_machines(session: Session, machine_ids: Iterable[int]) -> dict[int, list[Kept]]:
    """The extensions of these machines, by machine, oldest first."""
    found: dict[int, list[Kept]] = {}
    for row, resource in session.execute(
        _JOINED.where(Extension.machine_id.in_(list(machine_ids))).order_by(Extension.resource_id)
    ):
        found.setdefault(row.machine_id, []).append(Kept(row, resource))
    return found


def of_machine(session: Session, machine_id: int) -> list[Kept]:
    """The extensions of one machine, oldest first."""
    return of_machines(session, [machine_id]).get(machine_id, [])


def moved_with(session: Session, kept: Kept) -> list[Kept]:
    """The extensions of its handler that are in an automatic upgrade: a handler has one version on a machine, so they
    go back together or not at all."""
    return [
        item
        for item in of_machine(session, kept.row.machine_id)
        if item.row.handler_key == kept.row.handler_key and item.row.rollback_to is not None
    ]


def find(session: Session, resource_key: str) -> Kept | None:
    """By resource id in lower case."""
    found = session.execute(_JOINED.where(Resource.key == resource_key)).one_or_none()
    return Kept(found[0], found[1]) if found else None


@dataclass(frozen=True)
class Host:
    """What packages are chosen by; empty where it was never reported."""

    os_type: str
    arch: str


def host_of(session: Session, machine: Machine) -> Host:
    """As the machine's inventory tells."""
    report = session.get(Report, (machine.id, "inventory"))
    detected = (report.data.get("detectedProperties") or {}) if report else {}
    return Host(machine.os_type or "", str(detected.get("architecture") or ""))

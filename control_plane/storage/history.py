# SPDX-License-Identifier: Apache-2.0
"""What every write to a machine leaves behind: its derived columns, and the event of its making, end or change, in the
same transaction, whichever part of the hub writes. Events of status are the watcher's (fleet/watcher.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import event, inspect, select
from sqlalchemy.orm import Session, UOWTransaction

from control_plane.arm.paths import MachineId
from control_plane.clock import now
from control_plane.storage import derived
from control_plane.storage.fleet_models import MachineEvent
from control_plane.storage.models import Machine, Report, ResourceGroup

CREATED, DELETED, CHANGED = "machine.created", "machine.deleted", "machine.changed"
STATUS, CONFLICT, VERSION, RENAMED = "machine.status", "machine.conflict", "machine.version", "machine.renamed"
TWIN = "machine.twin"
KINDS = (CREATED, DELETED, CHANGED, STATUS, CONFLICT, VERSION, RENAMED, TWIN)
_TOLD = {"tags": "tags", "identity_type": "identity", "kind": "kind", "properties": "properties"}


def about(machine: Machine, group: str, kind: str, at: int, data: Mapping[str, Any], once: str | None) -> MachineEvent:
    """The row of an event. `group`: name of the machine's resource group."""
    return MachineEvent(
        at=at,
        kind=kind,
        machine_id=machine.id,
        vm_id=machine.vm_id,
        subscription_id=machine.subscription_id,
        group_key=group.lower(),
        name_key=machine.name_key,
        resource_id=str(MachineId(machine.subscription_id, group, machine.name)),
        data=dict(data),
        once=once,
    )


def _group(session: Session, machine: Machine) -> str:
    found = session.get(ResourceGroup, machine.group_id)
    return found.name if found else ""


def _derive(machine: Machine, inventory: Mapping[str, Any] | None) -> None:
    machine.tags_key = derived.tags_key(machine.tags or {})
    machine.version_key = derived.version_key(machine.agent_version)
    facts = machine.facts_key or "" if inventory is None else derived.facts_key(inventory)
    machine.facts_key = derived.with_tags(facts, machine.tags or {})
    if inventory is not None:
        machine.released = derived.released(machine.agent_version, inventory)
        machine.os_type = derived.os_type(inventory, machine.properties)
    elif not machine.os_type:
        machine.os_type = derived.os_type({}, machine.properties or {})


def _before(machine: Machine, name: str) -> Any:
    """The value that a write replaces; None when the attribute is not changed."""
    gone = inspect(machine).attrs[name].history.deleted
    return gone[0] if gone else None


def _changes(machine: Machine) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    attributes = inspect(machine).attrs
    version = _before(machine, "agent_version")
    if version is not None:
        found.append((VERSION, {"from": version, "to": machine.agent_version}))
    told = sorted(word for name, word in _TOLD.items() if attributes[name].history.has_changes())
    if told:
        found.append((CHANGED, {"members": told}))
    return found


def _renamed(session: Session, report: Report, machine: Machine) -> dict[str, Any] | None:
    """The host's own name before and after; the name of the resource never changes."""
    old = session.scalar(select(Report.data).where(Report.machine_id == machine.id, Report.kind == "inventory"))
    before, after = (old or {}).get("computerName"), report.data.get("computerName")
    return {"from": before, "to": after} if before and after and before != after else None


def _derive_all(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """Machines and inventories on their way to the database."""
    written = [item for item in (*session.new, *session.dirty) if isinstance(item, (Machine, Report))]
    gone = [item for item in session.deleted if isinstance(item, Machine)]
    if not written and not gone:
        return
    at = now()
    with session.no_autoflush:
        for item in written:
            if isinstance(item, Report):
                machine = session.get(Machine, item.machine_id) if item.kind == "inventory" else None
                if machine is not None:
                    _derive(machine, item.data)
                    renamed = _renamed(session, item, machine)
                    if renamed:
                        session.add(about(machine, _group(session, machine), RENAMED, at, renamed, None))
            elif item in session.new:
                _derive(item, None)
            elif session.is_modified(item):
                other_version = inspect(item).attrs["agent_version"].history.has_changes()
                report = session.get(Report, (item.id, "inventory")) if other_version else None
                _derive(item, report.data if report else None)
                group = _group(session, item)
                for kind, data in _changes(item):
                    session.add(about(item, group, kind, at, data, None))
        for item in gone:
            session.add(about(item, _group(session, item), DELETED, at, {}, None))


def _tell_of_new(session: Session, _context: UOWTransaction) -> None:
    """Machines that were made have their id only now; the event follows in the flush that the commit makes."""
    at = now()
    for item in session.new:
        if isinstance(item, Machine):
            session.add(about(item, _group(session, item), CREATED, at, {}, None))


def newest(session: Session, machine_id: int, limit: int) -> list[MachineEvent]:
    """The last events of a machine, the newest first."""
    query = select(MachineEvent).where(MachineEvent.machine_id == machine_id).order_by(MachineEvent.id.desc())
    return list(session.scalars(query.limit(limit)))


def follow() -> None:
    """Do so for every session of this process. Calling it again changes nothing."""
    for name, listener in (("before_flush", _derive_all), ("after_flush", _tell_of_new)):
        if not event.contains(Session, name, listener):
            event.listen(Session, name, listener)

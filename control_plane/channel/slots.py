# SPDX-License-Identifier: Apache-2.0
"""Credential slots in the database: the first heartbeat with the next one retires the current one, synchronously."""

from __future__ import annotations

from sqlalchemy import select

from control_plane.channel import verdict
from control_plane.channel.verdict import Slot
from control_plane.hub import Hub
from control_plane.storage import audit
from control_plane.storage.models import Credential, Machine


def use(hub: Hub, machine_id: int, slot: int) -> Slot:
    """Verdict on the use of a slot; committed before it is returned when the slot takes over."""
    with hub.database.read() as session:
        found = session.scalars(select(Credential).where(Credential.machine_id == machine_id)).all()
        answer = verdict.slot({item.slot: item.state for item in found}, slot)
    if answer is not Slot.TAKE_OVER:
        return answer
    with hub.database.write() as session:
        machine = session.get(Machine, machine_id)
        rows = session.scalars(select(Credential).where(Credential.machine_id == machine_id)).all()
        states = {item.slot: item.state for item in rows}
        answer = verdict.slot(states, slot)
        if machine is None or answer is not Slot.TAKE_OVER:
            return answer
        after = verdict.taken_over(states, slot)
        for row in rows:
            row.state = after[row.slot]
        audit.record(
            session,
            audit.Actor("machine", machine.client_id),
            "credentials/takeOver",
            machine.name,
            detail={"slot": slot},
        )
    hub.live.dropped(machine_id)
    return answer

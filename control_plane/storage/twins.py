# SPDX-License-Identifier: Apache-2.0
"""Twins in the database: noting them, what was decided about them, and which profile a machine has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.arm.paths import MachineId
from control_plane.clock import rfc3339
from control_plane.fleet import profiles
from control_plane.storage import audit, history
from control_plane.storage.models import Machine, ResourceGroup
from control_plane.storage.twin_models import Origin, Profile, Twin

OPEN, RELEASED, ADOPTED, REJECTED, HEALED = "open", "released", "adopted", "rejected", "healed"
STATES = (OPEN, RELEASED, ADOPTED, REJECTED, HEALED)
BARRING = (OPEN, ADOPTED, REJECTED)
"""States in which the twin's heartbeats are refused: an adopted one may not return to the identity that it copied."""
SETTLED = (ADOPTED, HEALED)
KEPT_HISTORY = 20
MOST_ROWS = 20_000
"""Holders of one identity that have rows of their own: more than a herd has. What more there are have one together."""


@dataclass(frozen=True)
class Key:
    """Which holder: see models. Both empty: every holder of the identity."""

    digest: str
    boot: str = ""


@dataclass(frozen=True)
class Found:
    """What was found of a holder. Words: see models."""

    how: str
    verdict: str
    outcome: str
    differs: tuple[str, ...] = ()
    address: str = ""
    hostname: str | None = None
    image_id: str | None = None


def profile(session: Session, name: str) -> profiles.Settings:
    """The settings of a profile; those of `default` as it was made when there is none of the name."""
    row = session.get(Profile, name)
    return profiles.stored(row.settings) if row is not None else profiles.FALLBACK


def origin(session: Session, machine_id: int) -> tuple[str, str | None]:
    """Profile and image of a machine."""
    row = session.get(Origin, machine_id)
    return (row.profile, row.image_id) if row is not None else (profiles.DEFAULT, None)


def resource_id(session: Session, machine: Machine) -> str:
    """ARM id of a machine."""
    group = session.get_one(ResourceGroup, machine.group_id)
    return str(MachineId(machine.subscription_id, group.name, machine.name))


def find(session: Session, machine_id: int, key: Key) -> Twin | None:
    """The row of a holder."""
    return session.scalars(
        select(Twin).where(Twin.machine_id == machine_id, Twin.digest == key.digest, Twin.boot == key.boot)
    ).one_or_none()


def _count(session: Session, machine_id: int) -> int:
    return session.scalar(select(func.count()).select_from(Twin).where(Twin.machine_id == machine_id)) or 0


def add_history(row: Twin, at: int, what: str, **more: Any) -> None:
    """One more thing that happened; the oldest are forgotten."""
    row.history = [*row.history[1 - KEPT_HISTORY :], {"at": rfc3339(at), "what": what, **more}]


def note(session: Session, machine: Machine, key: Key, found: Found, at: int, *, decision: str | None = None) -> Twin:
    """Note a holder that is in conflict. An event and an entry of the audit are made when the verdict, or what is
    answered, is news; otherwise it is only counted. One that is here again after it was healed or adopted can be
    decided anew; `decision`: what an operator has said of it before and is still to be carried out."""
    row = find(session, machine.id, key)
    if row is None and _count(session, machine.id) >= MOST_ROWS:
        key = Key("")  # whoever makes up ever new evidence gets no row for each
        row = find(session, machine.id, key)
    # A question that was asked before the adoption, and is answered after it, is none of a holder that is back.
    again = row is not None and (row.state == HEALED or (row.state == ADOPTED and at >= row.last))
    news = row is None or again or (row.verdict, row.outcome) != (found.verdict, found.outcome)
    if row is None:
        row = Twin(machine_id=machine.id, digest=key.digest, boot=key.boot, first=at, asked=0, history=[])
        session.add(row)
    if again or row.state is None:
        row.state, row.decision, row.became = OPEN, decision, None
    row.found, row.verdict, row.outcome = found.how, found.verdict, found.outcome
    row.differs, row.address, row.last = list(found.differs), found.address[:45], at
    row.hostname, row.image_id = found.hostname or row.hostname, found.image_id or row.image_id
    row.asked = row.asked + 1
    if news:
        add_history(row, at, found.verdict, by=found.how, outcome=found.outcome)
        session.flush()
        tell(session, machine, row, at, audit.Actor("machine", machine.client_id), "twins/found")
    return row


def tell(session: Session, machine: Machine, row: Twin, at: int, actor: audit.Actor, action: str) -> None:
    """The event and the audit's entry of what a row says now."""
    data = {
        "twin": row.id,
        "verdict": row.verdict,
        "outcome": row.outcome,
        "state": row.state,
        "differs": row.differs,
        "became": row.became,
    }
    group = session.get_one(ResourceGroup, machine.group_id)
    session.add(history.about(machine, group.name, history.TWIN, at, data, None))
    about = {"address": row.address, "hostname": row.hostname, "imageId": row.image_id}
    audit.record(session, actor, action, resource_id(session, machine), detail={**data, **about})


def settle(session: Session, machine: Machine, keys: tuple[Key, ...], at: int) -> None:
    """A holder is the machine after all: what was held against it is over."""
    for key in keys:
        row = find(session, machine.id, key)
        if row is not None and row.state != HEALED:
            # What an operator decided is carried out, once; other processes of the hub go by `last`.
            row.state, row.decision, row.last = HEALED, None, at
            add_history(row, at, "healed")
            tell(session, machine, row, at, audit.Actor("machine", machine.client_id), "twins/healed")

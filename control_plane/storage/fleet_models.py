# SPDX-License-Identifier: Apache-2.0
"""Tables of what happens to the fleet: events, counts over time, deliveries, clean-up rules. Conventions: models.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, ForeignKey, Index, Integer, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.storage.models import GUID, TIME, Base


class MachineState(Base):
    """What was last announced of a machine: written by the watcher when it changes, never by a heartbeat.
    `since`: when that status began; `conflicts`: how many of them events have told of."""

    __tablename__ = "machine_states"
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"), primary_key=True)
    status: Mapped[str] = mapped_column(String(18), index=True)
    since: Mapped[int] = mapped_column(TIME)
    conflicts: Mapped[int] = mapped_column(Integer)


class MachineEvent(Base):
    """Something that happened to a machine. It outlives the machine, so it repeats what names it. `once`: where several
    processes may see the same thing, the text that makes it one row."""

    __tablename__ = "machine_events"
    __table_args__ = (
        Index("ix_machine_events_machine_id_id", "machine_id", "id"),
        {"sqlite_autoincrement": True},  # readers go on after the last id they saw
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[int] = mapped_column(TIME, index=True)
    kind: Mapped[str] = mapped_column(String(32))
    machine_id: Mapped[int] = mapped_column(Integer)
    vm_id: Mapped[str] = mapped_column(GUID)
    subscription_id: Mapped[str] = mapped_column(GUID)
    group_key: Mapped[str] = mapped_column(String(90))
    name_key: Mapped[str] = mapped_column(String(54))
    resource_id: Mapped[str] = mapped_column(String(512))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    once: Mapped[str | None] = mapped_column(String(96), unique=True)


class FleetCount(Base):
    """How many machines of a subscription had which status. `span`: seconds that the row stands for, from `at` on; of
    longer spans the mean of their parts."""

    __tablename__ = "fleet_counts"
    __table_args__ = (PrimaryKeyConstraint("span", "at", "subscription_id"),)
    span: Mapped[int] = mapped_column(Integer)
    at: Mapped[int] = mapped_column(TIME)
    subscription_id: Mapped[str] = mapped_column(GUID)
    connected: Mapped[int] = mapped_column(Integer)
    disconnected: Mapped[int] = mapped_column(Integer)
    expired: Mapped[int] = mapped_column(Integer)
    awaiting: Mapped[int] = mapped_column(Integer)


class Listening(Base):
    """One row: since when, without a gap, some process of this hub has listened, and when one last said so.
    `deaf_from`: the end of the listening before; silence of machines between it and `since` proves nothing."""

    __tablename__ = "listening"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    since: Mapped[int] = mapped_column(TIME)
    alive: Mapped[int] = mapped_column(TIME)
    deaf_from: Mapped[int] = mapped_column(TIME)


class Outage(Base):
    """A time in which no process of this hub listened."""

    __tablename__ = "outages"
    began: Mapped[int] = mapped_column(TIME, primary_key=True, autoincrement=False)
    ended: Mapped[int] = mapped_column(TIME)


class NotifyTarget(Base):
    """How deliveries to a target of config.yaml stand. `lease_until`: one process at a time sends; `due`: not before;
    `dropped`: how many were given up since the last that arrived, because the queue was full or they were too old."""

    __tablename__ = "notify_targets"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    lease_until: Mapped[int] = mapped_column(TIME)
    lease_by: Mapped[str] = mapped_column(GUID)
    tries: Mapped[int] = mapped_column(Integer)
    due: Mapped[int] = mapped_column(TIME)
    dropped: Mapped[int] = mapped_column(Integer)


class Outbox(Base):
    """A transition that a target is still to be told of; written in the transaction of the event."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_target_id", "target", "id"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    target: Mapped[str] = mapped_column(String(64))
    created: Mapped[int] = mapped_column(TIME)
    event: Mapped[dict[str, Any]] = mapped_column(JSON)


class CleanupRule(Base):
    """What is done with machines that have been silent for long (fleet/cleanup.py)."""

    __tablename__ = "cleanup_rules"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    rule: Mapped[dict[str, Any]] = mapped_column(JSON)
    enabled: Mapped[bool] = mapped_column(Boolean)
    created: Mapped[int] = mapped_column(TIME)
    last_run: Mapped[int | None] = mapped_column(TIME)
    last_result: Mapped[dict[str, Any] | None] = mapped_column(JSON)

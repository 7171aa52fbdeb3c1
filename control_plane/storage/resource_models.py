# SPDX-License-Identifier: Apache-2.0
"""Tables of what ARM knows beside machines and groups: further resources, locks, operations. Conventions: models.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.storage.models import GUID, TIME, Base


class Resource(Base):
    """A resource of one of the types in arm/kinds.py. `key`: its id in lower case; `machine_id`: the machine it hangs
    below, if it does, and goes with. `type` in lower case; `properties`: what callers wrote."""

    __tablename__ = "resources"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(512), unique=True)
    resource_id: Mapped[str] = mapped_column(String(512))
    type: Mapped[str] = mapped_column(String(128), index=True)
    name: Mapped[str] = mapped_column(String(90))
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), index=True)
    group_id: Mapped[int] = mapped_column(ForeignKey("resource_groups.id", ondelete="CASCADE"), index=True)
    machine_id: Mapped[int | None] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"), index=True)
    location: Mapped[str] = mapped_column(String(90))
    tags: Mapped[dict[str, str]] = mapped_column(JSON)
    properties: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[int] = mapped_column(TIME)
    created_by: Mapped[str] = mapped_column(GUID)
    created_by_type: Mapped[str] = mapped_column(String(32))
    modified: Mapped[int] = mapped_column(TIME)
    modified_by: Mapped[str] = mapped_column(GUID)
    modified_by_type: Mapped[str] = mapped_column(String(32))


class Lock(Base):
    """A management lock. `scope`: resource id that it protects, with everything below; `scope_key`, `key`: that id, and
    the lock's own, in lower case. `level`: CanNotDelete or ReadOnly."""

    __tablename__ = "locks"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(1024), unique=True)
    scope: Mapped[str] = mapped_column(String(512))
    scope_key: Mapped[str] = mapped_column(String(512), index=True)
    name: Mapped[str] = mapped_column(String(260))
    level: Mapped[str] = mapped_column(String(16))
    notes: Mapped[str | None] = mapped_column(String(512))
    created: Mapped[int] = mapped_column(TIME)
    created_by: Mapped[str] = mapped_column(GUID)


class SubscriptionTags(Base):
    """Tags of a subscription, if it ever had some."""

    __tablename__ = "subscription_tags"
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    tags: Mapped[dict[str, str]] = mapped_column(JSON)


class Operation(Base):
    """A long-running operation, kept for a day after its end. `result`: what the caller gets at the end, None when
    there is nothing, or when that is the resource as it is by then; `error`: code and message of one that failed.

    `started`, `ended`: Unix seconds; `ended` None: it runs. `machine_id`, `waits`: what a running one waits for
    (extensions/operations.py). The machine may be gone: an operation outlives it.
    """

    __tablename__ = "operations"
    id: Mapped[str] = mapped_column(GUID, primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    object_id: Mapped[str] = mapped_column(GUID)
    action: Mapped[str] = mapped_column(String(128))
    target: Mapped[str] = mapped_column(String(512))
    status: Mapped[str] = mapped_column(String(16))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    machine_id: Mapped[int | None] = mapped_column(Integer, index=True)
    waits: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)
    started: Mapped[int] = mapped_column(TIME, index=True)
    ended: Mapped[int | None] = mapped_column(TIME)

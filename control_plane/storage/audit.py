# SPDX-License-Identifier: Apache-2.0
"""The append-only audit: one row for each write, in the transaction of the write itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from control_plane.clock import now
from control_plane.storage.database import Database
from control_plane.storage.models import AuditEntry


@dataclass(frozen=True)
class Actor:
    """Who. `type`: principal, ticket, machine or operator (the command line); `name`: client id, or login name."""

    type: str
    name: str


def record(
    session: Session,
    actor: Actor,
    action: str,
    target: str,
    *,
    outcome: str = "Succeeded",
    code: str | None = None,
    request_id: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Add an entry. `outcome`: Succeeded or Refused, with the error's `code`. Never a secret in `detail`."""
    session.add(
        AuditEntry(
            at=now(),
            actor_type=actor.type,
            actor=actor.name[:128].replace("\0", "\ufffd"),
            action=action[:128],
            target=target[:1024].replace("\0", "\ufffd"),  # PostgreSQL keeps no NUL in texts
            outcome=outcome,
            code=code,
            request_id=request_id,
            detail=detail,
        )
    )


def refused(database: Database, actor: Actor, action: str, target: str, code: str, request_id: str | None) -> None:
    """Add an entry for a write that was not carried out."""
    with database.write() as session:
        record(session, actor, action, target, outcome="Refused", code=code, request_id=request_id)

# SPDX-License-Identifier: Apache-2.0
"""The append-only audit: one row for each write, in the transaction of the write itself; and reading it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, false, func, insert, or_, select, true
from sqlalchemy.orm import Session

from control_plane.clock import now, rfc3339
from control_plane.storage.database import Database
from control_plane.storage.models import AuditEntry, Principal, User

_NAMED = frozenset({"principal", "ticket", "user"})


@dataclass(frozen=True)
class Actor:
    """Who. `type`: principal, user, ticket, machine, operator (the command line), rule (of clean-up); `name`: client
    id, login name, name of the rule."""

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
    session.add(AuditEntry(**_row(actor, action, target, outcome, code, request_id, detail)))


def record_all(
    session: Session, actor: Actor, action: str, details: Mapping[str, dict[str, Any]], request_id: str | None
) -> None:
    """Add an entry for each of many targets that one write was about, with its detail."""
    if details:
        rows = [_row(actor, action, target, "Succeeded", None, request_id, item) for target, item in details.items()]
        session.execute(insert(AuditEntry), rows)


def _row(
    actor: Actor,
    action: str,
    target: str,
    outcome: str,
    code: str | None,
    request_id: str | None,
    detail: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "at": now(),
        "actor_type": actor.type,
        "actor": actor.name[:128].replace("\0", "\ufffd"),
        "action": action[:128],
        "target": target[:1024].replace("\0", "\ufffd"),  # PostgreSQL keeps no NUL in texts
        "outcome": outcome,
        "code": code,
        "request_id": request_id,
        "detail": detail,
    }


def refused(database: Database, actor: Actor, action: str, target: str, code: str, request_id: str | None) -> None:
    """Add an entry for a write that was not carried out."""
    with database.write() as session:
        record(session, actor, action, target, outcome="Refused", code=code, request_id=request_id)


@dataclass(frozen=True)
class Wanted:
    """Which entries; None: whatever it is. `target`: a prefix, without case, as is `action`; `scope`: the target is
    that very thing or within it; `begins`, `ends`: Unix seconds, the end not included."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    outcome: str | None = None
    scope: str | None = None
    begins: int | None = None
    ends: int | None = None


def _conditions(wanted: Wanted, scopes: Iterable[str]) -> Iterator[ColumnElement[bool]]:
    if wanted.actor is not None:
        yield func.lower(AuditEntry.actor) == wanted.actor.lower()
    if wanted.action is not None:
        yield func.lower(AuditEntry.action).startswith(wanted.action.lower(), autoescape=True)
    if wanted.target is not None:
        yield func.lower(AuditEntry.target).startswith(wanted.target.lower(), autoescape=True)
    if wanted.outcome is not None:
        yield AuditEntry.outcome == wanted.outcome
    if wanted.scope is not None:
        yield _within(wanted.scope)
    if wanted.begins is not None:
        yield AuditEntry.at >= wanted.begins
    if wanted.ends is not None:
        yield AuditEntry.at < wanted.ends
    yield or_(false(), *(_within(scope) for scope in scopes))


def _within(scope: str) -> ColumnElement[bool]:
    if scope == "/":
        return true()
    target = func.lower(AuditEntry.target)
    return or_(target == scope.lower(), target.startswith(f"{scope.lower()}/", autoescape=True))


def page(
    session: Session, wanted: Wanted, *, scopes: Iterable[str], before: int | None, size: int
) -> Sequence[AuditEntry]:
    """At most `size` entries whose targets are within `scopes`, the newest first, below id `before`."""
    query = select(AuditEntry).where(*_conditions(wanted, scopes)).order_by(AuditEntry.id.desc()).limit(size)
    return session.scalars(query if before is None else query.where(AuditEntry.id < before)).all()


def since(session: Session, wanted: Wanted, after: int, size: int) -> Sequence[AuditEntry]:
    """At most `size` entries younger than the one with id `after`, the oldest first."""
    query = select(AuditEntry).where(*_conditions(wanted, ["/"]), AuditEntry.id > after)
    return session.scalars(query.order_by(AuditEntry.id).limit(size)).all()


def _names(session: Session, entries: Sequence[AuditEntry]) -> dict[str, str]:
    """Names of the actors that are principals and users now, by what the audit calls them in lower case."""
    actors = {entry.actor.lower() for entry in entries if entry.actor_type in _NAMED}
    principals = session.execute(select(Principal.id, Principal.name).where(Principal.id.in_(actors)))
    users = session.execute(select(User.name_key, User.name).where(User.name_key.in_(actors)))
    return {key: name for found in (principals, users) for key, name in found}


def shown(session: Session, entries: Sequence[AuditEntry]) -> list[dict[str, Any]]:
    """How entries are shown, by the API, the page and the command alike. `actorName`: what the principal (of a ticket:
    the one that asked for it) or the user is called today; None for one that is gone, and for all others."""
    names = _names(session, entries)
    return [
        {
            "id": entry.id,
            "at": rfc3339(entry.at),
            "actorType": entry.actor_type,
            "actor": entry.actor,
            "actorName": names.get(entry.actor.lower()) if entry.actor_type in _NAMED else None,
            "action": entry.action,
            "target": entry.target,
            "outcome": entry.outcome,
            "code": entry.code,
            "requestId": entry.request_id,
            "detail": entry.detail,
        }
        for entry in entries
    ]

# SPDX-License-Identifier: Apache-2.0
"""What a transaction tells the other processes over one PostgreSQL: NOTIFY, sent by the server when it commits, and not
at all when it does not. Whoever writes machines, credentials or the hub's state through a Session tells by that,
commands of the operator included. SQLite has one process, which needs no telling.

Payload, JSON: `from` (number of the process, 0: a command), `changed` and `enrolled` (ids of machines), `taken` (ids
that the process speaks for from now on), `hub` (epoch or trust generation).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import event, func, select
from sqlalchemy.orm import Session, UOWTransaction

from control_plane.storage.models import Credential, Heartbeat, HubState, Machine

CHANNEL = "hawser_hub"
PROCESS = "process"  # key of Session.info: who writes
_CHUNK = 500  # a payload has at most 8,000 bytes


def _post(session: Session, payload: dict[str, Any]) -> None:
    text = json.dumps({"from": session.info.get(PROCESS, 0), **payload}, separators=(",", ":"))
    session.connection().execute(select(func.pg_notify(CHANNEL, text)))


def post_machines(session: Session, word: str, ids: Iterable[int]) -> None:
    """Tell of machines. `word`: `changed`, `enrolled` or `taken`."""
    every = sorted(ids)
    for start in range(0, len(every), _CHUNK):
        _post(session, {word: every[start : start + _CHUNK]})


def _after_flush(session: Session, _context: UOWTransaction) -> None:
    if session.get_bind().dialect.name != "postgresql":
        return
    changed: set[int] = set()
    for item in (*session.dirty, *session.deleted):
        if isinstance(item, Machine):
            changed.add(item.id)
    for item in (*session.new, *session.dirty, *session.deleted):
        if isinstance(item, Credential):
            changed.add(item.machine_id)
    # Hot rows are written in batches below the ORM; through it only an enrolment sets them back.
    enrolled = {item.machine_id for item in session.dirty if isinstance(item, Heartbeat)}
    post_machines(session, "changed", changed - enrolled)
    post_machines(session, "enrolled", enrolled)
    if any(isinstance(item, HubState) for item in session.dirty):
        _post(session, {"hub": True})


def follow() -> None:
    """Do so for every session of this process. Calling it again changes nothing."""
    if not event.contains(Session, "after_flush", _after_flush):
        event.listen(Session, "after_flush", _after_flush)

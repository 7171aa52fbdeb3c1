# SPDX-License-Identifier: Apache-2.0
"""Reading the audit from the command line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from control_plane.api.audit import OUTCOMES
from control_plane.clock import parse_rfc3339
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.settings import sync
from control_plane.storage import audit

_EVERY_SECONDS = 1.0
_AT_ONCE = 1000


def wanted(
    actor: str | None, action: str | None, target: str | None, outcome: str | None, begins: str | None, ends: str | None
) -> audit.Wanted:
    """The filter of the options.

    Errors: OperatorError.
    """
    if outcome is not None and outcome.capitalize() not in OUTCOMES:
        raise OperatorError(f"'{outcome}' is no outcome.", f"Use one of {', '.join(OUTCOMES)}.")
    return audit.Wanted(
        actor=actor,
        action=action,
        target=target,
        outcome=outcome.capitalize() if outcome else None,
        begins=_time(begins),
        ends=_time(ends),
    )


def _time(text: str | None) -> int | None:
    found = parse_rfc3339(text) if text is not None else None
    if text is not None and found is None:
        raise OperatorError(f"'{text}' is not a time.", "Write it as 2026-11-23T10:00:00Z.")
    return found


def newest(data: Path, which: audit.Wanted, count: int) -> list[dict[str, Any]]:
    """The newest entries, the oldest of them first."""
    with opened(data) as (database, _config), database.read() as session:
        found = audit.page(session, which, scopes=["/"], before=None, size=count)
        return audit.shown(session, found)[::-1]


def export(data: Path, which: audit.Wanted, target: Path) -> int:
    """Write the entries to `target`, which must not exist: one JSON object a line, the oldest first, 0600. How many.

    Errors: OperatorError; there is no file then.
    """
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise OperatorError(
            f"{target} cannot be made ({error.strerror}).", "Name a file that does not exist, where you may write."
        ) from error
    count = after = 0
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream, opened(data) as (database, _config):
            more = True
            while more:
                with database.read() as session:
                    found = audit.shown(session, audit.since(session, which, after, _AT_ONCE))
                stream.writelines(f"{json.dumps(item)}\n" for item in found)
                count, more = count + len(found), len(found) == _AT_ONCE
                after = found[-1]["id"] if found else after
            stream.flush()
            os.fsync(stream.fileno())
        sync(target.absolute().parent)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OperatorError(f"{target} cannot be written ({error.strerror}).", "Free some space.") from error
        raise
    return count


def follow(data: Path, which: audit.Wanted, after: int) -> Iterator[dict[str, Any]]:
    """Entries younger than the one with id `after`, as they come; ends when the caller stops."""
    with opened(data) as (database, _config):
        while True:
            with database.read() as session:
                found = audit.shown(session, audit.since(session, which, after, _AT_ONCE))
            for item in found:
                after = item["id"]
                yield item
            if len(found) < _AT_ONCE:
                time.sleep(_EVERY_SECONDS)

# SPDX-License-Identifier: Apache-2.0
"""`hawser-hub migrate`: the schema of the database, up or down, while no hub runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.serve import lock
from control_plane.storage.database import revisions

HEAD = "head"


def steps(found: str | None, target: str) -> list[str]:
    """The revisions that a migration passes, in order: made (up) or undone (down). Pure.

    Errors: OperatorError when one of them is not known.
    """
    known = revisions()
    wanted = known[-1] if target == HEAD else target
    if wanted not in known or (found is not None and found not in known):
        raise OperatorError(
            f"There is no way from revision {found} to {wanted}.", f"This program knows {', '.join(known)}."
        )
    start = known.index(found) if found is not None else -1
    end = known.index(wanted)
    return list(known[start + 1 : end + 1]) if end >= start else list(reversed(known[end + 1 : start + 1]))


def loses(found: str | None, passed: Sequence[str]) -> bool:
    """Whether a migration that passes these revisions goes down, where only they know some of the data. Pure."""
    return found is not None and found in passed


def migrate(data: Path, target: str, *, dry_run: bool, may_lose: bool) -> dict[str, object]:
    """Carry it out, or say what it would do. Returns `{"from", "to", "steps", "loses", "changed"}`. `may_lose`: the way
    down is wished.

    Errors: OperatorError while a hub runs, for a revision that is not known, or for a way down that is not wished;
    nothing is changed then.
    """
    with opened(data, any_revision=True) as (database, _settings):
        found = database.revision()
        passed = steps(found, target)
        wanted = revisions()[-1] if target == HEAD else target
        lost = loses(found, passed)
        if lost and not dry_run and not may_lose:
            raise OperatorError(
                f"The way down from revision {found} to {wanted} loses what only {', '.join(reversed(passed))} know.",
                "Take a backup, and say --yes.",
            )
        if not dry_run and passed:
            held = lock(data)
            try:
                database.migrate(wanted, alone=True)
            finally:
                os.close(held)
        return {"from": found, "to": wanted, "steps": passed, "loses": lost, "changed": bool(passed) and not dry_run}

# SPDX-License-Identifier: Apache-2.0
"""`hawser-hub migrate`: the schema of the database, up or down, while no hub runs."""

from __future__ import annotations

import os
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


def migrate(data: Path, target: str, *, dry_run: bool) -> dict[str, object]:
    """Carry it out, or say what it would do. Returns `{"from", "to", "steps", "changed"}`.

    Errors: OperatorError while a hub runs, or for a revision that is not known; nothing is changed then.
    """
    with opened(data) as (database, _settings):
        found = database.revision()
        passed = steps(found, target)
        wanted = revisions()[-1] if target == HEAD else target
        if not dry_run and passed:
            held = lock(data)
            try:
                database.migrate(wanted, alone=True)
            finally:
                os.close(held)
        return {"from": found, "to": wanted, "steps": passed, "changed": bool(passed) and not dry_run}

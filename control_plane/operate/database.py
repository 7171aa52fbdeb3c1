# SPDX-License-Identifier: Apache-2.0
"""The database of a data directory, opened for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane import settings
from control_plane.errors import OperatorError
from control_plane.hub import open_database
from control_plane.storage.database import Database, revisions
from control_plane.storage.engines import UNAVAILABLE, described


@contextmanager
def opened(data: Path, *, any_revision: bool = False) -> Iterator[tuple[Database, settings.Settings]]:
    """Database and settings. `any_revision`: for what works on older schemas too.

    Errors: OperatorError: no hub there, the database cannot be used, or its schema is not this program's.
    """
    config = settings.load(data)
    database = open_database(data)
    try:
        if not any_revision:
            _check_revision(data, database.revision())
        yield database, config
    except UNAVAILABLE as error:
        raise OperatorError(
            f"The database of {data} cannot be used ({described(error)}).",
            "Check rights and free space; while another command writes, try again.",
        ) from error
    finally:
        database.close()


def _check_revision(data: Path, found: str | None) -> None:
    known = revisions()
    if found == known[-1]:
        return
    told = f"The database of {data} has revision {found or 'none'}, and this program works with {known[-1]}."
    if found is None or found in known:
        raise OperatorError(told, "Stop the hub, take a backup, and run `hawser-hub migrate`.")
    raise OperatorError(told, "Use the newer hawser-hub that the database was migrated by.")

# SPDX-License-Identifier: Apache-2.0
"""The database of a data directory, opened for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane import settings
from control_plane.errors import OperatorError
from control_plane.hub import open_database
from control_plane.storage.database import Database
from control_plane.storage.engines import UNAVAILABLE, described


@contextmanager
def opened(data: Path) -> Iterator[tuple[Database, settings.Settings]]:
    """Database and settings.

    Errors: OperatorError: no hub there, or the database cannot be used.
    """
    config = settings.load(data)
    database = open_database(data)
    try:
        yield database, config
    except UNAVAILABLE as error:
        raise OperatorError(
            f"The database of {data} cannot be used ({described(error)}).",
            "Check rights and free space; while another command writes, try again.",
        ) from error
    finally:
        database.close()

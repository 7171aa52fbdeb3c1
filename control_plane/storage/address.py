# SPDX-License-Identifier: Apache-2.0
"""Where a hub's database is: DATA/hub.db, or the PostgreSQL that section `database` of DATA/config.yaml names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from control_plane.errors import OperatorError
from control_plane.storage.database import DATABASE_FILE

_MAX_PASSWORD = 1024


def url(section: Mapping[str, Any]) -> URL:
    """The address of PostgreSQL with the password of `password_file`, if one is named.

    Errors: OperatorError.
    """
    try:
        found = make_url(section["url"])
        if found.get_backend_name() != "postgresql":
            raise ArgumentError("another kind of database")
    except ArgumentError as error:
        raise OperatorError(
            "The address of the database is none of a PostgreSQL.", "Write it as postgresql+psycopg://USER@HOST/NAME."
        ) from error
    found = found.set(drivername="postgresql+psycopg")
    if found.password is not None:
        raise OperatorError(
            "The address of the database holds a password.", "Put it into a file of your own, 0600: password_file."
        )
    if "password_file" not in section:
        return found
    path = Path(section["password_file"])
    try:
        with path.open(encoding="utf-8") as stream:
            password = stream.read(_MAX_PASSWORD).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(
            f"The password of the database cannot be read ({error}).", "Let the hub's user read password_file."
        ) from error
    return found.set(password=password)


def of(data: Path, config: Mapping[str, Any]) -> Path | URL:
    """The database of a data directory. `config`: the sections of its config.yaml.

    Errors: OperatorError.
    """
    section = config.get("database") or {}
    return url(section) if "url" in section else data / DATABASE_FILE

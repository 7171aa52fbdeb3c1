# SPDX-License-Identifier: Apache-2.0
"""The advisory locks by which hub processes show over one PostgreSQL that they live (processes.py)."""

from __future__ import annotations

from sqlalchemy import Connection, text

PRESENCE = 0x68617774  # first half of the locks' names; the second is the process's number
_PRESENT = text(
    "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted "
    "AND classid::bigint = :presence AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
).bindparams(presence=PRESENCE)


def numbers(connection: Connection) -> set[int]:
    """Numbers of the processes that live."""
    return set(connection.scalars(_PRESENT))


def running(connection: Connection) -> bool:
    """True while a process runs over this database, whatever its tables."""
    return bool(numbers(connection))

# SPDX-License-Identifier: Apache-2.0
"""Engines of both databases: how connections are opened, how transactions begin.

SQLite in WAL mode: readers see the last commit, a writer takes the write lock at its beginning (`BEGIN IMMEDIATE`), so
that a transaction never fails half way on a lock. `synchronous=FULL`: what was committed survives loss of power.

PostgreSQL: readers are REPEATABLE READ, READ ONLY (one snapshot for the whole block). A writer is READ COMMITTED and
takes one advisory lock at its beginning, for the length of the transaction, so that writers of all processes follow
each other as they do in SQLite: code that reads before it writes is free of races on both without knowing which it
runs on. Check-ins do not pay for that: hot rows are written in batches, once per process and FLUSH_SECONDS.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

if TYPE_CHECKING:
    import psycopg

# What a database that is down, restarting, full or overloaded raises. Callers are told to try again.
UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeout)
WRITE_LOCK = 0x68617773  # "haws": of the advisory locks of one database this is the writers'
READERS, POOL_SECONDS = 24, 30
_SERVER_SIDE = {  # milliseconds; a hub that hangs or vanishes must not hold up the others
    "lock_timeout": 10_000,
    "statement_timeout": 120_000,
    "idle_in_transaction_session_timeout": 120_000,
}
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000")


def described(error: BaseException) -> str:
    """What the database said, on one line."""
    told = str(getattr(error, "orig", error)).strip().splitlines()
    return told[0] if told else type(error).__name__


def sqlite(path: Path, begin: str, pool_size: int, *, foreign_keys: bool = True) -> Engine:
    """Connections to a file. `begin`: the statement that opens a transaction. `foreign_keys` False: for migrations
    alone, which rebuild tables that others refer to."""
    engine = create_engine(f"sqlite:///{path}", pool_size=pool_size, max_overflow=0, pool_timeout=POOL_SECONDS)

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun by on_begin, not by the driver
        cursor = connection.cursor()
        for pragma in (*_PRAGMAS, f"foreign_keys={'ON' if foreign_keys else 'OFF'}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def connect_arguments(url: URL) -> dict[str, Any]:
    """What psycopg is told beside the URL; what the URL itself says wins."""
    given = {
        "connect_timeout": 5,
        "application_name": "hawser-hub",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "options": " ".join(f"-c {name}={value}" for name, value in _SERVER_SIDE.items()),
    }
    return {name: value for name, value in given.items() if name not in url.query}


def plain(url: URL) -> psycopg.Connection[Any]:
    """A connection outside every pool, each statement a transaction of its own.

    Errors: psycopg.Error.
    """
    import psycopg  # a tenth of a second, which hubs over SQLite need not pay

    _, options = create_engine(url).dialect.create_connect_args(url)
    return psycopg.connect(**{**connect_arguments(url), **options}, autocommit=True)


def postgresql_readers(url: URL) -> Engine:
    """Connections whose transactions see one snapshot and change nothing."""
    return create_engine(
        url,
        pool_size=READERS,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,  # the server may have been restarted since
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
        connect_args=connect_arguments(url),
    )


def postgresql_writer(url: URL) -> Engine:
    """One connection whose transactions begin with the writers' lock."""
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args=connect_arguments(url),
    )

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")

    return engine

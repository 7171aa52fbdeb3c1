# SPDX-License-Identifier: Apache-2.0
"""The database behind two engines: readers that never wait, one writer at a time.

SQLite in WAL mode: readers see the last commit, `write()` takes the write lock at its beginning (`BEGIN IMMEDIATE`), so
that a transaction never fails half way on a lock. `synchronous=FULL`: what `write()` returned from survives loss of
power.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.orm import Session

from control_plane.errors import OperatorError
from control_plane.storage import history

history.follow()  # whoever writes machines through a Database leaves their events behind

DATABASE_FILE = "hub.db"
_MIGRATIONS = Path(__file__).parent / "migrations"


def _engine(url: str, begin: str, pool_size: int) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, pool_timeout=30)

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun by on_begin, not by the driver
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


class Database:
    """Sessions over DATA/hub.db. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        url = f"sqlite:///{path}"
        self._readers = _engine(url, "BEGIN", 16)
        self._writer = _engine(url, "BEGIN IMMEDIATE", 1)
        self._lock = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view of the last commit."""
        with Session(self._readers, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction; committed when the block ends, rolled back when it raises."""
        with self._lock, Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the schema to this version.

        Errors: OperatorError when the database is newer than this program.
        """
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with self._lock, self._writer.begin() as connection:
            if inspect(connection).has_table("alembic_version"):
                found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
                if found is not None and found not in known:
                    raise OperatorError(
                        f"The database has version {found}, which this program does not know.",
                        "Install the newer hawser-hub again, or restore the backup made before the upgrade.",
                    )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Close every connection; the last one out folds the write-ahead log into the file."""
        self._readers.dispose()
        self._writer.dispose()

# SPDX-License-Identifier: Apache-2.0
"""The database behind two engines: readers that never wait, one writer at a time (engines.py says how, for SQLite and
for PostgreSQL)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, MetaData, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from control_plane.errors import OperatorError
from control_plane.storage import archive, engines, history, notices, presence

# Whoever writes machines through a Database leaves their events behind, and tells other processes.
history.follow()
notices.follow()

DATABASE_FILE = "hub.db"
_MIGRATIONS = Path(__file__).parent / "migrations"
_BYTE_ORDER = ("C", "POSIX", "C.UTF-8", "C.utf8")


def revisions() -> tuple[str, ...]:
    """Every revision that this program knows, oldest first: what the files of the migrations are named after."""
    return tuple(sorted(path.name[:4] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")))


def _run_migrations(connection: Connection, to: str, *, down: bool = False) -> None:
    """Alembic costs a quarter of a second to import, so it is, only when there is something to migrate."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, to)


def _found_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


class Database:
    """Sessions over a SQLite file (a path) or PostgreSQL (a URL). Safe to use from several threads."""

    def __init__(self, where: Path | URL) -> None:
        self._where = where
        if isinstance(where, URL):
            self._readers = engines.postgresql_readers(where)
            self._writer = engines.postgresql_writer(where)
        else:
            self._readers = engines.sqlite(where, "BEGIN", engines.READERS)
            self._writer = engines.sqlite(where, "BEGIN IMMEDIATE", 1)
        self._lock = threading.Lock()
        self.process = 0
        """Number of this hub process among those over one PostgreSQL; 0: none, or a command."""

    @property
    def path(self) -> Path | None:
        """The file, of SQLite."""
        return None if isinstance(self._where, URL) else self._where

    @property
    def url(self) -> URL | None:
        """The address with its password, of PostgreSQL. Several processes may share what it names."""
        return self._where if isinstance(self._where, URL) else None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view of the last commit."""
        with Session(self._readers, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction; committed when the block ends, rolled back when it raises.

        Errors: engines.UNAVAILABLE. Raised by the commit itself, it leaves open whether the transaction was kept;
        every request that writes may therefore be repeated (docs/protocol.md section 6).
        """
        with self._lock, Session(self._writer, expire_on_commit=False) as session, session.begin():
            session.info[notices.PROCESS] = self.process
            yield session

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """One transaction for a whole migration: whatever interrupts it leaves the schema that was there."""
        if self.path is None:
            with self._lock, self._writer.begin() as connection:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                yield connection
            return
        engine = engines.sqlite(self.path, "BEGIN IMMEDIATE", 1, foreign_keys=False)
        try:
            with self._lock, engine.begin() as connection:
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                if broken is not None:
                    raise OperatorError(
                        f"The migration would leave rows of '{broken[0]}' without what they refer to.",
                        "Nothing was changed. Restore the last backup if the database was edited by hand.",
                    )
        finally:
            engine.dispose()

    def revision(self) -> str | None:
        """The revision of the schema; None when there are no tables yet."""
        with self._readers.connect() as connection:
            return _found_revision(connection)

    def migrate(self, to: str = "head", *, alone: bool = False) -> tuple[str | None, str]:
        """Bring the schema to a revision, up or down. Returns the one before and the one after. `alone`: refuse while
        hubs run.

        Errors: OperatorError when the database is newer than this program, or the revision is not known.
        """
        known = revisions()
        target = known[-1] if to == "head" else to
        if target not in known:
            raise OperatorError(
                f"There is no revision '{target}' of the database.", f"This program knows {', '.join(known)}."
            )
        with self._migrating() as connection:
            found = _found_revision(connection)
            if found is not None and found not in known:
                raise OperatorError(
                    f"The database has version {found}, which this program does not know.",
                    "Install the newer hawser-hub again, or restore the backup made before the upgrade.",
                )
            if alone:
                self.refuse_running(connection)
            if found != target:
                _run_migrations(connection, target, down=found is not None and known.index(found) > known.index(target))
        return found, target

    def dump(self, folder: Path) -> tuple[str | None, dict[str, int]]:
        """Every row, as of one moment, into files (archive.py). Returns the revision and the last ids given."""
        with self._readers.connect() as connection, connection.begin():
            return _found_revision(connection), archive.dump(connection, folder)

    def load(self, folder: Path, revision: str, lasts: dict[str, int], *, clear: bool) -> None:
        """Make the schema of `revision` and fill it with what `dump` wrote, in one transaction. `clear`: tables that
        are there are removed.

        Errors: OperatorError when there are tables, and `clear` is not wished, or hubs run over them.
        """
        with self._migrating() as connection:
            if _found_revision(connection) is not None:
                if not clear:
                    raise OperatorError(
                        "The database is not empty.",
                        "Name an empty one with --database, or remove its tables: --force.",
                    )
                self.refuse_running(connection)
                found = MetaData()
                found.reflect(connection)
                found.drop_all(connection)
            _run_migrations(connection, revision)
            archive.load(connection, folder, lasts)

    def refuse_running(self, connection: Connection) -> None:
        """Errors: OperatorError while processes run over this PostgreSQL. (SQLite: DATA/hub.lock.)"""
        if self.url is not None and presence.running(connection):
            raise OperatorError("Hub processes run over the database.", "Stop every one of them first.")

    def check(self) -> None:
        """Look at a PostgreSQL that is to become this hub's.

        Errors: OperatorError when it cannot be reached, or sorts texts otherwise than by their bytes: versions, names
        and pages of lists are compared in the database.
        """
        if self.url is None:
            return
        shown = self.url.render_as_string(hide_password=True)
        try:
            with self._readers.connect() as connection:
                # By JSON, for a PostgreSQL before 15 has no such column, and no database that sorts by ICU.
                encoding, collation, provider = connection.exec_driver_sql(
                    "SELECT pg_encoding_to_char(encoding), datcollate, to_jsonb(pg_database) ->> 'datlocprovider' "
                    "FROM pg_database WHERE datname = current_database()"
                ).one()
        except SQLAlchemyError as error:
            raise OperatorError(
                f"The database {shown} cannot be used ({engines.described(error)}).",
                "Check that PostgreSQL runs, and user, password and database exist.",
            ) from error
        if encoding != "UTF8" or collation not in _BYTE_ORDER or provider == "i":
            found = f"{collation}{' of ICU' if provider == 'i' else ''}"
            libc = "LOCALE_PROVIDER libc " if provider else ""
            raise OperatorError(
                f"The database {shown} has encoding {encoding} and collation {found}.",
                f"Make it with: CREATE DATABASE name TEMPLATE template0 {libc}ENCODING 'UTF8' "
                "LC_COLLATE 'C' LC_CTYPE 'C'.",
            )

    def close(self) -> None:
        """Close every connection; the last one out folds SQLite's write-ahead log into the file."""
        self._readers.dispose()
        self._writer.dispose()

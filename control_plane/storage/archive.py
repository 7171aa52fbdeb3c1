# SPDX-License-Identifier: Apache-2.0
"""All rows of a database as files, a table each, one JSON array a line: the same for SQLite and PostgreSQL, so that a
backup of one can be restored into the other. The first line names the columns. Bytes are base64.

Tables are read as the database describes them, not as models.py does: a backup belongs to its revision of the schema.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Connection, LargeBinary, MetaData, Table, func, insert, select, text

from control_plane.errors import OperatorError

SUFFIX = ".jsonl"
_VERSION = "alembic_version"
_BATCH = 500
_MAX_LINE = 64 << 20


def tables(connection: Connection) -> list[Table]:
    """Every table, those that others refer to first."""
    found = MetaData()
    found.reflect(connection)
    for table in found.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type = JSON(none_as_null=True)
    return [table for table in found.sorted_tables if table.name != _VERSION]


def dump(connection: Connection, folder: Path) -> dict[str, int]:
    """Write every table into `folder`, in the one snapshot that the connection's transaction sees. Returns the last id
    given in each table that counts, used or not: ids of rows that are gone are never given again."""
    found = tables(connection)
    for table in found:
        with (folder / f"{table.name}{SUFFIX}").open("w", encoding="ascii") as stream:
            stream.write(json.dumps([column.name for column in table.columns]) + "\n")
            for row in connection.execute(select(table).execution_options(yield_per=_BATCH)):
                stream.write(json.dumps([_plain(value) for value in row], separators=(",", ":")) + "\n")
    return {table.name: last for table in found if (last := _last(connection, table)) is not None}


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes | memoryview) else value


def _counter(table: Table) -> str | None:
    column = table.autoincrement_column
    return column.name if column is not None else None


def _last(connection: Connection, table: Table) -> int | None:
    column = _counter(table)
    if column is None:
        return None
    if connection.dialect.name == "sqlite":
        if not connection.dialect.has_table(connection, "sqlite_sequence"):
            return None
        query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        found = connection.execute(query, {"name": table.name}).scalar()
        return None if found is None else int(found)
    sequence = _sequence(connection, table, column)
    if sequence is None:
        return None
    shown = f"SELECT CASE WHEN is_called THEN last_value END FROM {sequence}"  # noqa: S608 - the server quoted it
    found = connection.execute(text(shown)).scalar()
    return None if found is None else int(found)


def _sequence(connection: Connection, table: Table, column: str) -> str | None:
    found: str | None = connection.execute(select(func.pg_get_serial_sequence(table.name, column))).scalar()
    return found


def load(connection: Connection, folder: Path, lasts: dict[str, int]) -> None:
    """Fill empty tables with what `dump` wrote.

    Errors: OperatorError when a file is not one of those, or does not fit the tables.
    """
    for table in tables(connection):
        path = folder / f"{table.name}{SUFFIX}"
        if not path.exists():
            raise OperatorError(f"The backup lacks the table '{table.name}'.", "Use another backup.")
        binary = {column.name for column in table.columns if isinstance(column.type, LargeBinary)}
        batch: list[dict[str, Any]] = []
        for row in _rows(path, table):
            batch.append({name: _value(value, name in binary) for name, value in row.items()})
            if len(batch) >= _BATCH:
                connection.execute(insert(table), batch)
                batch = []
        if batch:
            connection.execute(insert(table), batch)
        _go_on_after(connection, table, lasts.get(table.name, 0))


def _rows(path: Path, table: Table) -> Iterator[dict[str, Any]]:
    wrong = OperatorError(f"{path.name} of the backup does not fit its table.", "Use another backup.")
    with path.open(encoding="ascii") as stream:
        names = json.loads(stream.readline(_MAX_LINE) or "null")
        if not isinstance(names, list) or set(names) != {column.name for column in table.columns}:
            raise wrong
        for line in stream:
            values = json.loads(line)
            if not isinstance(values, list) or len(values) != len(names):
                raise wrong
            yield dict(zip(names, values, strict=True))


def _value(value: Any, binary: bool) -> Any:
    return base64.b64decode(value["base64"]) if binary and value is not None else value


def _go_on_after(connection: Connection, table: Table, last: int) -> None:
    column = _counter(table)
    if column is None:
        return
    highest = connection.execute(select(func.max(table.columns[column]))).scalar() or 0
    last = max(last, int(highest))
    if not last:
        return
    if connection.dialect.name != "sqlite":
        sequence = _sequence(connection, table, column)
        if sequence is not None:
            connection.execute(select(func.setval(sequence, last)))
    elif connection.dialect.has_table(connection, "sqlite_sequence"):
        values = {"name": table.name, "last": last}
        if connection.execute(text("UPDATE sqlite_sequence SET seq = :last WHERE name = :name"), values).rowcount == 0:
            connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), values)

# SPDX-License-Identifier: Apache-2.0
"""Migrations of the schema, up and down, on both databases with a hub's data in them; interrupted ones."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import JSON, Boolean, Column, Connection, Float, Integer, LargeBinary, String, insert, select

from control_plane.errors import OperatorError
from control_plane.hub import open_database
from control_plane.storage import archive, extension_models, fleet_models, resource_models
from control_plane.storage.database import Database, revisions
from control_plane.storage.models import Base
from tests.integration import hub_process
from tests.integration.hub_machine import Machine, make_csr, make_key
from tests.integration.hub_process import HubProcess
from tests.integration.postgres_server import PostgresServer

BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
MODELS = (extension_models, fleet_models, resource_models)  # imported for their tables


@pytest.fixture
def used(postgres: PostgresServer, tmp_path: Path) -> Iterator[Callable[[str], tuple[HubProcess, Machine]]]:
    """A hub on a kind of database that was in use, and its machine."""
    made: list[HubProcess] = []

    def make(kind: str) -> tuple[HubProcess, Machine]:
        options: Sequence[str] = postgres.fresh() if kind == "postgresql" else ()
        hub = hub_process.make(tmp_path / "data", *options, sqlite=kind == "sqlite").start()
        made.append(hub)
        token = hub.token(hub.principal("owner", "Owner"))
        machine = Machine(hub, "kept").connect(token, tags={"env": "prod"})
        certified = {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "settingsCsr": make_csr(make_key())}
        assert machine.post("renew", certified).status_code == 200
        assert machine.report("inventory", {"osName": "linux", "osType": "linux"}).status_code == 200
        subprocess.run(
            hub.command("user", "create", "anna", "--role", "Reader"),
            input="correct horse battery staple\n",
            text=True,
            check=True,
            capture_output=True,
            cwd=hub_process.REPOSITORY,
        )
        assert hub.stop() == 0
        return hub, machine

    yield make
    for hub in made:
        hub.stop()


def _rows(hub: HubProcess) -> list[tuple[object, ...]]:
    return hub.rows("SELECT name, vm_id, client_id FROM machines ORDER BY id")


@BOTH
def test_every_revision_down_and_up_again(kind: str, used: Callable[[str], tuple[HubProcess, Machine]]) -> None:
    hub, machine = used(kind)
    before = _rows(hub)
    keys = hub.rows("SELECT key FROM settings_certificates")
    assert len(str(keys[0][0])) == 64
    known = revisions()
    planned = hub.json("migrate", "--to", known[0], "--dry-run")
    assert planned["changed"] is False
    assert planned["steps"] == list(reversed(known[1:]))
    database = open_database(hub.data)
    try:
        for revision in (*reversed(known[:-1]), *known[1:]):
            database.migrate(revision)
            assert database.revision() == revision
            assert _rows(hub) == before
            database.migrate(revision)
        with database._readers.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert hub.rows("SELECT key FROM settings_certificates") == keys, "found again in the certificates"
        with pytest.raises(OperatorError, match="no revision '0815'"):
            database.migrate("0815")
    finally:
        database.close()
    hub.start()
    assert hub.run("migrate", "--to", known[0], "--yes", check=False).returncode == 1, "not while a hub runs"
    machine.http.close()
    assert machine.checkin().status_code == 200
    assert hub.rows("SELECT coalesce(sum(conflicts), 0) FROM heartbeats") == [(0,)]


def _value(connection: Connection, column: Column[Any]) -> Any:
    """Something that a column can hold."""
    for foreign in column.foreign_keys:
        return connection.execute(select(foreign.column).limit(1)).scalar_one()
    if column.name == "status":
        return "Succeeded"  # on the way down from 0007 operations that have not succeeded go
    kinds: dict[type[Any], Any] = {
        JSON: {"kept": ["ä", 1, None]},
        LargeBinary: bytes(range(256)),
        Boolean: True,
        Integer: 7,
        Float: 0.5,
    }
    for kind, value in kinds.items():
        if isinstance(column.type, kind):
            return value
    assert isinstance(column.type, String)
    return f"{column.table.name} {column.name}"[: column.type.length]


def _fill(database: Database) -> None:
    """A row in each table that has none."""
    with database.write() as session:
        connection = session.connection()
        for table in Base.metadata.sorted_tables:
            if connection.execute(select(table).limit(1)).first() is None:
                given = [column for column in table.columns if column is not table.autoincrement_column]
                row = {column.name: _value(connection, column) for column in given}
                connection.execute(insert(table), row)


def _everything(database: Database) -> dict[str, tuple[set[str], list[dict[str, Any]]]]:
    """Columns and rows of each table."""
    with database.read() as session:
        connection = session.connection()
        return {
            table.name: ({*table.columns.keys()}, [dict(row) for row in connection.execute(select(table)).mappings()])
            for table in archive.tables(connection)
        }


@BOTH
def test_what_two_revisions_know_survives_between_them(
    kind: str, used: Callable[[str], tuple[HubProcess, Machine]]
) -> None:
    """Every table has rows. Of the tables and columns on both sides of a step none changes."""
    hub, _ = used(kind)
    known = revisions()
    database = open_database(hub.data)
    try:
        _fill(database)
        before = _everything(database)
        assert all(rows for _, rows in before.values())
        for revision in (*reversed(known[:-1]), *known[1:]):
            database.migrate(revision)
            after = _everything(database)
            for name in before.keys() & after.keys():
                columns = sorted(before[name][0] & after[name][0])
                was, is_now = (
                    sorted(([row[column] for column in columns] for row in side[name][1]), key=repr)
                    for side in (before, after)
                )
                assert is_now == was, (revision, name)
            before = after
    finally:
        database.close()


@BOTH
def test_an_older_schema_is_named_and_the_way_down_is_asked_about(
    kind: str, used: Callable[[str], tuple[HubProcess, Machine]]
) -> None:
    hub, _ = used(kind)
    known = revisions()
    assert "lose" in hub.run("migrate", "--to", known[-3], "--dry-run").stdout
    refused = hub.run("migrate", "--to", known[-3], check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"what only {known[-2]}, {known[-1]} know" in refused.stderr
    assert "--yes" in refused.stderr
    assert hub.json("migrate", "--dry-run")["from"] == known[-1]
    assert hub.json("migrate", "--to", known[0], "--yes")["changed"] is True
    for command in (
        ("machines",),
        ("twins",),
        ("user", "list"),
        ("audit",),
        ("principal", "create", "x", "--role", "Owner"),
    ):
        older = hub.run(*command, check=False)
        assert older.returncode == 1
        assert f"has revision {known[0]}" in older.stderr
        assert "run `hawser-hub migrate`" in older.stderr
        assert len(older.stderr.splitlines()) == 2
    hub.run("backup", hub.data.parent / "older.tar.gz")
    assert hub.json("migrate")["loses"] is False
    assert "kept" in hub.run("machines").stdout


@BOTH
def test_times_after_2038_and_bytes_and_json_are_kept(
    kind: str, used: Callable[[str], tuple[HubProcess, Machine]]
) -> None:
    hub, _ = used(kind)
    late = 4_102_444_800  # 2100-01-01
    hub.execute("UPDATE heartbeats SET seen = :late", late=late)
    hub.execute("UPDATE audiences SET created = :late", late=late)
    assert hub.rows("SELECT seen FROM heartbeats") == [(late,)]
    (tags,) = hub.rows("SELECT CAST(tags AS VARCHAR(100)) FROM machines")
    assert tags == ('{"env": "prod"}',)
    ((digest,),) = hub.rows("SELECT digest FROM principal_secrets")
    assert len(bytes(digest)) == 32


@BOTH
def test_a_killed_migration_leaves_one_of_the_two_schemas(
    kind: str, used: Callable[[str], tuple[HubProcess, Machine]]
) -> None:
    hub, _ = used(kind)
    before = _rows(hub)
    known = revisions()
    for number in range(6):
        target = known[0] if number % 2 == 0 else known[-1]
        process = subprocess.Popen(
            hub.command("migrate", "--to", target, "--yes"),
            cwd=hub_process.REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.6 + 0.15 * number)
        process.kill()
        process.wait()
        database = open_database(hub.data)
        try:
            assert database.revision() in (known[0], known[-1])
            database.migrate(target)
            assert _rows(hub) == before
        finally:
            database.close()

# SPDX-License-Identifier: Apache-2.0
"""The schema: what holds a time is wide enough for it; revisions are known, and rows counted, without alembic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer
from sqlalchemy.dialects import postgresql

from control_plane import storage
from control_plane.storage import extension_models, fleet_models, resource_models, twin_models
from control_plane.storage.database import Database, revisions
from control_plane.storage.models import TIME, Base

MODELS = (extension_models, fleet_models, resource_models, twin_models)  # imported for their tables
# Every whole number that is no time. Whoever adds a column says here that it is none, or gives it TIME.
NUMBERS = {
    *("id", "number", "slot", "group_id", "machine_id"),
    *("epoch", "trust_generation", "conflicts", "tries", "dropped"),
    *("uses", "asked", "twin_id"),
    *("resource_id", "sequence", "generation"),
    *("span", "connected", "disconnected", "expired", "awaiting"),
}
ROOT = Path(__file__).resolve().parents[3]


def _whole() -> list[Column[object]]:
    """Columns of whole numbers, of every table."""
    tables = Base.metadata.sorted_tables
    return [column for table in tables for column in table.columns if isinstance(column.type, Integer)]


def test_every_time_has_64_bits_on_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    narrow = {
        str(column) for column in _whole() if column.name not in NUMBERS and column.type.compile(dialect) != "BIGINT"
    }
    assert narrow == set(), "give these TIME, or name them in NUMBERS"
    assert {column.name for column in _whole()} >= NUMBERS, "a name that no column has any more"
    assert not any(column.type is TIME for column in _whole() if column.name in NUMBERS)


def test_revisions_are_those_that_alembic_finds(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(storage.__file__).parent / "migrations"))
    walked = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert revisions() == tuple(reversed(walked))
    database = Database(tmp_path / "hub.db")
    assert database.revision() is None
    assert database.migrate() == (None, revisions()[-1])
    assert database.migrate() == (revisions()[-1], revisions()[-1])
    database.close()


def test_a_database_that_is_current_is_opened_without_alembic_or_another_driver(tmp_path: Path) -> None:
    database = Database(tmp_path / "hub.db")
    database.migrate()
    database.close()
    program = (
        "import sys, pathlib\n"
        "from control_plane.hub import Database\n"
        "Database(pathlib.Path(sys.argv[1])).migrate()\n"
        "print(*sorted({'alembic', 'psycopg'} & set(sys.modules)))\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "hub.db")]
    done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""

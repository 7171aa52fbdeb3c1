# SPDX-License-Identifier: Apache-2.0
"""Lane postgresql: the tests of the hub and of its page, which run over SQLite every day, again with every hub of
theirs over PostgreSQL. A new file takes part by its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTEGRATION = ROOT / "tests" / "integration"
# Nothing would be shown by these. What is about SQLite in other files says `sqlite=True` where it makes its hub.
APART = {
    "test_hub_backup.py": "on both every day",
    "test_hub_package.py": "boots a host; its hub is over SQLite",
    "test_hub_postgres_processes.py": "on PostgreSQL every day",
    "test_hub_rights.py": "asks within the test's process, over SQLite",
    "test_hub_storage_faults.py": "on both every day",
    "test_hub_storage_migrations.py": "on both every day",
}
FILES = sorted(
    {path.name for name in ("test_hub_*.py", "test_web*.py") for path in INTEGRATION.glob(name)} - set(APART)
)


@pytest.mark.lane("postgresql")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FILES)
def test_the_same_tests_pass_over_postgresql(name: str) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--database", "postgresql"]
    done = subprocess.run([*argv, str(INTEGRATION / name)], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.lane("postgresql")
def test_what_stands_apart_is_there() -> None:
    assert all((INTEGRATION / name).exists() for name in APART)

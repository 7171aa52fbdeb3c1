# SPDX-License-Identifier: Apache-2.0
"""Lane postgresql: the tests of the hub and of its page, which run over SQLite every day, again with every hub of
theirs over PostgreSQL. A new file takes part by its name; those in ALSO have a hub, and another name."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTEGRATION = ROOT / "tests" / "integration"
# Nothing would be shown by these. What is about SQLite in other files says `sqlite=True` where it makes its hub.
APART = {
    "test_hub_backup.py": "on both every day",
    "test_hub_package.py": "boots a host; its hub is over SQLite",
    "test_hub_postgres_processes.py": "on PostgreSQL every day",
    "test_hub_storage_database.py": "on PostgreSQL every day",
    "test_hub_storage_faults.py": "on both every day",
    "test_hub_storage_migrations.py": "on both every day",
}
ALSO = {
    "test_artefacts.py",
    "test_oidc_sign_in.py",
    "test_restored_hub_agent.py",
    "test_support_window.py",
    "test_trust_rotation.py",
}
FILES = sorted(
    {path.name for name in ("test_hub_*.py", "test_web*.py") for path in INTEGRATION.glob(name)} - set(APART) | ALSO
)


@pytest.mark.lane("postgresql")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FILES)
def test_the_same_tests_pass_over_postgresql(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hawser-pg-") as folder:
        base = Path(folder) / "t"
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--database", "postgresql"]
        argv += ["--basetemp", str(base), str(INTEGRATION / name)]
        done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert " passed" in done.stdout
        # There were hubs, and none of them opened a SQLite file.
        assert list(base.rglob("hub.json"))
        assert not list(base.rglob("hub.db"))


@pytest.mark.lane("postgresql")
def test_what_stands_apart_is_there() -> None:
    assert all((INTEGRATION / name).exists() for name in (*APART, *ALSO))

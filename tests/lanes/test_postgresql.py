# SPDX-License-Identifier: Apache-2.0
"""Lane postgresql: tests that every day run over SQLite, again with every hub of theirs over PostgreSQL. (Migrations,
backups, faults of storage and several processes run over PostgreSQL every day.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What each says of the database that the other files do not.
FILES = {
    "test_hub_api_events.py": "events, counts over time, server-sent events",
    "test_hub_api_fleet.py": "fleet queries: every filter, order and page",
    "test_hub_arm.py": "machines and groups: conflicts, patches, deletion",
    "test_hub_arm_resources.py": "further resources, locks, tags, operations, filters, pages",
    "test_hub_audit.py": "the audit: append-only, queries",
    "test_hub_channel.py": "enrolment, check-ins, reports, tickets, the batch writer",
    "test_hub_cleanup.py": "rules for stale machines, leases",
    "test_hub_notify.py": "the outbox",
    "test_hub_people.py": "users, sessions",
}


@pytest.mark.lane("postgresql")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FILES)
def test_the_same_tests_pass_over_postgresql(name: str) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--database", "postgresql"]
    done = subprocess.run(
        [*argv, str(ROOT / "tests" / "integration" / name)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout

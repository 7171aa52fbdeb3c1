# SPDX-License-Identifier: Apache-2.0
"""Lane molecule: the scenario on real hosts, from a check on fresh ones to the removal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.lane("molecule")
@pytest.mark.timeout(900)
def test_the_default_scenario(hosts_possible: None, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [str(programs / "molecule"), "test"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "ANSIBLE_HOME": str(tmp_path / "ansible")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]

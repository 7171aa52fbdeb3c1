# SPDX-License-Identifier: Apache-2.0
"""Lane molecule: all scenarios on real hosts, which are booted once for all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.lane("molecule")
@pytest.mark.timeout(1500)
def test_all_scenarios(hosts_possible: None, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [str(programs / "molecule"), "test", "--all"],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "ANSIBLE_HOME": str(tmp_path / "ansible"),
            "NO_COLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    # The recap: `name : actions=5  successful=5 …`.
    recap = re.findall(r"^(\w+) +: actions=(\d+)", done.stderr, re.MULTILINE)
    ran = {name for name, actions in recap if int(actions) > 1}
    assert ran == {scenario.name for scenario in (ROOT / "molecule").iterdir()}, done.stderr[-3000:]

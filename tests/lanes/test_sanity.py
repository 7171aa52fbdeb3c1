# SPDX-License-Identifier: Apache-2.0
"""Lane sanity: every test of `ansible-test sanity` that this version has, on a copy of what Galaxy would ship.

Its requirements come from PyPI. Only the script that would put pip into its environments comes from a host of the
vendor's own; the copy of pip that Python brings takes its place, as ansible-test offers for such networks.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.lanes import clients, cores

pytestmark = [pytest.mark.lane("sanity"), pytest.mark.timeout(1800)]
SHIPPED = ("CHANGELOG.rst", "LICENSES", "README.md", "changelogs", "docs/collection.md", "docs/docsite", "galaxy.yml",
           "meta", "playbooks", "plugins", "roles", "tests/sanity")  # fmt: skip
PIP = "import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n"
# Their environments are large and kept; they know themselves when they are out of date.
HOME = clients.ROOT / ".cache" / "ansible-test"


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sanity") / "ansible_collections/hawser/machine"
    listed = subprocess.run(["git", "ls-files", "-z", *SHIPPED], cwd=clients.ROOT, check=True, capture_output=True)
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (clients.ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes((clients.ROOT / name).read_bytes())
    return place


def _bring_pip(programs: Path) -> None:
    """Put our script where this version of ansible-test looks for a downloaded one."""
    (source,) = programs.parent.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py")
    found = re.search(r"pip='([0-9.]+)'", source.read_text())
    assert found, "ansible-test keeps the version of pip elsewhere now"
    cached = HOME / ".ansible/test/cache" / f"get_pip_{found.group(1).replace('.', '_')}.py"
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_text(PIP)


# The pre-release of 2.22 takes one requirement of pylint from a source host, not from PyPI.
NOT_HERE = {"core222": ["pylint"]}


@pytest.mark.parametrize("core", cores.CORES)
def test_sanity(collection: Path, core: str) -> None:
    programs = cores.programs(core)
    _bring_pip(programs)
    left_out = NOT_HERE.get(core, [])
    argv = [str(programs / "ansible-test"), "sanity", "--python", cores.CORES[core], "--requirements", "--color", "no"]
    done = subprocess.run(
        [*argv, *(word for name in left_out for word in ("--skip-test", name))],
        cwd=collection,
        env={"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(HOME), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    ran = set(re.findall(r'^Running sanity test "([a-z0-9-]+)"', done.stdout, re.MULTILINE))
    assert ran >= {"ansible-doc", "compile", "import", "pep8", "pylint", "runtime-metadata", "validate-modules"} - set(
        left_out
    )
    assert "import" not in re.findall(r"^WARNING: Skipping sanity test \"([a-z0-9-]+)\"", done.stdout, re.MULTILINE)

# SPDX-License-Identifier: Apache-2.0
"""Lane docs: the documentation of the collection, linted and built by antsibull-docs down to pages without a warning.

The pages stay in .cache/docs/html.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lanes import clients

pytestmark = [pytest.mark.lane("docs"), pytest.mark.timeout(600)]
PLACE = clients.ROOT / ".cache" / "docs"
CONF = """
project = "hawser.machine"
extensions = ["sphinx_antsibull_ext"]
html_theme = "alabaster"
# Documentation of ansible-core and of other collections is not part of this build.
suppress_warnings = ["ref.ref"]
"""


@pytest.fixture(scope="module")
def programs() -> Path:
    return clients.environment("docs", clients.newest_python("3.11"))


@pytest.fixture(scope="module")
def place() -> Path:
    shutil.rmtree(PLACE, ignore_errors=True)
    hawser = PLACE / "collections/ansible_collections/hawser"
    hawser.mkdir(parents=True)
    (hawser / "machine").symlink_to(clients.ROOT)
    return PLACE


def run(programs: Path, place: Path, program: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(programs / program), *argv],
        cwd=clients.ROOT,
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(place),
            "LANG": "C.UTF-8",
            "ANSIBLE_HOME": str(place / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(place / "collections"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_plugins_roles_and_guides_are_documented_well(programs: Path, place: Path) -> None:
    done = run(programs, place, "antsibull-docs", "lint-collection-docs", "--plugin-docs",
               "--validate-collection-refs=self", ".")  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_pages_are_built(programs: Path, place: Path) -> None:
    source = place / "rst"
    source.mkdir()
    done = run(programs, place, "antsibull-docs", "collection", "--use-current", "--squash-hierarchy",
               "--fail-on-error", "--dest-dir", str(source), "hawser.machine")  # fmt: skip
    assert done.returncode == 0, done.stdout
    for kind, folder in (("module", "modules"), ("inventory", "inventory"), ("lookup", "lookup"), ("filter", "filter")):
        for path in (clients.ROOT / "plugins" / folder).glob("*.py"):
            assert (source / f"{path.stem}_{kind}.rst").is_file()
    for role in (clients.ROOT / "roles").iterdir():
        assert (source / f"{role.name}_role.rst").is_file()
    (source / "conf.py").write_text(CONF)
    done = run(programs, place, "sphinx-build", "-q", "-W", "--keep-going", str(source), str(place / "html"))
    assert done.returncode == 0, done.stdout
    page = (place / "html/machines_inventory.html").read_text()
    assert "any_unparsed_is_failed" in page

# SPDX-License-Identifier: Apache-2.0
"""Packages from the operator's hands to a machine: real commands, a real hub, the agent's real workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import hub_process
from tests.integration.artefact_site import Site, make_package, work


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = hub_process.make(tmp_path / "hub").start()
    found = Site(made, tmp_path / "keys", tmp_path / "machine")
    found.begin()
    yield found
    assert made.stop() == 0


def test_a_package_goes_from_the_operator_to_a_machine(site: Site, tmp_path: Path) -> None:
    target = site.offer(make_package(tmp_path / "demo.zip"))
    assert target == "extensions/Hawser.Demo/1.0.0/linux.zip"
    got = site.fetch(target)
    assert Path(got["path"]).read_bytes() == (tmp_path / "demo.zip").read_bytes()
    assert got["custom"] == {
        "kind": "extension",
        "publisher": "Hawser",
        "type": "Demo",
        "version": "1.0.0",
        "os": "linux",
        "arch": "any",
        "supportsMultipleExtensions": False,
    }
    into = tmp_path / "waagent" / "Hawser.Demo-1.0.0"
    assert work("unpack-package", {"archive": got["path"], "into": str(into), "limit": 1 << 20})["files"] == 2
    assert json.loads((into / "HandlerManifest.json").read_text())[0]["signingInfo"]["type"] == "Demo"
    assert (into / "run.sh").stat().st_mode & 0o100

# SPDX-License-Identifier: Apache-2.0
"""Lane kills, extensions: extd itself is killed with -9 at random moments of an extension's whole life. What was
finished is never done again but enable, and nothing is lost. (Packages come from a folder; commands are real.)"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.unit.agent_extensions.kit import COMMANDS, Extd, Hub, Site, wish
from tests.waiting import until

pytestmark = [pytest.mark.lane("kills"), pytest.mark.timeout(600)]
LIVES, KILLS = 40, 3
# Seconds; longer than any of the three changes takes when nothing disturbs it.
LONGEST = 1.5
OLD, NEW = "1.0.0", "1.0.1"


def life(site: Site, kills: int, dice: random.Random) -> list[str]:
    """Installed, updated, removed, with so many kills in each of the three; what was called, without enable."""
    site.package(OLD)
    site.package(NEW)
    for verb in COMMANDS:
        site.way(verb, "sleep 0.1")
    with Hub(site) as hub:
        for version in (OLD, NEW, None):
            hub.give(site.document(wish(version=version)) if version else site.document())
            for _ in range(kills):
                with Extd(site) as extd:
                    time.sleep(dice.uniform(0, LONGEST))
                    extd.kill()
            with Extd(site) as extd:
                if version:
                    hub.wait("fake", "succeeded", version=version)
                else:
                    hub.gone("fake")
                until(lambda: not (site.folder("extensions") / "plan.json").exists(), "all is done")
                extd.kill()
    assert site.record() is None
    assert not site.folder_of(OLD).exists()
    assert not site.folder_of(NEW).exists()
    return [call for call in site.calls() if not call.startswith("enable ")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return life(Site(tmp_path_factory.mktemp("undisturbed")), 0, random.Random(0))


@pytest.mark.parametrize("seed", range(LIVES))
def test_a_killed_extd_loses_and_repeats_nothing(tmp_path: Path, undisturbed: list[str], seed: int) -> None:
    assert {call.split()[0] for call in undisturbed} >= {"install", "update", "disable", "uninstall"}
    assert life(Site(tmp_path), KILLS, random.Random(seed)) == undisturbed

# SPDX-License-Identifier: Apache-2.0
"""Lane clones: a machine that was connected by mistake and copied ten times, and a sealed image booted forty times, on
real hosts."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import Lab
from tests.integration import cloned_hosts
from tests.integration.cloned_hosts import Ground, state

pytestmark = [pytest.mark.lane("clones"), pytest.mark.timeout(1500)]


@pytest.fixture
def ground(
    make_lab: Callable[..., Lab], agent_deb: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Ground]:
    with cloned_hosts.ground(make_lab, agent_deb, tmp_path) as made:
        yield made
        made.lab.stop()
        for what, seconds in made.seconds.items():
            middle, last = statistics.median(seconds), max(seconds)
            line = f"{len(seconds)} {what}: half of them after {middle:.1f} s, the last after {last:.1f} s"
            with capfd.disabled():
                sys.stdout.write(f"\n{line}\n")


def test_ten_clones_with_the_default_profile_are_quarantined(ground: Ground) -> None:
    image = cloned_hosts.copied_by_mistake(ground)
    clones = cloned_hosts.quarantined_by_default(ground, image, 10)
    # An operator may still let them go on, as machines of their own.
    for twin in ground.hub.json("twins"):
        ground.hub.run("twins", "adopt", str(twin["id"]))
    for clone in clones:
        clone.run(["systemctl", "restart", "himdsd.service"])
    ground.wait("adopted by an operator", clones, cloned_hosts.is_connected, 300)
    assert len({state(clone)["resourceName"] for clone in clones} | {"web01"}) == 11


def test_ten_clones_with_a_profile_that_adopts_get_names_of_their_own(ground: Ground) -> None:
    image = cloned_hosts.copied_by_mistake(ground)
    cloned_hosts.adopted_by_themselves(ground, image, 10)


def test_a_sealed_image_gives_forty_machines(ground: Ground) -> None:
    image = cloned_hosts.sealed_image(ground, uses=40)
    cloned_hosts.joined_by_themselves(ground, image, 40)

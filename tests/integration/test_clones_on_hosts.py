# SPDX-License-Identifier: Apache-2.0
"""Copies of real hosts, a few of each kind: clones of a machine that was connected by mistake, machines of a sealed
image, and what an uninstalled agent leaves on a disk. The lane `clones` has tens of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import Lab
from tests.integration import cloned_hosts
from tests.integration.cloned_hosts import ORIGINAL, Ground, state
from tests.integration.connected_host import connect
from tests.integration.hub_process import REPOSITORY

pytestmark = pytest.mark.hosts


@pytest.fixture
def ground(make_lab: Callable[..., Lab], agent_deb: Path, tmp_path: Path) -> Iterator[Ground]:
    with cloned_hosts.ground(make_lab, agent_deb, tmp_path) as made:
        yield made
        made.lab.stop()


def test_clones_of_a_connected_machine(ground: Ground) -> None:
    image = cloned_hosts.copied_by_mistake(ground)
    clones = cloned_hosts.quarantined_by_default(ground, image, 2)
    cloned_hosts.adopted_by_themselves(ground, image, 2)
    # Those that were quarantined are until somebody decides, or they ask again.
    assert {state(clone)["identityState"] for clone in clones} == {"quarantined"}


def test_machines_of_a_sealed_image(ground: Ground) -> None:
    image = cloned_hosts.sealed_image(ground, uses=2)
    cloned_hosts.joined_by_themselves(ground, image, 2)
    # The token was good for two.
    (third,) = ground.copies("late", image, 1, healthy=False)
    unit = ["systemctl", "show", "--property=Result", "--value", "azcmagent-specialise.service"]
    ground.wait("refused", [third], lambda _: third.run(unit).output.strip() == "exit-code", 60)
    assert state(third)["identityState"] == "disconnected"
    assert "this image's enrolment token is spent" in third.run(["journalctl", "--unit=azcmagent-specialise"]).output
    assert len(ground.machines()) == 2
    # The template itself stays what it is, however often it is booted.
    ground.lab.power_on(ORIGINAL)
    assert state(ground.original)["identityState"] == "sealed"


def test_what_an_uninstalled_agent_leaves_is_named(ground: Ground) -> None:
    connect(ground.original, ground.hub, ground.owner, "servers")
    ground.original.run(["apt-get", "remove", "--yes", "azcmagent"])
    ground.lab.power_off(ORIGINAL)
    disk = str(ground.original.root)
    command = [sys.executable, "-m", "agent_runtime.cli", "seal", "--check", "--root", disk, "--json"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 27, found.stdout + found.stderr
    told = json.loads(found.stdout)
    assert "/var/opt/azcmagent/certs/identity-1.key" in {item["path"].removeprefix(disk) for item in told["wouldClear"]}
    assert "an agent that was uninstalled has left a cloning hazard" in told["error"]["message"]

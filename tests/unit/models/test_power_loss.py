# SPDX-License-Identifier: Apache-2.0
"""The agent's steps on a disk that loses what was not synced: one state, one identity, never two, never a lost one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from agent_runtime.state import atomic
from tests.models import agent_life, disk, power_loss
from tests.models.power_loss import STEPS, Step

# `make bench` loses the power 10,000 times.
CRASHES = 120


@pytest.fixture(autouse=True)
def texts_for_keys() -> Iterator[None]:
    with agent_life.at_speed():
        yield


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("disk") / "root")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_without_a_crash_does_what_it_should(step: Step, folder: str) -> None:
    life = step.begin(folder)
    with life.recorded() as recorder:
        step.act(life)
    assert disk.completed(recorder.start, recorder.ops) == disk.read(folder)
    assert life.found() == step.does
    assert life.faults() == []


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_power_lost_at_any_point_of_a_step_leaves_one_identity(step: Step, folder: str) -> None:
    told = power_loss.run(step, folder, CRASHES, random.Random(f"power {step.name}"))
    assert told.faults == []
    assert told.crashes == CRASHES
    assert told.ends.keys() == set(step.ends)


@pytest.mark.parametrize("broken", power_loss.BROKEN, ids=lambda broken: broken.name)
def test_a_broken_step_is_caught(broken: power_loss.Broken, folder: str) -> None:
    step = next(step for step in STEPS if step.name == broken.step)
    with broken.applied():
        told = power_loss.run(step, folder, 1000, random.Random(f"broken {broken.name}"), until_fault=True)
    assert told.faults, f"{broken.name}: the model did not see it"


def test_a_lost_write_a_lost_name_and_zeros_all_occur(folder: str) -> None:
    """The disk of this model is as bad as it claims to be."""
    disk.write(folder, {"a": b"old"})
    recorder = disk.Recorder(folder)
    with recorder.recording():
        power_loss.careless(f"{folder}/a", b"new")
    dice = random.Random(1)
    found = {disk.survivors(recorder.start, recorder.ops, dice).get("a") for _ in range(200)}
    assert found == {b"old", b"new", b"", b"\0\0\0"}


def test_what_was_synced_is_there(folder: str) -> None:
    disk.write(folder, {"a": b"old"})
    recorder = disk.Recorder(folder)
    with recorder.recording():
        atomic.write_bytes(f"{folder}/a", b"new")
    dice = random.Random(1)
    assert all(disk.survivors(recorder.start, recorder.ops, dice)["a"] == b"new" for _ in range(200))
    for cut in range(len(recorder.ops)):
        for _ in range(50):
            assert disk.survivors(recorder.start, recorder.ops[:cut], dice)["a"] in (b"old", b"new")

# SPDX-License-Identifier: Apache-2.0
"""A connect that fails half-way: what stays at the hub and on the machine goes together, and the next one succeeds."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

from agent_runtime import errors
from agent_runtime.cli import binding
from agent_runtime.hub.client import HubRefusal
from agent_runtime.state import atomic
from tests.models import agent_life, power_loss
from tests.models.agent_life import CLOUD, GROUP, SUBSCRIPTION, TENANT, Life

PLACE: dict[str, Any] = {
    "cloud": CLOUD,
    "tenant_id": TENANT,
    "subscription_id": SUBSCRIPTION,
    "resource_group": GROUP,
    "location": "local",
    "name": "web01",
    "tags": {},
    "correlation_id": None,
}


@pytest.fixture(autouse=True)
def texts_for_keys() -> Iterator[None]:
    with agent_life.at_speed():
        yield


async def away(*_: Any) -> Any:
    raise HubRefusal(503, "ServiceUnavailable", "The hub is restarted.")


def connect(life: Life, himds: Any = None) -> dict[str, Any]:
    """`azcmagent connect`, after a start of himds."""
    return binding.connect(life._session(himds or life.himds()), PLACE, "token", lambda *_: None)


@pytest.fixture
def life(tmp_path: Any) -> Life:
    return power_loss._unsealed(str(tmp_path / "root"))


@pytest.mark.parametrize("failing", ["enrol", "begin_checkin"])
def test_a_copy_whose_machine_stays_at_the_hub_joins_as_that_machine(
    life: Life, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(agent_life.Hub, failing, away)
        broken.setattr(agent_life.Hub, "delete_machine", away)
        for _ in range(2):
            with pytest.raises(errors.AgentError):
                life.specialise()
    assert len(life.memory.machines) == 1
    life.specialise()
    assert (life.found(), len(life.memory.machines), life.faults()) == ("connected", 1, [])


def test_a_machine_that_could_not_be_deleted_again_is_connected_as_the_same(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(agent_life.Hub, "enrol", away)
        with pytest.raises(errors.NetworkFailed):
            connect(life)
        assert (life.memory.machines, os.path.exists(life.paths.binding)) == ({}, False)
        broken.setattr(agent_life.Hub, "delete_machine", away)
        with pytest.raises(errors.NetworkFailed):
            connect(life)
    (left,) = life.memory.machines.values()
    assert connect(life)["vmId"] == left["vmId"]
    assert life.faults() == []


def test_a_himds_that_goes_away_after_a_refusal_hides_no_reason(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    himds = life.himds()
    answers = [himds.status()]

    def status() -> dict[str, Any]:
        if not answers:
            raise errors.HimdsUnreachable("himds is not running")
        return answers.pop()

    monkeypatch.setattr(himds, "status", status)
    monkeypatch.setattr(agent_life.Hub, "enrol", away)
    with pytest.raises(errors.NetworkFailed):
        connect(life, himds)
    assert os.path.exists(life.paths.binding), "whether the attempt has ended is not known"


def test_the_key_of_an_attempt_for_another_machine_is_not_used(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(agent_life.Hub, "enrol", away)
        broken.setattr(agent_life.Hub, "delete_machine", away)
        with pytest.raises(errors.NetworkFailed):
            connect(life)
    monkeypatch.setitem(PLACE, "name", "web02")
    connect(life)
    first, second = (life.memory.machines[name] for name in ("web01", "web02"))
    assert first["vmId"] != second["vmId"]
    assert first["key"] != second["key"]
    assert life.faults() == []


def test_a_machine_that_the_hub_has_enrolled_before_has_the_slot_that_it_says(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_life.Hub, "first_slot", 2)
    connect(life)
    assert sorted(os.listdir(life.paths.certs)) == ["identity-2.crt", "identity-2.key"]
    life.himds().beat()
    assert life.faults() == []


def test_the_binding_of_a_connection_that_has_ended_is_not_used_again(life: Life) -> None:
    """The command line was killed while it disconnected, and himds went on."""
    himds = life.himds()
    first = connect(life, himds)["vmId"]
    left = atomic.read_json(life.paths.binding)
    nobody: Any = None
    himds.drive(himds._disconnect(nobody, {"accessToken": "token"}, nobody))
    assert atomic.read_json(life.paths.binding) == left
    assert connect(life, himds)["vmId"] != first
    assert life.faults() == []


def test_a_connected_machine_keeps_its_binding(life: Life) -> None:
    connect(life)
    before = atomic.read_json(life.paths.binding)
    with pytest.raises(errors.AlreadyConnected, match="web01"):
        connect(life)
    assert atomic.read_json(life.paths.binding) == before


def test_a_failure_that_the_full_disk_has_no_room_for_is_written_down_later(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    himds = life.himds()
    real = atomic.write_json

    def full(path: str, value: Any, *more: Any, **named: Any) -> None:
        if path == life.paths.identity and value["state"] == "disconnected":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        real(path, value, *more, **named)

    with monkeypatch.context() as broken:
        broken.setattr(agent_life.Hub, "enrol", away)
        broken.setattr(atomic, "write_json", full)
        with pytest.raises(errors.NetworkFailed):
            connect(life, himds)
        assert himds.state == "connecting"
        with pytest.raises(AssertionError, match="waits for something"):
            himds.drive(himds._after_failure(False))
    himds.drive(himds._after_failure(False))
    assert himds.state == "disconnected"
    connect(life, himds)
    assert life.faults() == []

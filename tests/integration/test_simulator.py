# SPDX-License-Identifier: Apache-2.0
"""The simulator of machines against a real hub: enrolment, life, trouble, a hub that is killed, a state file."""

from __future__ import annotations

import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulator import Fleet, Pace, Refusal, background
from tests.integration import hub_process
from tests.integration.hub_process import HubProcess

QUICK = Pace(first=0.2, last=1.0, hold=2, gone=30.0)


@pytest.fixture(scope="module")
def onboarding(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("simulator", "Onboarding")


@pytest.fixture
def make_fleet(hub: HubProcess, onboarding: dict[str, Any]) -> Callable[..., Fleet]:
    def make(group: str, count: int, pace: Pace = QUICK) -> Fleet:
        return Fleet(
            hub.url, hub.ca_file, hub.tenant_id, hub.subscription_id, group, onboarding, count, pace=pace, keys=2
        )

    return make


def shown(hub: HubProcess, token: str, fleet: Fleet) -> dict[str, str]:
    """Status of each machine of a fleet at ARM."""
    path = (
        f"/subscriptions/{fleet.subscription}/resourceGroups/{fleet.group}/providers/Microsoft.HybridCompute/machines"
    )
    answer = hub.session().get(
        f"{hub.url}{path}",
        params={"api-version": "2026-07-15"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    return {row["name"]: row["properties"]["status"] for row in answer.json()["value"]}


def test_a_fleet_connects_and_holds_its_check_ins(hub: HubProcess, make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet("sim-life", 6)
    owner = hub.token(hub.principal("sim-reader", "Owner"))
    with background() as call:
        assert call(fleet.enrol()) > 0
        since = time.time()
        assert call(fleet.run(20, until=lambda: fleet.beaten_since(since) == 6))
    told = fleet.summary()
    assert told["states"] == {"connected": 6}
    assert told["connected"] == 6
    assert (told["unexpected"], told["broken"], told["codes"]) == (0, 0, {})
    assert set(shown(hub, owner, fleet).values()) == {"Connected"}
    assert len(shown(hub, owner, fleet)) == 6
    # Each with its own identity, though keys are shared.
    assert len({machine.seen.identity["clientId"] for machine in fleet.machines}) == 6


def test_a_change_at_the_hub_reaches_the_machine_that_waits(
    hub: HubProcess, make_fleet: Callable[..., Fleet], onboarding: dict[str, Any]
) -> None:
    fleet = make_fleet("sim-change", 2, Pace(hold=60))
    owner = hub.token(hub.principal("sim-changer", "Owner"))
    arrived: list[tuple[str, str, int]] = []
    with background() as call:
        call(fleet.enrol())
        fleet.site.on_document = lambda machine, kind, generation: arrived.append((machine.seen.name, kind, generation))
        since = time.time()
        call(fleet.start())
        assert call(fleet.until(lambda: fleet.beaten_since(since) == 2, 20))
        target = fleet.machines[1].seen
        known = target.generations["resource"]
        answer = hub.session().patch(
            f"{hub.url}{target.resource_id}",
            params={"api-version": "2026-07-15"},
            headers={"Authorization": f"Bearer {owner}"},
            json={"tags": {"env": "changed"}},
            timeout=30,
        )
        assert answer.status_code == 200
        call(fleet.until(lambda: bool(arrived), 30))
        call(fleet.stop())
    assert arrived == [(target.name, "resource", known + 1)]
    assert target.generations["resource"] == known + 1


def test_the_next_credential_retires_the_one_before(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet("sim-renew", 1)
    machine = fleet.machines[0]
    with background() as call:
        call(fleet.enrol())
        old = dict(machine.seen.identity)
        call(machine.renew())
        call(fleet.checkin())
        assert machine.seen.slot == 2
        machine.seen.identity, machine.seen.key, machine.seen.token = old, machine.seen.key - 1, ""
        with pytest.raises(Refusal) as refused:
            call(machine.ask_token("api://hawser-channel/.default"))
        call(fleet.stop())
    assert (refused.value.status, refused.value.code) == (401, "superseded")
    assert machine.seen.errors == {"superseded": 1}


def test_what_the_hub_refuses_is_counted_by_code(hub: HubProcess, make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet("sim-gone", 2)
    owner = hub.token(hub.principal("sim-deleter", "Owner"))
    with background() as call:
        call(fleet.enrol())
        call(fleet.machines[0].delete(owner))
        since = time.time()
        assert call(fleet.run(20, until=lambda: fleet.beaten_since(since) == 1 and bool(fleet.site.codes)))
    told = fleet.summary()
    assert set(told["codes"]) == {"ResourceNotFound"}
    assert told["unexpected"] == told["statuses"][404] > 0
    assert fleet.machines[0].seen.errors["ResourceNotFound"] > 0
    assert fleet.machines[1].seen.errors == {}


def test_a_fleet_outlives_a_killed_hub_and_its_own_process(tmp_path: Path) -> None:
    made = hub_process.make(tmp_path / "data", "--location", "local=Laboratory").start()
    principal = made.principal("simulator", "Onboarding")
    where = (made.url, made.ca_file, made.tenant_id, made.subscription_id, "killed")
    fleet = Fleet(*where, principal, 10, pace=QUICK, keys=2)
    try:
        with background() as call:
            call(fleet.enrol())
            call(fleet.start())
            made.stop(signal.SIGKILL)
            assert call(fleet.until(lambda: fleet.site.broken >= 10, 30))
            made.start()
            back = time.time()
            assert call(fleet.until(lambda: fleet.beaten_since(back) == 10, 30))
            assert call(fleet.until(lambda: {machine.seen.epoch for machine in fleet.machines} == {2}, 30))
            call(fleet.stop())
            told = fleet.summary()
            assert told["connected"] == 10
            assert told["broken"] >= 10
            assert told["unexpected"] == 0

            file = tmp_path / "fleet.json"
            fleet.save(file)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert principal["clientSecret"] not in file.read_text(encoding="utf-8")
            again = Fleet.load(file, pace=QUICK)
            assert [machine.seen for machine in again.machines] == [machine.seen for machine in fleet.machines]
            since = time.time()
            assert call(again.run(20, until=lambda: again.beaten_since(since) == 10))
            assert again.summary()["unexpected"] == 0
    finally:
        made.stop()

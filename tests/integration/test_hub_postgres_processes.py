# SPDX-License-Identifier: Apache-2.0
"""Two hub processes over one PostgreSQL: machines that move between them, a change at one that wakes at the other, the
end of one with and without warning. Nobody is accused, nobody is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulator import Fleet, Pace, background
from tests.integration import hub_process
from tests.integration.hub_machine import API, Machine
from tests.integration.hub_process import HubProcess, free_port
from tests.integration.postgres_server import PostgresServer
from tests.waiting import until

MACHINES = 200
PACE = Pace(first=0.2, last=2.0, hold=4, spread=1.0, connect=5.0, answer=20.0)
CONFLICTS = "SELECT coalesce(sum(conflicts), 0) FROM heartbeats"


def second(first: HubProcess) -> HubProcess:
    """Another process on the same data directory, at another port."""
    port = free_port()
    return HubProcess(first.data, f"https://127.0.0.1:{port}", f"127.0.0.1:{port}", first.made)


@pytest.fixture
def pair(postgres: PostgresServer, tmp_path: Path) -> Iterator[tuple[HubProcess, HubProcess]]:
    one = hub_process.make(tmp_path / "data", *postgres.fresh()).start()
    two = second(one)
    try:
        two.start()
        yield one, two
    finally:
        one.stop()
        two.stop()


def _fleet(one: HubProcess, two: HubProcess, count: int = MACHINES) -> Fleet:
    credential = one.principal("fleet", "Owner")
    return Fleet(
        [one.url, two.url], one.ca_file, one.tenant_id, one.subscription_id, "fleet", credential, count, pace=PACE
    )


def _epoch(hub: HubProcess) -> int:
    return int(hub.rows("SELECT epoch FROM hub_state")[0][0])


def _patch(hub: HubProcess, token: str, resource_id: str, tags: dict[str, str]) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (
        hub.session()
        .patch(f"{hub.url}{resource_id}", params=API, json={"tags": tags}, headers=headers, timeout=30)
        .status_code
    )


def test_machines_move_between_processes_and_one_is_killed(pair: tuple[HubProcess, HubProcess]) -> None:
    one, two = pair
    fleet = _fleet(one, two)

    async def wander(rounds: int) -> None:
        for _ in range(rounds):
            for machine in fleet.machines:
                machine.address += 1
            await fleet.checkin()

    with background() as call:
        call(fleet.enrol())
        call(wander(4))
        assert one.rows(CONFLICTS) == [(0,)]
        epoch = _epoch(one)
        call(fleet.start())
        time.sleep(3)  # holds are open at both
        two.stop(signal.SIGKILL)
        killed = time.time()
        until(lambda: fleet.beaten_since(killed) == MACHINES, "all go on with the other process", seconds=60)
        call(fleet.stop())
        until(lambda: _epoch(one) != epoch, "the other process notices", seconds=60)
        assert _epoch(one) == epoch + 1
    told = fleet.summary()
    assert told["unexpected"] == 0, told
    assert one.rows(CONFLICTS) == [(0,)]
    assert one.rows("SELECT count(*) FROM processes") == [(1,)]
    assert one.stop() == 0
    assert _epoch(one) == epoch + 1, "a clean end raises nothing"
    assert one.rows("SELECT count(*) FROM processes") == [(0,)]


def test_a_change_at_one_process_wakes_a_machine_held_at_the_other(pair: tuple[HubProcess, HubProcess]) -> None:
    one, two = pair
    token = one.token(one.principal("owner", "Owner"))
    machine = Machine(one, "moved").connect(token)
    machine.hub = two
    woken: list[dict[str, Any]] = []
    before = dict(machine.generations)
    thread = threading.Thread(target=lambda: woken.append(machine.checkin(hold=60).json()))
    thread.start()
    time.sleep(1)
    assert not woken
    assert _patch(one, token, machine.resource_id, {"env": "prod"}) == 200
    thread.join(20)
    assert woken, "the hold at the other process was not answered"
    assert woken[0]["generations"]["resource"] == before["resource"] + 1
    machine.hub = one
    deleted = one.session().delete(
        f"{one.url}{machine.resource_id}", params=API, headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert deleted.status_code == 204
    machine.hub = two
    until(lambda: machine.checkin().status_code == 404, "the deletion reaches the other process", seconds=20)


def test_a_fork_is_found_wherever_its_branches_call(pair: tuple[HubProcess, HubProcess]) -> None:
    one, two = pair
    token = one.token(one.principal("owner", "Owner"))
    machine = Machine(one, "forked").connect(token)
    copy = Machine(two, "forked", key=machine.key, vm_id=machine.vm_id, identity=machine.identity)
    copy.slot, copy.epoch, copy.nonce = machine.slot, machine.epoch, machine.nonce
    copy.channel_token = machine.channel_token

    def refused() -> dict[str, Any] | None:
        """How soon depends on what each process has written when the other reads."""
        for branch in (machine, copy):
            answer = branch.checkin()
            if answer.status_code != 200:
                assert answer.status_code == 409, answer.text
                return dict(answer.json()["error"])
        return None

    assert until(refused, "the fork is not found")["code"] == "identity_conflict"

# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a hub under a fleet of simulated machines: nobody is accused, everybody is Connected again within two
heartbeats. Every day with 200 machines, in the lane fleet1000 with 1,000."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.simulator import Fleet, Pace, background
from tests.integration import hub_process
from tests.integration.hub_machine import API
from tests.integration.hub_process import HubProcess
from tests.integration.postgres_server import PostgresServer
from tests.integration.test_hub_backup import DAY, age, make_old

HOLD = 10  # a heartbeat of this fleet; real ones are at most 300 s apart
CONFLICTS = "SELECT coalesce(sum(conflicts), 0) FROM heartbeats"


def _kill_and_look(data: Path, options: Sequence[str], count: int, kills: int) -> None:
    hub = hub_process.make(data, *options).start()
    pace = Pace(first=0.2, last=3.0, hold=HOLD, spread=HOLD, connect=20.0, answer=30.0)
    owner = hub.principal("fleet", "Owner")
    fleet = Fleet(hub.url, hub.ca_file, hub.tenant_id, hub.subscription_id, "fleet", owner, count, pace=pace)
    try:
        with background() as call:
            call(fleet.enrol())
            call(fleet.start())
            time.sleep(HOLD)
            first = int(hub.rows("SELECT epoch FROM hub_state")[0][0])
            for number in range(kills):
                hub.stop(signal.SIGKILL)
                hub.start()
                back = time.time()
                while fleet.beaten_since(back) < count and time.time() < back + 2 * HOLD:
                    time.sleep(0.2)
                assert fleet.beaten_since(back) == count, f"kill {number}: within two heartbeats"
            call(fleet.stop())
        told = fleet.summary()
        assert told["unexpected"] == 0, told
        assert set(told["states"]) == {"connected"}
        time.sleep(1)  # the last heartbeats are written
        assert hub.rows(CONFLICTS) == [(0,)]
        assert hub.rows("SELECT epoch FROM hub_state") == [(first + kills,)]
        token = hub.token(owner)
        shown = hub.session().get(
            f"{hub.url}/subscriptions/{hub.subscription_id}/providers/Microsoft.HybridCompute/machines",
            params={**API, "$top": "1000"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        assert {item["properties"]["status"] for item in shown.json()["value"]} == {"Connected"}
    finally:
        assert hub.stop() == 0


def test_killed_under_200_machines(tmp_path: Path) -> None:
    _kill_and_look(tmp_path / "data", (), 200, 2)


@pytest.mark.lane("fleet1000")
def test_killed_under_1000_machines(tmp_path: Path) -> None:
    _kill_and_look(tmp_path / "data", (), 1000, 3)


@pytest.mark.lane("fleet1000")
def test_killed_under_1000_machines_over_postgresql(tmp_path: Path, postgres: PostgresServer) -> None:
    _kill_and_look(tmp_path / "data", postgres.fresh(), 1000, 3)


@pytest.mark.lane("fleet1000")
@pytest.mark.parametrize("count", [1000])
def test_a_day_old_backup_under_a_fleet(tmp_path: Path, count: int) -> None:
    """A third renewed, a tenth enrolled since; every machine is Connected within two heartbeats, none accused."""
    later, hold = count // 10, 3 * HOLD  # four in ten need a new token first: signed, checked, written
    hub = hub_process.make(tmp_path / "data").start()
    pace = Pace(first=0.2, last=3.0, hold=hold, spread=hold, connect=20.0, answer=30.0)
    owner = hub.principal("fleet", "Owner")
    where = (hub.url, hub.ca_file, hub.tenant_id, hub.subscription_id)
    old = Fleet(*where, "fleet", owner, count - later, prefix="old", pace=pace)
    new = Fleet(*where, "later", owner, later, prefix="new", pace=pace)
    archive = tmp_path / "hub.tar.gz"
    try:
        with background() as call:
            call(old.enrol())
            age(hub, DAY)
            _operate(hub, "backup", str(archive))
            make_old(archive, DAY)
            call(old.each(lambda machine: machine.renew(), old.machines[::3]))
            call(new.enrol())
            for fleet in (old, new):
                call(fleet.checkin())
            hub.stop(signal.SIGKILL)
            _operate(hub, "restore", str(archive), "--force")
            for fleet in (old, new):
                fleet.forget_trouble()
                call(fleet.start())
            hub.start()
            back = time.time()
            while old.beaten_since(back) + new.beaten_since(back) < count and time.time() < back + 2 * hold:
                time.sleep(0.2)
            assert (old.beaten_since(back), new.beaten_since(back)) == (count - later, later), "within two heartbeats"
            for fleet in (old, new):
                call(fleet.stop())
                told = fleet.summary()
                assert set(told["codes"]) <= {"InvalidAuthenticationToken"}, told
                assert set(told["states"]) == {"connected"}
        time.sleep(1)
        assert hub.rows(CONFLICTS) == [(0,)]
        assert hub.rows("SELECT count(*) FROM machines WHERE enrolled IS NOT NULL") == [(count,)]
        assert hub.rows("SELECT count(*) FROM audit WHERE action = 'machines/rebase'") == [(len(old.machines[::3]),)]
        assert hub.rows("SELECT count(*) FROM audit WHERE action = 'machines/return'") == [(later,)]
        assert hub.stop() == 0
    finally:
        hub.stop()


def _operate(hub: HubProcess, *arguments: str) -> None:
    """A command that may take its time on a machine that is busy."""
    subprocess.run(hub.command(*arguments), cwd=hub_process.REPOSITORY, check=True, timeout=600)

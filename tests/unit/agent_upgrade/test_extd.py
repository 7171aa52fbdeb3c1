# SPDX-License-Identifier: Apache-2.0
"""extd as a real process, given the hub's wish for another version. Here the agent is no package, so the upgrade ends
before anything is changed; on hosts: tests/integration/test_agent_upgrade.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent_services.courier import VM_ID, Courier, Machine, Service, sign
from tests.waiting import until

WISH = {"desiredVersion": "9.0.0.1", "enableAutomaticUpgrade": False, "correlationId": VM_ID, "deadlineSeconds": 60}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def journal(machine: Machine) -> dict[str, Any]:
    path = machine.folder("upgrade") / "journal.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def test_a_wish_that_cannot_be_carried_out_is_reported_once(machine: Machine) -> None:
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        courier.welcome()
        courier.push(sign(machine.key, kind="agent", generation=3, content=WISH), "agent", 3)
        report = courier.report()
        assert report["kind"] == "agent"
        data = report["data"]
        assert (data["state"], data["desiredVersion"], data["generation"]) == ("failed", "9.0.0.1", 3)
        assert data["correlationId"] == VM_ID
        assert data["message"]
        first = journal(machine)
        assert first["error"]["code"] in ("AZCM0003", "AZCM0027")
        # The same wish in a newer document is no other wish; another correlation id is.
        courier.push(sign(machine.key, kind="agent", generation=4, content=WISH), "agent", 4)
        until(lambda: "generation 4 verified" in machine.log("extensions"), "kept")
        again = {**WISH, "correlationId": "99999999-57f1-4f11-9d6d-0f3f9d1d2c3b"}
        courier.push(sign(machine.key, kind="agent", generation=5, content=again), "agent", 5)
        assert courier.report()["data"]["generation"] == 5
        assert journal(machine)["id"] != first["id"]
        assert extd.stop() == 0
    # An upgrade by hand that came after it does not bring the hub's old wish back.
    by_hand = {**journal(machine), "by": "command", "id": "by hand", "correlationId": None, "to": "8.0.0.0"}
    (machine.folder("upgrade") / "journal.json").write_text(json.dumps(by_hand))
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        courier.welcome()
        while courier.report()["data"].get("desiredVersion") != "8.0.0.0":
            pass
        assert extd.stop() == 0
    assert journal(machine) == by_hand


@pytest.mark.parametrize("switched_off", [{"automaticupgrade.enabled": False}, {"extensions.enabled": False}])
def test_the_machine_has_a_veto(machine: Machine, switched_off: dict[str, Any]) -> None:
    machine.configure(**{name.replace(".", "_"): value for name, value in switched_off.items()})
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        courier.welcome()
        courier.push(sign(machine.key, kind="agent", generation=3, content=WISH), "agent", 3)
        if "extensions.enabled" not in switched_off:
            until(lambda: "agent generation 3 verified" in machine.log("extensions"), "kept")
        courier.push(sign(machine.key, kind="policy", generation=1), "policy", 1)
        until(lambda: "which is not for this service" in machine.log("extensions"), "next push taken")
        assert extd.stop() == 0
    assert journal(machine) == {}


def test_a_damaged_journal_is_put_aside(machine: Machine) -> None:
    folder = machine.folder("upgrade")
    folder.mkdir(parents=True)
    (folder / "journal.json").write_text('{"state": "wai')
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        courier.welcome()
        until((folder / "journal.json.damaged").exists, "put aside")
        assert extd.stop() == 0

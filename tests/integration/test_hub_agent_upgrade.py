# SPDX-License-Identifier: Apache-2.0
"""The hub's part in upgrades of the agent: wishes, automatic ones, what machines report (docs/protocol.md 15.6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

from control_plane.hub import open_database
from control_plane.storage import agent_packages
from control_plane.storage.database import Database
from control_plane.upgrades import keeper
from tests.integration import hub_process
from tests.integration.extension_site import Arm, arm_of, code_of
from tests.integration.hub_machine import Machine, payload_of, public_text
from tests.integration.hub_process import HubProcess
from tests.waiting import until

AT = "2026-11-28T12:00:00Z"


def publish(hub: HubProcess, versions: Sequence[str]) -> None:
    """Exactly these, from another process than the hub's, as `artefacts publish` does."""
    rows = [{"version": item, "os": "linux", "format": "deb", "path": f"agent/{item}/linux.deb"} for item in versions]
    database = open_database(hub.data)
    try:
        with database.write() as session:
            agent_packages.replace(session, rows)
    finally:
        database.close()


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    started = make_hub()
    publish(started, ["1.0.0.1", "1.0.0.2"])
    return started


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> str:
    return hub.token(hub.principal("owner", "Owner"))


@pytest.fixture
def arm(hub: HubProcess, owner: str) -> Arm:
    return arm_of(hub, owner)


@pytest.fixture
def machine(hub: HubProcess, owner: str) -> Machine:
    return Machine(hub, f"m-{uuid4().hex[:8]}").connect(owner)


@pytest.fixture
def wish(arm: Arm, machine: Machine) -> Callable[..., Any]:
    def made(**members: Any) -> Any:
        return arm("PATCH", machine.resource_id, {"properties": {"agentUpgrade": members}})

    return made


def content(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = payload_of(machine.desired("agent").json()["document"])["content"]
    return found


def report(machine: Machine, state: str, version: str = "1.0.0.2", **more: Any) -> Any:
    data = {
        "generation": 1,
        "correlationId": None,
        "desiredVersion": version,
        "fromVersion": "1.0.0.1",
        "state": state,
        "message": f"It is {state}",
        "begun": AT,
        "at": AT,
    }
    return machine.report("agent", {**data, **more})


def test_a_wish_reaches_the_machine_and_its_report_the_resource(
    hub: HubProcess, arm: Arm, machine: Machine, wish: Callable[..., Any]
) -> None:
    shown = wish(desiredVersion="1.0.0.2").json()["properties"]["agentUpgrade"]
    assert shown["desiredVersion"] == "1.0.0.2"
    assert machine.checkin(hold=60).json()["generations"]["agent"] == 1
    wanted = {"desiredVersion": "1.0.0.2", "enableAutomaticUpgrade": False, "deadlineSeconds": 600}
    assert content(machine) == {**wanted, "correlationId": shown["correlationId"]}
    for state, status in (("waiting", None), ("rolled back", "Failed"), ("succeeded", "Success")):
        assert report(machine, state, correlationId=shown["correlationId"]).status_code == 200
        found = arm("GET", machine.resource_id).json()["properties"]["agentUpgrade"]
        assert found.get("lastAttemptStatus") == status
        assert (found["lastAttemptDesiredVersion"], found["lastAttemptTimestamp"]) == ("1.0.0.2", AT)
        assert found["lastAttemptMessage"] == f"It is {state}"
    # ARM's clients send the whole object back; that is no new wish.
    whole = arm("GET", machine.resource_id).json()
    assert arm("PUT", machine.resource_id, whole).status_code == 200
    assert machine.checkin(hold=0).json()["generations"]["agent"] == 1
    assert wish(desiredVersion="1.0.0.2").status_code == 200
    assert machine.checkin(hold=60).json()["generations"]["agent"] == 2
    audited = hub.run("audit", "--target", machine.resource_id, "--json").stdout
    assert audited.count('"machines/agentUpgrade/outcome"') == 2
    assert shown["correlationId"] in audited


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"desiredVersion": "1.0.0.3"}, "AgentVersionNotFound"),
        ({"desiredVersion": "1.0"}, "AgentVersionNotFound"),
        ({"desiredVersion": "../x"}, "AgentVersionNotFound"),
        ({"desiredVersion": 3}, "InvalidRequestContent"),
        ({"desiredVersion": "1.0.0.2", "correlationId": "x"}, "InvalidRequestContent"),
        ({"enableAutomaticUpgrade": "yes"}, "InvalidRequestContent"),
    ],
)
def test_wishes_that_cannot_be(wish: Callable[..., Any], machine: Machine, members: dict[str, Any], code: str) -> None:
    assert code_of(wish(**members)) == (400, code)
    assert machine.checkin(hold=0).json()["generations"]["agent"] == 0


@pytest.mark.parametrize(
    "changes", [{"state": "lost"}, {"at": "yesterday"}, {"message": None}, {"desiredVersion": ""}, {"generation": "1"}]
)
def test_reports_of_another_shape(machine: Machine, changes: dict[str, Any]) -> None:
    data = {"version": "1.0.0.2", **changes}
    if "desiredVersion" in data:
        data["version"] = data.pop("desiredVersion")
    assert code_of(report(machine, data.pop("state", "waiting"), **data)) == (400, "InvalidRequestContent")


def test_a_reader_may_not_wish(hub: HubProcess, machine: Machine) -> None:
    reader = arm_of(hub, hub.token(hub.principal(f"reader-{uuid4().hex[:6]}", "Reader")))
    body = {"properties": {"agentUpgrade": {"desiredVersion": "1.0.0.2"}}}
    assert code_of(reader("PATCH", machine.resource_id, body)) == (403, "AuthorizationFailed")


def test_automatic_upgrades_follow_what_is_published(
    hub: HubProcess, arm: Arm, machine: Machine, wish: Callable[..., Any]
) -> None:
    shown = wish(enableAutomaticUpgrade=True).json()["properties"]["agentUpgrade"]
    newest = shown.get("desiredVersion")
    assert newest == "1.0.0.2"
    before = content(machine)
    publish(hub, ["1.0.0.1", "1.0.0.2", "1.0.0.10"])
    until(lambda: content(machine)["desiredVersion"] == "1.0.0.10", what=lambda: content(machine))
    assert content(machine)["correlationId"] != before["correlationId"]
    assert machine.checkin(hold=60).json()["generations"]["agent"] == 2
    # It was taken back on this machine: the same version is not wished again, a newer one is.
    report(machine, "rolled back", "1.0.0.10")
    publish(hub, ["1.0.0.2", "1.0.0.10"])
    time.sleep(12)
    assert machine.checkin(hold=0).json()["generations"]["agent"] == 2
    publish(hub, ["1.0.0.1", "1.0.0.2"])
    assert wish(enableAutomaticUpgrade=False).status_code == 200


def test_automatic_upgrades_stop_when_machines_take_the_version_back(hub: HubProcess, owner: str, arm: Arm) -> None:
    publish(hub, ["1.0.0.1"])
    body = {"properties": {"agentUpgrade": {"enableAutomaticUpgrade": True}}}
    fleet = [Machine(hub, f"m-{uuid4().hex[:8]}").connect(owner) for _ in range(6)]
    for machine in fleet[:5]:
        assert report(machine, "rolled back", "1.0.0.3").status_code == 200
    assert arm("PATCH", fleet[5].resource_id, body).status_code == 200
    publish(hub, ["1.0.0.1", "1.0.0.3"])
    told = "Automatic upgrades to 1.0.0.3 have stopped: 5 of 5 machines have taken it back"
    until(lambda: told in (hub.data / "serve.log").read_text())
    assert fleet[5].checkin(hold=0).json()["generations"]["agent"] == 1
    publish(hub, ["1.0.0.1", "1.0.0.4"])
    until(lambda: content(fleet[5])["desiredVersion"] == "1.0.0.4")
    assert arm("PATCH", fleet[5].resource_id, {"properties": {"agentUpgrade": None}}).status_code == 200
    publish(hub, ["1.0.0.1", "1.0.0.2"])


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Of a hub that is stopped: five machines wait for a version that was just published. Two may try it first."""
    monkeypatch.setattr(keeper, "TRIAL", 2)
    hub = hub_process.make(tmp_path / "data").start()
    publish(hub, ["1.0.0.1"])
    owner = hub.token(hub.principal("owner", "Owner"))
    body = {"properties": {"agentUpgrade": {"enableAutomaticUpgrade": True}}}
    for number in range(5):
        machine = Machine(hub, f"m{number}").connect(owner)
        assert arm_of(hub, owner)("PATCH", machine.resource_id, body).status_code == 200
        machine.http.close()
    assert hub.stop() == 0
    publish(hub, ["1.0.0.1", "1.0.0.2"])
    database = open_database(hub.data)
    yield database
    database.close()


def looking(database: Database, moved: list[int]) -> keeper.Keeper:
    """As a process of the hub has it."""
    return keeper.Keeper(database, lambda machine_id, _: moved.append(machine_id))


def pass_by(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """From now on it is later, by both clocks."""
    at, ticks = time.time() + seconds, time.monotonic() + seconds
    monkeypatch.setattr(time, "time", lambda: at)
    monkeypatch.setattr(time, "monotonic", lambda: ticks)


def test_few_machines_try_a_version_before_all_others(waiting: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = list[int]()
    looked = looking(waiting, moved)
    for _ in range(3):
        looked.turn()
    assert len(moved) == 2
    pass_by(monkeypatch, keeper.TRIAL_SECONDS - 60)
    looked.turn()
    assert len(moved) == 2
    pass_by(monkeypatch, 60)
    for _ in range(2):
        looked.turn()
    assert len(moved) == len(set(moved)) == 5


def test_few_machines_try_a_version_however_many_processes_there_are_and_begin_anew(
    waiting: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = list[int]()
    processes = [looking(waiting, moved) for _ in range(3)]
    for _ in range(2):
        for process in processes:
            process.turn()
    assert len(moved) == 2
    pass_by(monkeypatch, keeper.TRIAL_SECONDS - 60)
    looking(waiting, moved).turn()
    assert len(moved) == 2, "a restart begins no other trial"
    pass_by(monkeypatch, 60)
    for process in (looking(waiting, moved), *processes):
        process.turn()
    assert len(moved) == len(set(moved)) == 5


def test_a_trial_that_another_process_begins_at_the_same_moment_is_one(
    waiting: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, look = list[int](), keeper.Keeper._due

    def late(process: keeper.Keeper, session: Session, after: int, most: int) -> tuple[list[int], int | None]:
        found = look(process, session, after, most)
        monkeypatch.setattr(keeper.Keeper, "_due", look)
        looking(waiting, moved).turn()
        return found

    monkeypatch.setattr(keeper.Keeper, "_due", late)
    slow = looking(waiting, moved)
    for _ in range(2):
        slow.turn()
    assert len(moved) == 2
    pass_by(monkeypatch, keeper.TRIAL_SECONDS)
    slow.turn()
    assert len(moved) == len(set(moved)) == 5


def test_a_machine_that_connects_with_automatic_upgrades_is_moved_once_its_version_is_known(
    hub: HubProcess, owner: str, arm: Arm
) -> None:
    for running, found in (("1.0.0.1", "1.0.0.2"), ("1.0.0.2", None), ("3.0.0.0", None)):
        made = Machine(hub, f"m-{uuid4().hex[:8]}")
        properties = {"vmId": made.vm_id, "clientPublicKey": public_text(made.key)}
        wish = {"agentUpgrade": {"enableAutomaticUpgrade": True}}
        shown = made.put(owner, properties={**properties, **wish}).json()["properties"]
        assert shown["agentUpgrade"] == {"enableAutomaticUpgrade": True}
        assert made.enrol(owner, agentVersion=running).status_code == 200
        shown = arm("GET", made.resource_id).json()["properties"]["agentUpgrade"]
        assert shown.get("desiredVersion") == found
        if found:
            assert made.ask_token().status_code == 200
            assert made.checkin(hold=60, agentVersion=running).json()["generations"]["agent"] == 2
            assert content(made)["desiredVersion"] == found


def test_a_machine_that_has_the_newest_is_left_alone(hub: HubProcess, owner: str, arm: Arm) -> None:
    publish(hub, ["0.9.0.0", "1.0.0.1"])
    other = Machine(hub, "newest").connect(owner)
    body = {"properties": {"agentUpgrade": {"enableAutomaticUpgrade": True}}}
    shown = arm("PATCH", other.resource_id, body).json()["properties"]["agentUpgrade"]
    assert shown == {"enableAutomaticUpgrade": True}
    publish(hub, ["1.0.0.1", "1.0.0.2"])

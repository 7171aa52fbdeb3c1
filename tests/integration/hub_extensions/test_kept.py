# SPDX-License-Identifier: Apache-2.0
"""Extensions at the hub over time: what wakes a machine, which reports count, where extensions are shown, what ends by
itself, automatic upgrades, limits, restarts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from azure.core.exceptions import HttpResponseError

from control_plane.extensions import keeper
from control_plane.hub import open_database
from tests.integration.extension_machine import ExtensionMachine, catalogue_of, package
from tests.integration.extension_site import (
    PACKAGES,
    Arm,
    Client,
    G,
    code_of,
    operation_of,
    path_of,
    script,
    state_of,
    wish,
)
from tests.integration.hub_process import HubProcess
from tests.waiting import until


def test_a_held_checkin_is_woken_by_a_wish(arm: Arm, machine: ExtensionMachine) -> None:
    woken: list[int] = []

    def hold() -> None:
        woken.append(machine.checkin(hold=60).json()["generations"]["extensions"])

    machine.checkin()
    thread = threading.Thread(target=hold)
    thread.start()
    time.sleep(0.5)
    assert not woken
    assert arm("PUT", path_of(machine), wish()).status_code == 202
    thread.join(20)
    assert woken == [1], "the hold was not answered"


def test_reports_that_do_not_count(arm: Arm, machine: ExtensionMachine) -> None:
    answer = arm("PUT", path_of(machine), wish(settings={"a": 1}))
    document = machine.payload()
    (wanted,), generation = document["content"]["extensions"], document["generation"]
    good = machine.item(wanted)
    for bad in (
        {"generation": generation},
        {"generation": generation, "extensions": [{**good, "state": "done"}]},
        {"generation": generation, "extensions": [{**good, "version": "x"}]},
        {"generation": generation, "extensions": [{**good, "message": "x" * 4097}]},
    ):
        assert code_of(machine.report("extensions", bad)) == (400, "InvalidRequestContent")
    machine.report_items(generation - 1, [good])
    machine.report_items(generation, [{**good, "sequence": 7}])
    machine.report_items(generation, [{**good, "name": "other"}])
    assert operation_of(arm, answer)["status"] == "InProgress"
    refused = {"desired": {"kind": "extensions", "accepted": False, "reason": "expired"}}
    assert machine.report("extensions", refused).status_code == 200
    machine.report_items(generation, [{**good, "name": "SCRIPT"}])
    assert operation_of(arm, answer)["status"] == "Succeeded"
    statement = (
        "SELECT CAST(data AS VARCHAR(10000)) FROM reports WHERE kind = 'extensions' "
        "AND machine_id = (SELECT id FROM machines WHERE name = :name)"
    )
    ((kept,),) = machine.hub.rows(statement, name=machine.name)
    assert json.loads(kept)["desired"] == refused["desired"], "beside the other, until the next of it"


def test_another_version_than_the_wished_one_is_a_failure(hub: HubProcess, arm: Arm, machine: ExtensionMachine) -> None:
    answer = arm("PUT", path_of(machine), wish(settings={"a": 1}))
    for _ in range(2):
        machine.report_all(version="1.0.2")
    error = operation_of(arm, answer)["error"]
    assert error["code"] == "ExtensionVersionMismatch"
    assert "1.0.2" in error["message"]
    shown = arm("GET", path_of(machine)).json()["properties"]
    assert (shown["provisioningState"], shown["instanceView"]["status"]["code"]) == ("Failed", error["code"])
    audited = hub.run("audit", "--target", machine.resource_id, "--json").stdout
    assert audited.count("machines/extensions/outcome") == 1, "said twice is no news"
    machine.report_all()
    shown = arm("GET", path_of(machine)).json()["properties"]
    assert (shown["provisioningState"], shown["instanceView"]["status"]["code"]) == ("Succeeded", "success")


@pytest.mark.parametrize("before", ["2026-11-28T10:00:05Z", "2126-11-28T10:00:05Z"])
def test_a_clock_that_is_set_back_hides_no_outcome(arm: Arm, machine: ExtensionMachine, before: str) -> None:
    def told(at: str, state: str) -> dict[str, Any]:
        data = {"generation": generation, "extensions": [machine.item(wanted, state=state)]}
        return {"id": str(uuid4()), "kind": "extensions", "createdAt": at, "data": data}

    def send(*reports: dict[str, Any]) -> None:
        answer = machine.post("report", {"protocol": 1, "requestId": str(uuid4()), "reports": reports})
        assert answer.json()["accepted"] == [report["id"] for report in reports]

    answer = arm("PUT", path_of(machine), wish(settings={"a": 1}))
    document = machine.payload()
    (wanted,), generation = document["content"]["extensions"], document["generation"]
    send(told(before, "transitioning"))
    assert operation_of(arm, answer)["status"] == "InProgress"
    ((created, received),) = machine.hub.rows(
        "SELECT created, received FROM reports WHERE kind = 'extensions' "
        "AND machine_id = (SELECT id FROM machines WHERE name = :name)",
        name=machine.name,
    )
    assert created <= received, "nobody's clock is ahead of the hub's"
    send(told("2026-11-28T10:00:03Z", "succeeded"))
    assert operation_of(arm, answer)["status"] == "Succeeded"
    again = arm("PUT", path_of(machine), wish(settings={"a": 2}))
    document = machine.payload()
    (wanted,), generation = document["content"]["extensions"], document["generation"]
    send(told(before, "transitioning"), told("2026-11-28T10:00:03Z", "succeeded"))
    assert operation_of(arm, again)["status"] == "Succeeded"


def _deep(levels: int) -> Any:
    return [_deep(levels - 1)] if levels else []


@pytest.mark.parametrize(
    "bad",
    [{"a": "x\0"}, {"\ud800": 1}, {"a": "x" * 70000}, {"a": _deep(60)}, {"a": 1 << 70}, {"a": float("nan")}],
    ids=["nul", "surrogate", "long", "deep", "large", "nan"],
)
def test_the_status_of_one_handler_hides_no_other(arm: Arm, machine: ExtensionMachine, bad: dict[str, Any]) -> None:
    waits = [
        arm("PUT", path_of(machine), wish()),
        arm("PUT", path_of(machine, "probe"), wish(type="HealthProbe", typeHandlerVersion="1.0.0")),
    ]
    document = machine.payload()
    script, probe = document["content"]["extensions"]
    odd = machine.item(script, status={"status": "success", **bad}, message="a\0\udc00b", code=1 << 64)
    data = {"generation": document["generation"], "extensions": [odd, machine.item(probe)]}
    report = {"id": str(uuid4()), "kind": "extensions", "createdAt": "2026-11-28T10:00:00Z", "data": data}
    body = json.dumps({"protocol": 1, "requestId": str(uuid4()), "reports": [report]})
    headers = {"Authorization": f"Bearer {machine.channel_token}", "Hawser-Lease": machine.nonce}
    answer = machine.http.post(f"{machine.hub.url}/channel/v1/report", data=body, headers=headers, timeout=30)
    assert answer.json()["accepted"] == [report["id"]]
    assert [operation_of(arm, wait)["status"] for wait in waits] == ["Succeeded"] * 2
    view = arm("GET", path_of(machine)).json()["properties"]["instanceView"]
    assert view["status"]["message"] == "a\ufffd\ufffdb"


def test_what_else_of_a_report_is_no_json_is_refused(machine: ExtensionMachine) -> None:
    def send(report: dict[str, Any], **more: Any) -> Any:
        item = {"id": str(uuid4()), "kind": "inventory", "createdAt": "2026-11-28T10:00:00Z", "data": {}, **report}
        return machine.post("report", {"protocol": 1, "requestId": str(uuid4()), "reports": [item], **more})

    assert send({}).status_code == 200
    for answer in (
        send({"data": {"osName": "x\0"}}),
        send({"kind": "extensions", "data": {"generation": 1, "extensions": [], "more": "x\0"}}),
        send({"more": "x\0"}),
        send({}, more="x\0"),
        send({}, more=_deep(60)),
    ):
        assert code_of(answer) == (400, "InvalidRequestContent")


def test_what_a_machine_shows_of_its_extensions(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine, token: str
) -> None:
    arm("PUT", path_of(machine), wish(settings={"none": None}) | {"tags": {"env": "demo"}})
    healthy = {"status": "success", "substatus": [{"name": "AppHealthStatus", "status": "success"}]}
    machine.report_all(message="all is well", status=healthy)
    shown = arm("GET", machine.resource_id, **{"$expand": "instanceView"}).json()
    (inner,) = shown["resources"]
    assert (inner["id"], inner["properties"]["settings"]) == (path_of(machine), {"none": None})
    assert shown["properties"]["extensions"][0]["status"]["code"] == "success"
    assert "resources" not in arm("GET", machine.resource_id).json()
    group = f"/subscriptions/{hub.subscription_id}/resourceGroups/{G}"
    wanted = "resourceType eq 'Microsoft.HybridCompute/machines/extensions'"
    listed = arm("GET", f"{group}/resources", **{"$filter": wanted, "$expand": "provisioningState"}).json()["value"]
    (row,) = [item for item in listed if item["id"] == path_of(machine)]
    assert (row["name"], row["tags"], row["provisioningState"]) == (
        f"{machine.name}/script",
        {"env": "demo"},
        "Succeeded",
    )
    tags = f"{path_of(machine)}/providers/Microsoft.Resources/tags/default"
    merge = {"operation": "Merge", "properties": {"tags": {"a": "b"}}}
    assert arm("PATCH", tags, merge).json()["properties"]["tags"] == {"env": "demo", "a": "b"}
    lock = f"{path_of(machine)}/providers/Microsoft.Authorization/locks/keep"
    assert arm("PUT", lock, {"properties": {"level": "CanNotDelete"}}).status_code == 201
    assert code_of(arm("DELETE", path_of(machine))) == (409, "ScopeLocked")
    assert code_of(arm("DELETE", machine.resource_id)) == (409, "ScopeLocked")
    assert arm("DELETE", lock).status_code == 200
    headers = {"Authorization": f"Bearer {token}"}
    detail = hub.session().get(f"{hub.url}/hawser/v1/machines{machine.resource_id}", headers=headers, timeout=30)
    (item,) = detail.json()["extensions"]
    assert (item["state"], item["message"], item["health"]) == ("Succeeded", "all is well", "Healthy")
    told = hub.json("extensions", "--machine", machine.name)
    assert [(item["name"], item["installed"], item["state"]) for item in told] == [("script", "1.0.3", "Succeeded")]
    assert "Succeeded, Healthy" in hub.run("extensions").stdout
    assert hub.run("extensions", "--machine", "nobody", check=False).returncode == 1
    assert arm("DELETE", machine.resource_id).status_code == 204


def test_operations_end_with_their_machine(arm: Arm, machine: ExtensionMachine) -> None:
    put = arm("PUT", path_of(machine), wish())
    assert arm("DELETE", machine.resource_id).status_code == 204
    until(lambda: operation_of(arm, put)["status"] == "Canceled")


def test_what_nobody_answers_for_six_hours_fails(
    hub: HubProcess, client: Client, arm: Arm, machine: ExtensionMachine
) -> None:
    poller = client.machine_extensions.begin_create_or_update(G, machine.name, "script", script())
    hub.execute(
        "UPDATE extensions SET began = began - 6 * 3600 "
        "WHERE machine_id = (SELECT id FROM machines WHERE name = :name)",
        name=machine.name,
    )
    with pytest.raises(HttpResponseError) as failed:
        poller.result()
    assert failed.value.error is not None
    assert failed.value.error.code == "ExtensionOperationTimeout"
    assert "6 hours" in str(failed.value.error.message)
    shown = arm("GET", path_of(machine)).json()["properties"]
    assert (shown["provisioningState"], shown["instanceView"]["status"]["level"]) == ("Failed", "Error")
    machine.report_all()
    assert state_of(arm, machine) == "Succeeded", "the wish was kept"


def waits(hub: HubProcess, *, look: bool = False) -> int:
    """Seconds until the upgrade of our handler is tried, after another look with `look`."""
    at = int(time.time())
    if look:
        database = open_database(hub.data)
        try:
            with database.write() as session:
                keeper.look_again(session, at)
        finally:
            database.close()
    return int(hub.rows("SELECT retry FROM extensions WHERE handler_key = 'auto.agent'")[0][0]) - at


def test_automatic_upgrades_and_their_rollback(hub: HubProcess, arm: Arm, machine: ExtensionMachine) -> None:
    def item() -> dict[str, Any]:
        (found,) = machine.content()["extensions"]
        return dict(found)

    more = [*PACKAGES, package("Auto", "Agent", "1.0.0"), package("Auto", "Agent", "2.0.0")]
    catalogue_of(hub, more)
    body = wish(publisher="Auto", type="Agent", typeHandlerVersion="1.0.0", enableAutomaticUpgrade=True)
    assert arm("PUT", path_of(machine), body).status_code == 202
    machine.report_all()
    assert state_of(arm, machine) == "Succeeded"
    more.append(package("Auto", "Agent", "1.1.0"))
    catalogue_of(hub, more)
    until(lambda: item()["version"] == "1.1.0", what="never 2.0.0: the first number stays")
    assert (item()["rollbackTo"], item()["sequence"], state_of(arm, machine)) == ("1.0.0", 0, "Updating")
    assert item()["rollbackPackage"]["path"] == more[-3]["path"]
    machine.report_all(state="installing")
    assert state_of(arm, machine) == "Updating"
    machine.report_all(state="failed", operation="update", code=1008)
    assert state_of(arm, machine) == "Failed"
    machine.report_all(version="1.0.0", message="1.1.0 failed; 1.0.0 is back")
    shown = arm("GET", path_of(machine)).json()["properties"]
    assert (shown["provisioningState"], shown["instanceView"]["typeHandlerVersion"]) == ("Succeeded", "1.0.0")
    assert (item()["version"], item()["rollbackTo"], item()["rollbackPackage"]) == ("1.0.0", None, None)
    assert 3500 < waits(hub) <= 3600
    # As at the start of a hub, or when packages of others come: what has failed is left in peace.
    assert waits(hub, look=True) > 3000
    assert arm("PUT", path_of(machine), body).status_code == 200
    machine.report_all()
    more.append(package("Auto", "Agent", "1.1.1"))
    catalogue_of(hub, more)
    until(lambda: item()["version"] == "1.1.1")
    machine.report_all(operation="update")
    assert state_of(arm, machine) == "Succeeded"
    assert item()["rollbackTo"] is None
    # What was rolled back is tried again after its time, the catalogue being the same; the older it is, the later.
    machine.hub.execute("UPDATE extensions SET version = '1.1.0', retry = 1 WHERE handler_key = 'auto.agent'")
    until(lambda: item()["version"] == "1.1.1")
    hub.execute("UPDATE extension_packages SET created = created - 5 * 3600")
    machine.report_all(version="1.1.0", message="1.1.1 failed; 1.1.0 is back")
    assert item()["version"] == "1.1.0"
    assert waits(hub) > 4 * 3600
    catalogue_of(hub, PACKAGES)


@pytest.fixture
def upgrading(hub: HubProcess, arm: Arm, machine: ExtensionMachine) -> Iterator[str]:
    """A machine whose two extensions of one handler were just moved from 1.0.0 to 1.1.0; the type of the handler."""
    kind = f"Many{uuid4().hex[:8]}"
    several = [package("Auto", kind, version, supportsMultipleExtensions=True) for version in ("1.0.0", "1.1.0")]
    catalogue_of(hub, [*PACKAGES, several[0]])
    body = wish(publisher="Auto", type=kind, typeHandlerVersion="1.0.0", enableAutomaticUpgrade=True)
    for name in ("one", "two"):
        assert arm("PUT", path_of(machine, name), body).status_code == 202
    machine.report_all()
    catalogue_of(hub, [*PACKAGES, *several])
    until(lambda: wished(machine) == [("1.1.0", "1.0.0")] * 2)
    yield kind
    catalogue_of(hub, PACKAGES)


def wished(machine: ExtensionMachine) -> list[tuple[str, str | None]]:
    """Version and the one to go back to, of each extension."""
    return [(item["version"], item["rollbackTo"]) for item in machine.content()["extensions"]]


def report_each(machine: ExtensionMachine, *changes: dict[str, Any]) -> None:
    """One report of all extensions of the newest document."""
    document = machine.payload()
    each = zip(document["content"]["extensions"], changes, strict=True)
    machine.report_items(document["generation"], [machine.item(entry, **more) for entry, more in each])


INSTALLING = {"state": "installing", "operation": "update"}
REFUSED = {"state": "failed", "operation": "enable", "code": 1009}
BACK = {"version": "1.0.0", "message": "1.1.0 failed; 1.0.0 is back"}


@pytest.mark.usefixtures("upgrading")
@pytest.mark.parametrize(
    "coming_back",
    [[(BACK, BACK)], [(INSTALLING, BACK)], [(BACK, INSTALLING)], [(INSTALLING, INSTALLING), (BACK, BACK)]],
    ids=["at-once", "failed-first", "failed-last", "on-their-way"],
)
def test_several_go_back_together(
    arm: Arm, machine: ExtensionMachine, coming_back: list[tuple[dict[str, Any], ...]]
) -> None:
    report_each(machine, {}, INSTALLING)
    assert wished(machine) == [("1.1.0", "1.0.0")] * 2, "the other one may still take the handler back"
    report_each(machine, {}, REFUSED)
    assert [state_of(arm, machine, name) for name in ("one", "two")] == ["Succeeded", "Failed"]
    for items in coming_back:
        report_each(machine, *items)
    assert wished(machine) == [("1.0.0", None)] * 2
    assert [state_of(arm, machine, name) for name in ("one", "two")] == ["Succeeded", "Succeeded"]
    machine.report_all()
    assert [state_of(arm, machine, name) for name in ("one", "two")] == ["Succeeded", "Succeeded"]
    audited = machine.hub.run("audit", "--target", path_of(machine, "one"), "--json").stdout
    assert '"version": "1.0.0"' in audited.partition('"machines/extensions/upgrade"')[0], "the newest is the first"


@pytest.mark.usefixtures("upgrading")
def test_an_upgrade_of_several_is_over_when_all_have_succeeded(machine: ExtensionMachine) -> None:
    report_each(machine, {}, INSTALLING)
    assert wished(machine) == [("1.1.0", "1.0.0")] * 2
    machine.report_all()
    assert wished(machine) == [("1.1.0", None)] * 2


@pytest.mark.usefixtures("upgrading")
def test_an_upgrade_of_several_that_gets_no_outcome_is_taken_back_as_a_whole(
    arm: Arm, machine: ExtensionMachine
) -> None:
    report_each(machine, {}, INSTALLING)
    machine.hub.execute("UPDATE extensions SET began = began - 6 * 3600 WHERE state = 'Updating'")
    until(lambda: wished(machine) == [("1.0.0", None)] * 2, what=lambda: wished(machine))
    assert [state_of(arm, machine, name) for name in ("one", "two")] == ["Succeeded", "Succeeded"]


@pytest.mark.usefixtures("upgrading")
def test_a_removal_that_gets_no_outcome_takes_none_of_several_back(arm: Arm, machine: ExtensionMachine) -> None:
    assert arm("DELETE", path_of(machine, "two")).status_code == 202
    machine.hub.execute("UPDATE extensions SET began = began - 6 * 3600 WHERE state = 'Deleting'")
    until(lambda: state_of(arm, machine, "two") == "Failed")
    assert wished(machine) == [("1.1.0", "1.0.0")]


@pytest.mark.parametrize("by", ["settings", "upgradeExtensions", "another"])
def test_a_write_is_for_all_of_several(arm: Arm, machine: ExtensionMachine, upgrading: str, by: str) -> None:
    """A document never has one extension of a handler that goes back without the others."""
    report_each(machine, {}, REFUSED)
    body = wish(publisher="Auto", type=upgrading, typeHandlerVersion="1.1.0", settings={"a": 1})
    answer = {
        "settings": lambda: arm("PATCH", path_of(machine, "one"), {"properties": {"settings": {"a": 1}}}),
        "upgradeExtensions": lambda: arm("POST", f"{machine.resource_id}/upgradeExtensions", {}),
        "another": lambda: arm("PUT", path_of(machine, "three"), body),
    }[by]()
    assert answer.status_code == 202, answer.text
    assert set(wished(machine)) == {("1.1.0", None)}


def test_the_version_that_is_wished_is_shown_and_can_be_pinned(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine
) -> None:
    pinned, automatic = wish(enableAutomaticUpgrade=False), wish(enableAutomaticUpgrade=True)
    arm("PUT", path_of(machine), automatic)
    machine.report_all()
    catalogue_of(hub, [*PACKAGES, package("Hawser", "CustomScript", "1.9.9")])
    until(lambda: machine.content()["extensions"][0]["version"] == "1.9.9")
    machine.report_all()
    shown = arm("GET", path_of(machine)).json()
    assert shown["properties"]["typeHandlerVersion"] == "1.9.9"
    # Neither the same wish again moves it, nor what a client read and writes back, nor the end of upgrades alone.
    for method, body in (
        ("PUT", automatic),
        ("PUT", shown),
        ("PATCH", {"properties": {"enableAutomaticUpgrade": False}}),
    ):
        assert arm(method, path_of(machine), body).status_code == 200
        assert machine.content()["extensions"][0]["version"] == "1.9.9"
    assert arm("PUT", path_of(machine), pinned).status_code == 202
    assert machine.content()["extensions"][0]["version"] == "1.0.3"
    machine.report_all()
    assert arm("GET", path_of(machine)).json()["properties"]["typeHandlerVersion"] == "1.0.3"
    assert arm("PUT", path_of(machine), pinned).status_code == 200
    catalogue_of(hub, PACKAGES)


def test_what_is_locked_is_not_written_by_other_ways(hub: HubProcess, arm: Arm, machine: ExtensionMachine) -> None:
    def retry() -> int:
        query = "SELECT retry FROM extensions WHERE machine_id = (SELECT id FROM machines WHERE name = :name)"
        return int(hub.rows(query, name=machine.name)[0][0])

    place, name = machine.resource_id, "CustomScript"
    arm("PUT", path_of(machine, name), wish(settings={"a": 1}, enableAutomaticUpgrade=True))
    probe = {"publisher": "Hawser", "type": "HealthProbe", "typeHandlerVersion": "1.0.0"}
    machine.report_all()
    lock = f"{path_of(machine, name)}/providers/Microsoft.Authorization/locks/keep"
    assert arm("PUT", lock, {"properties": {"level": "ReadOnly"}}).status_code == 201
    before = machine.payload()
    script = {"publisher": "Hawser", "type": "CustomScript", "settings": {"a": 2}}
    for action, body in (
        ("addExtensions", {"extensions": [probe, script]}),
        ("upgradeExtensions", {"extensionTargets": {"Hawser.CustomScript": {"targetVersion": "2.0.0"}}}),
        ("upgradeExtensions", {}),
    ):
        assert code_of(arm("POST", f"{place}/{action}", body)) == (409, "ScopeLocked"), action
    looked = retry()
    time.sleep(1)  # the hub's times are whole seconds
    catalogue_of(hub, [*PACKAGES, package("Hawser", "CustomScript", "1.9.8")])
    until(lambda: retry() > looked, what="the hub has looked, and left it alone")
    after = machine.payload()
    assert (after["generation"], after["content"]) == (before["generation"], before["content"])
    assert arm("POST", f"{place}/addExtensions", {"extensions": [probe]}).status_code == 202
    assert arm("DELETE", lock).status_code == 200
    assert arm("POST", f"{place}/upgradeExtensions", {}).status_code == 202
    catalogue_of(hub, PACKAGES)


def test_limits(arm: Arm, machine: ExtensionMachine) -> None:
    text = {f"k{number}": "x" * 60_000 for number in range(10)}
    assert arm("PUT", path_of(machine), wish(settings=text)).status_code == 202
    probe = wish(type="HealthProbe", typeHandlerVersion="1.0.0", settings=text)
    refused = arm("PUT", path_of(machine, "probe"), probe)
    assert code_of(refused) == (400, "DesiredStateTooLarge")
    assert len(machine.desired("extensions").json()["document"]) < 1024 * 1024 - 2048
    assert arm("PATCH", path_of(machine), {"properties": {"settings": {}}}).status_code == 202
    command = wish(type="RunCommand", typeHandlerVersion="1.0.0")
    for number in range(255):
        assert arm("PUT", path_of(machine, f"r{number}"), command).status_code == 202
    assert code_of(arm("PUT", path_of(machine, "more"), command)) == (409, "ExtensionLimitExceeded")
    first = arm("GET", f"{machine.resource_id}/extensions").json()
    assert len(first["value"]) == 200
    assert len(arm("GET", first["nextLink"]).json()["value"]) == 56
    assert len(machine.content()["extensions"]) == 256


def test_operations_are_told_after_a_restart_and_to_nobody_else(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine
) -> None:
    answer = arm("PUT", path_of(machine), wish())
    other = hub.token(hub.principal("onboarding", "Onboarding"))
    foreign = hub.session().get(
        answer.headers["Azure-AsyncOperation"], headers={"Authorization": f"Bearer {other}"}, timeout=30
    )
    assert foreign.status_code == 404
    assert hub.stop() == 0
    hub.start()
    assert operation_of(arm, answer)["status"] == "InProgress"
    machine.http.close()
    assert machine.checkin().status_code == 200
    machine.report_all()
    assert operation_of(arm, answer)["status"] == "Succeeded"

# SPDX-License-Identifier: Apache-2.0
"""Extensions at the hub, with the unmodified SDK on one side and a machine played over the channel on the other
(docs/protocol.md section 15, identity-and-arm-api.md C.3, C.4, C.7)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.hybridcompute import models
from jsonschema import Draft7Validator

from tests.integration.extension_machine import ExtensionMachine
from tests.integration.extension_site import (
    Arm,
    Client,
    G,
    arm_of,
    code_of,
    name_of,
    operation_of,
    path_of,
    running,
    script,
    sdk,
    state_of,
    wish,
)
from tests.integration.hub_machine import make_csr, make_key
from tests.integration.hub_process import REPOSITORY, HubProcess

SCHEMA = json.loads((REPOSITORY / "docs/schemas/desired-extensions.schema.json").read_text())


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running(tmp_path_factory.mktemp("hub") / "data") as made:
        yield made


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


@pytest.fixture(scope="module")
def token(hub: HubProcess, owner: dict[str, Any]) -> str:
    return hub.token(owner)


@pytest.fixture(scope="module")
def arm(hub: HubProcess, token: str) -> Arm:
    return arm_of(hub, token)


@pytest.fixture(scope="module")
def client(hub: HubProcess, owner: dict[str, Any]) -> Iterator[Client]:
    with sdk(hub, owner) as made:
        yield made


@pytest.fixture
def machine(hub: HubProcess, token: str, request: pytest.FixtureRequest) -> ExtensionMachine:
    return ExtensionMachine.connected(hub, name_of(request), token)


def test_put_document_report_and_the_pollers_end(client: Client, machine: ExtensionMachine) -> None:
    poller = client.machine_extensions.begin_create_or_update(G, machine.name, "script", script())
    content = machine.content()
    Draft7Validator(SCHEMA).validate(content)
    (item,) = content["extensions"]
    assert (item["name"], item["version"], item["sequence"]) == ("script", "1.0.3", 0)
    assert item["publicSettings"] == {"commandToExecute": "true"}
    assert item["package"]["path"] == "extensions/Hawser.CustomScript/1.0.3/linux.zip"
    shown = client.machine_extensions.get(G, machine.name, "script")
    assert shown.properties is not None
    assert (shown.properties.provisioning_state, shown.properties.instance_view) == ("Creating", None)
    machine.report_all(state="installing", operation="install")
    machine.report_all(message="done")
    result = poller.result()
    assert result.properties is not None
    assert (result.name, result.properties.provisioning_state) == ("script", "Succeeded")
    shown = client.machine_extensions.get(G, machine.name, "SCRIPT")
    assert shown.properties is not None
    assert shown.properties.instance_view is not None
    assert shown.properties.instance_view.type_handler_version == "1.0.3"
    assert shown.properties.instance_view.status is not None
    assert shown.properties.instance_view.status.message == "done"


def test_an_update_of_the_sdk(client: Client, machine: ExtensionMachine) -> None:
    client.machine_extensions.begin_create_or_update(G, machine.name, "script", script())
    machine.report_all()

    def update(tags: dict[str, str] | None = None, **properties: Any) -> Any:
        changed = models.MachineExtensionUpdateProperties(**properties) if properties else None
        wanted = models.MachineExtensionUpdate(tags=tags, properties=changed)
        return client.machine_extensions.begin_update(G, machine.name, "script", wanted)

    result = update(tags={"env": "test"}).result()
    assert (result.tags, machine.payload()["generation"]) == ({"env": "test"}, 1), "nothing for the machine to do"
    poller = update(settings={"commandToExecute": "id"}, type_handler_version="1.2.0")
    (item,) = machine.content()["extensions"]
    assert (item["version"], item["sequence"], item["publicSettings"]) == ("1.2.0", 1, {"commandToExecute": "id"})
    machine.report_all()
    result = poller.result()
    assert result.tags == {"env": "test"}
    assert result.properties.type_handler_version == "1.2.0"
    assert result.properties.provisioning_state == "Succeeded"
    poller = update(settings={"commandToExecute": "exit 3"})
    machine.report_all(state="failed", code=3, message="it ended with 3")
    with pytest.raises(HttpResponseError, match="it ended with 3"):
        poller.result()


def test_the_same_again_changes_nothing(arm: Arm, machine: ExtensionMachine) -> None:
    first = arm("PUT", path_of(machine), wish(settings={"a": 1}, protectedSettings={"password": "x"}))
    assert first.status_code == 202
    assert int(first.headers["Retry-After"]) >= 1
    again = arm("PUT", path_of(machine), wish(settings={"a": 1}, protectedSettings={"password": "x"}))
    assert again.status_code == 202, "not finished, and the same wish"
    machine.report_all()
    assert operation_of(arm, first)["status"] == operation_of(arm, again)["status"] == "Succeeded"
    before = machine.payload()
    body: dict[str, Any]
    for body in (
        wish(settings={"a": 1}, protectedSettings={"password": "x"}),
        wish(settings={"a": 1}),
        arm("GET", path_of(machine)).json(),  # az reads the whole and writes it back
        {"location": "local", "properties": {}, "tags": {"env": "prod"}},
        wish(autoUpgradeMinorVersion=False),
    ):
        answer = arm("PUT", path_of(machine).upper().replace("/SUBSCRIPTIONS", "/subscriptions"), body)
        assert (answer.status_code, "Azure-AsyncOperation" in answer.headers) == (200, False), answer.text
        assert answer.json()["properties"]["provisioningState"] == "Succeeded"
        assert "protectedSettings" not in answer.json()["properties"]
    assert arm("PATCH", path_of(machine), {"tags": {"env": "test"}}).json()["tags"] == {"env": "test"}
    after = machine.payload()
    assert (after["generation"], after["content"]) == (before["generation"], before["content"])


def test_what_changes_raises_the_sequence(arm: Arm, machine: ExtensionMachine) -> None:
    found = []
    body: dict[str, Any]
    for body in (
        wish(settings={"a": 1}),
        wish(settings={"a": 2}),
        wish(forceUpdateTag="one"),
        wish(protectedSettings={"k": "v"}),
        wish(protectedSettings={"k": "w"}),
        wish(protectedSettings={}),
        wish(typeHandlerVersion="1.2.0"),
        {"properties": {"settings": {}}},
    ):
        method = "PUT" if "location" in body else "PATCH"
        answer = arm(method, path_of(machine), body)
        assert answer.status_code == 202, answer.text
        (item,) = machine.content()["extensions"]
        found.append((item["sequence"], item["version"], item["publicSettings"], item["protectedSettings"] is not None))
        machine.report_all()
        assert state_of(arm, machine) == "Succeeded"
    assert found == [
        (0, "1.0.3", {"a": 1}, False),
        (1, "1.0.3", {"a": 2}, False),
        (2, "1.0.3", {"a": 2}, False),
        (3, "1.0.3", {"a": 2}, True),
        (4, "1.0.3", {"a": 2}, True),
        (5, "1.0.3", {"a": 2}, False),
        (5, "1.2.0", {"a": 2}, False),
        (6, "1.2.0", {}, False),
    ]


def test_protected_settings_are_for_the_machine_alone(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine, tmp_path: Path, token: str
) -> None:
    secret = f"s3cret-ümläut-{uuid4()}"
    protected = {"commandToExecute": secret, "nested": {"list": [1, None]}}
    assert arm("PUT", path_of(machine), wish(protectedSettings=protected)).status_code == 202
    content = machine.content()
    Draft7Validator(SCHEMA).validate(content)
    (item,) = content["extensions"]
    assert json.loads(machine.opened(item, content["certificates"], tmp_path)) == protected
    machine.report_all()
    for path in (path_of(machine), f"{machine.resource_id}/extensions", machine.resource_id):
        answer = arm("GET", path, **{"$expand": "instanceView"})
        assert "s3cret" not in answer.text
        assert item["protectedSettings"] not in answer.text
    # A renewed certificate of the same key: what is there stays, and is still named by its own certificate.
    again = {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "csr": make_csr(make_key())}
    settings_csr = make_csr(machine.settings_key)
    assert machine.post("renew", {**again, "settingsCsr": settings_csr}).json()["settingsCertificate"]
    assert arm("PUT", path_of(machine), wish(protectedSettings=protected)).status_code == 200
    content = machine.content()
    assert content["extensions"][0] == item
    assert json.loads(machine.opened(content["extensions"][0], content["certificates"], tmp_path)) == protected
    # Of another key: the old envelope is of no use, and the same settings are encrypted anew.
    machine.settings_key = make_key()
    again["requestId"] = str(uuid4())
    other = machine.post("renew", {**again, "settingsCsr": make_csr(machine.settings_key)})
    assert other.json()["settingsCertificate"]
    assert arm("PUT", path_of(machine), wish(protectedSettings=protected)).status_code == 202
    content = machine.content()
    assert content["extensions"][0]["sequence"] == 1
    assert json.loads(machine.opened(content["extensions"][0], content["certificates"], tmp_path)) == protected
    audit = hub.session().get(f"{hub.url}/hawser/v1/audit", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    (entry, *_) = [row for row in audit.json()["value"] if row["target"] == path_of(machine)]
    assert "protectedSettings" in entry["detail"]["members"]
    assert "s3cret" not in audit.text
    for file in hub.data.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file


def test_a_key_that_another_machine_has_is_not_certified(hub: HubProcess, arm: Arm, token: str) -> None:
    """A disk was copied with extd's key: who holds it could read what is meant for the original."""
    original = ExtensionMachine.connected(hub, "with-its-key", token)
    clone = ExtensionMachine(hub, "with-a-copied-key")
    assert clone.put(token).status_code == 200
    csr = make_csr(original.settings_key)
    enrolled = clone.enrol(token, settingsCsr=csr)
    assert (enrolled.status_code, enrolled.json()["settingsCertificate"]) == (200, None)
    assert [answer.status_code for answer in (clone.ask_token(), clone.checkin())] == [200, 200]

    def renewed(machine: ExtensionMachine, settings_csr: str) -> Any:
        return machine.post("renew", {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "settingsCsr": settings_csr})

    refused = renewed(clone, csr)
    assert code_of(refused) == (409, "SettingsKeyInUse")
    assert "with-its-key" in refused.json()["error"]["message"]
    assert "GuestConfig/extensions/keys" in refused.json()["error"]["message"]
    assert renewed(original, csr).json()["settingsCertificate"], "the machine's own stays its own"
    assert renewed(clone, make_csr(make_key())).json()["settingsCertificate"]
    # A machine that is gone has no key; one that comes again may bring the key that it had.
    assert arm("DELETE", original.resource_id).status_code in (200, 204)
    again = ExtensionMachine(hub, "with-its-key-again")
    assert again.put(token).status_code == 200
    assert again.enrol(token, settingsCsr=csr).json()["settingsCertificate"]


def test_protected_settings_need_a_certificate(hub: HubProcess, arm: Arm, token: str) -> None:
    machine = ExtensionMachine.connected(hub, "without", token, certificate=False)
    refused = arm("PUT", path_of(machine), wish(protectedSettings={"a": "b"}))
    assert code_of(refused) == (409, "SettingsCertificateMissing")
    assert code_of(arm("GET", path_of(machine))) == (404, "ResourceNotFound")
    assert arm("PUT", path_of(machine), wish()).status_code == 202


def test_a_failure_has_the_agents_code_and_message(client: Client, arm: Arm, machine: ExtensionMachine) -> None:
    poller = client.machine_extensions.begin_create_or_update(G, machine.name, "script", script())
    first = arm("PUT", path_of(machine), wish(settings={"commandToExecute": "true"}))
    machine.report_all(state="failed", code=1009, message="enable ended with 3: no such file")
    with pytest.raises(HttpResponseError) as failed:
        poller.result()
    assert failed.value.error is not None
    assert (failed.value.error.code, failed.value.error.message) == ("1009", "enable ended with 3: no such file")
    assert code_of(arm("GET", first.headers["Location"])) == (400, "1009")
    shown = arm("GET", path_of(machine)).json()["properties"]
    assert shown["provisioningState"] == "Failed"
    assert shown["instanceView"]["status"]["level"] == "Error"
    assert arm("PATCH", path_of(machine), {"tags": {"env": "test"}}).status_code == 200, "tags are no new try"
    again = arm("PUT", path_of(machine), wish(settings={"commandToExecute": "true"}))
    assert again.status_code == 202, "what failed is tried again"
    assert machine.content()["extensions"][0]["sequence"] == 1
    machine.report_all(
        state="failed", status={"status": "error", "code": 7, "formattedMessage": {"lang": "en", "message": "of mine"}}
    )
    assert operation_of(arm, again)["error"] == {"code": "7", "message": "of mine"}


def test_the_location_gives_the_resource_at_the_end(arm: Arm, machine: ExtensionMachine) -> None:
    answer = arm("PUT", path_of(machine), wish())
    waiting = arm("GET", answer.headers["Location"])
    assert (waiting.status_code, waiting.headers["Location"]) == (202, answer.headers["Location"])
    assert int(waiting.headers["Retry-After"]) >= 1
    running = operation_of(arm, answer)
    assert (running["status"], running["percentComplete"]) == ("InProgress", 0.0)
    machine.report_all(state="transitioning")
    assert arm("GET", answer.headers["Location"]).status_code == 202
    machine.report_all()
    done = arm("GET", answer.headers["Location"])
    assert (done.status_code, done.json()["properties"]["provisioningState"]) == (200, "Succeeded")


def test_delete_ends_when_the_machine_says_so(client: Client, arm: Arm, machine: ExtensionMachine) -> None:
    client.machine_extensions.begin_create_or_update(G, machine.name, "script", script())
    machine.report_all()
    document = machine.payload()
    poller = client.machine_extensions.begin_delete(G, machine.name, "script")
    assert state_of(arm, machine) == "Deleting"
    assert machine.content()["extensions"] == []
    machine.report_items(document["generation"], [])  # late, and of the document before
    assert state_of(arm, machine) == "Deleting"
    wanted = document["content"]["extensions"][0]
    machine.report_items(machine.payload()["generation"], [machine.item(wanted, state="removing", operation="disable")])
    again = arm("DELETE", path_of(machine))
    assert again.status_code == 202
    machine.report_all()
    poller.result()
    assert operation_of(arm, again)["status"] == "Succeeded"
    assert arm("GET", again.headers["Location"]).status_code == 204
    assert code_of(arm("GET", path_of(machine))) == (404, "ResourceNotFound")
    assert arm("DELETE", path_of(machine)).status_code == 204


def test_what_is_being_removed_is_made_anew_or_left_alone(arm: Arm, machine: ExtensionMachine) -> None:
    arm("PUT", path_of(machine), {**wish(settings={"a": 1}, protectedSettings={"pw": "x"}), "tags": {"of": "old"}})
    machine.report_all()
    removal = arm("DELETE", path_of(machine))
    for change in ({"tags": {"t": "1"}}, {"properties": {"settings": {"a": 2}}}):
        assert code_of(arm("PATCH", path_of(machine), change)) == (409, "Conflict")
    assert machine.content()["extensions"] == []
    assert operation_of(arm, removal)["status"] == "InProgress"
    assert code_of(arm("PUT", path_of(machine), {"location": "local", "properties": {}})) == (
        400,
        "InvalidRequestContent",
    )
    other = wish(type="HealthProbe", typeHandlerVersion="1.0.0")
    assert code_of(arm("PUT", path_of(machine), other)) == (409, "PropertyChangeNotAllowed")
    answer = arm(
        "PUT", path_of(machine), {"location": "local", "properties": {"publisher": "Hawser", "type": "CustomScript"}}
    )
    assert answer.status_code == 202
    assert (answer.json()["tags"], answer.json()["properties"].get("settings")) == ({}, None)
    (entry,) = machine.content()["extensions"]
    assert (entry["publicSettings"], entry["protectedSettings"], entry["sequence"]) == (None, None, 1)
    assert entry["version"] == "2.0.0", "nor does the version of what was there stay"
    assert operation_of(arm, removal)["status"] == "Canceled"
    # The settings of before are other ones than those of what was made anew.
    arm("PUT", path_of(machine), wish(typeHandlerVersion="2.0.0", protectedSettings={"pw": "x"}))
    assert machine.content()["extensions"][0]["sequence"] == 2


def test_extensions_come_after_others(arm: Arm, machine: ExtensionMachine) -> None:
    def put(name: str, kind: str, **more: Any) -> Any:
        return arm("PUT", path_of(machine, name), wish(type=kind, typeHandlerVersion=None, **more))

    def levels() -> dict[str, int]:
        return {item["name"]: item["dependencyLevel"] for item in machine.content()["extensions"]}

    after = "provisionAfterExtensions"
    assert code_of(put("b", "HealthProbe", **{after: ["a"]})) == (400, "InvalidRequestContent")
    assert put("a", "CustomScript").status_code == 202
    assert put("b", "HealthProbe", **{after: ["A"]}).status_code == 202
    assert put("c", "RunCommand", **{after: ["b", "a", "B"]}).status_code == 202
    assert levels() == {"a": 0, "b": 1, "c": 2}
    assert arm("GET", path_of(machine, "c")).json()["properties"][after] == ["B", "a"]
    machine.report_all()
    before = machine.payload()["generation"]
    for bad in (["c"], ["a"], ["nobody"], ["a/b"], "b"):
        answer = arm("PATCH", path_of(machine, "a"), {"properties": {after: bad}})
        assert code_of(answer) == (400, "InvalidRequestContent")
        assert answer.json()["error"]["target"] == f"properties.{after}"
    assert machine.payload()["generation"] == before
    arm("PATCH", path_of(machine, "c"), {"properties": {after: []}})
    assert (levels(), machine.payload()["generation"]) == ({"a": 0, "b": 1, "c": 0}, before + 1)
    (changed,) = [item for item in machine.content()["extensions"] if item["name"] == "c"]
    assert changed["sequence"] == 0, "the handler has nothing to do"
    machine.report_all()
    arm("DELETE", path_of(machine, "a"))
    assert levels() == {"b": 0, "c": 0}


def test_a_removal_that_fails_says_why_and_is_tried_again(arm: Arm, machine: ExtensionMachine) -> None:
    """As the agent reports a folder that it cannot delete."""
    arm("PUT", path_of(machine), wish())
    machine.report_all()
    wanted = machine.content()["extensions"][0]
    answer = arm("DELETE", path_of(machine))
    generation = machine.payload()["generation"]
    failed = machine.item(wanted, state="failed", operation="uninstall", code=1000, message="delete failed: busy")
    machine.report_items(generation, [failed])
    assert operation_of(arm, answer)["error"] == {"code": "1000", "message": "delete failed: busy"}
    again = arm("DELETE", path_of(machine))
    assert machine.payload()["generation"] == generation + 1, "the machine has something to do"
    machine.report_items(generation, [failed])
    assert operation_of(arm, again)["status"] == "InProgress"
    machine.report_items(generation + 1, [])
    assert operation_of(arm, again)["status"] == "Succeeded"
    assert state_of(arm, machine) == "gone"


def test_a_removal_over_a_failure_succeeds_and_the_failure_is_audited(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine
) -> None:
    """As the agent reports a handler whose uninstall fails."""
    arm("PUT", path_of(machine), wish())
    machine.report_all()
    wanted = machine.content()["extensions"][0]
    answer = arm("DELETE", path_of(machine))
    generation = machine.payload()["generation"]
    text = "uninstall of Hawser.CustomScript 1.0.3 failed with exit code 4: in use"
    leaving = machine.item(wanted, state="removing", operation="uninstall", code=1000, message=text)
    machine.report_items(generation, [leaving])
    shown = arm("GET", path_of(machine)).json()["properties"]
    status = shown["instanceView"]["status"]
    assert (shown["provisioningState"], status["level"], status["message"]) == ("Deleting", "Warning", text)
    machine.report_items(generation, [])
    assert operation_of(arm, answer)["status"] == "Succeeded"
    lines = hub.run("audit", "--target", path_of(machine), "--json").stdout.splitlines()
    (removed,) = [entry for entry in map(json.loads, lines) if entry["action"] == "machines/extensions/removed"]
    assert removed["detail"] == {"code": "1000", "message": text}


def test_a_machine_that_never_connected(hub: HubProcess, arm: Arm, token: str) -> None:
    machine = ExtensionMachine(hub, "never")
    assert machine.put(token).status_code == 200
    assert arm("PUT", path_of(machine), wish()).status_code == 202
    assert arm("DELETE", path_of(machine)).status_code == 204
    assert state_of(arm, machine) == "gone"


def test_a_newer_wish_replaces_an_older(arm: Arm, machine: ExtensionMachine) -> None:
    first = arm("PUT", path_of(machine), wish(settings={"a": 1}))
    second = arm("PUT", path_of(machine), wish(settings={"a": 2}))
    told = operation_of(arm, first)
    assert (told["status"], told["error"]["code"]) == ("Canceled", "OperationPreempted")
    removal = arm("DELETE", path_of(machine))
    assert operation_of(arm, second)["status"] == "Canceled"
    third = arm("PUT", path_of(machine), wish(settings={"a": 3}))
    assert operation_of(arm, removal)["status"] == "Canceled"
    (item,) = machine.content()["extensions"]
    assert item["sequence"] == 2, "never the number of other settings, whatever the machine has done"
    machine.report_all()
    assert operation_of(arm, third)["status"] == "Succeeded"


def test_versions(arm: Arm, machine: ExtensionMachine) -> None:
    def version(name: str, **properties: Any) -> Any:
        answer = arm("PUT", path_of(machine, name), wish(**properties))
        if answer.status_code != 202:
            return answer.json()["error"]["code"], answer.json()["error"]["message"]
        item = machine.content()["extensions"][0]
        assert arm("DELETE", path_of(machine, name)).status_code == 202
        machine.report_all()
        return item["version"]

    assert version("minor", typeHandlerVersion="1.0", autoUpgradeMinorVersion=True) == "1.2.0"
    assert version("two", typeHandlerVersion="2", autoUpgradeMinorVersion=True) == "2.0.0"
    assert version("exact", typeHandlerVersion="1.0.2") == "1.0.2"
    assert version("newest", typeHandlerVersion=None) == "2.0.0"
    code, message = version("none", typeHandlerVersion="1.0")
    assert code == "ExtensionVersionNotFound"
    assert "1.0.2, 1.0.3, 1.2.0, 2.0.0" in message
    assert version("above", typeHandlerVersion="1.9", autoUpgradeMinorVersion=True)[0] == "ExtensionVersionNotFound"
    assert version("unknown", type="Nothing")[0] == "ExtensionNotFound"
    assert version("word", typeHandlerVersion="latest")[0] == "InvalidRequestContent"


def test_bad_wishes(arm: Arm, machine: ExtensionMachine) -> None:
    for name, body, told in (
        ("-x", wish(), (400, "InvalidResourceName")),
        ("x" * 81, wish(), (400, "InvalidResourceName")),
        ("x", {"location": "local"}, (400, "InvalidRequestContent")),
        ("x", wish(publisher="../etc"), (400, "InvalidRequestContent")),
        ("x", wish(settings="text"), (400, "InvalidRequestContent")),
        ("x", wish(protectedSettings=[]), (400, "InvalidRequestContent")),
        ("x", wish(enableAutomaticUpgrade="yes"), (400, "InvalidRequestContent")),
        ("x", wish() | {"location": "mars"}, (400, "LocationNotAvailableForResourceType")),
        ("x", wish() | {"tags": {"a": 1}}, (400, "InvalidRequestContent")),
    ):
        assert code_of(arm("PUT", path_of(machine, name), body)) == told, name
    assert code_of(arm("PATCH", path_of(machine), wish())) == (404, "ResourceNotFound")
    assert code_of(arm("PUT", f"{machine.resource_id}x/extensions/script", wish())) == (404, "ResourceNotFound")
    assert arm("PUT", path_of(machine), wish()).status_code == 202
    assert code_of(arm("PUT", path_of(machine), wish(type="HealthProbe"))) == (409, "PropertyChangeNotAllowed")
    assert code_of(arm("PUT", path_of(machine, "other"), wish())) == (409, "Conflict")
    assert arm("GET", f"{machine.resource_id}/extensions").json()["value"][0]["name"] == "script"
    assert machine.desired("extensions").json()["generation"] == 1, "nothing that was refused is left"


def test_several_of_one_handler(arm: Arm, machine: ExtensionMachine) -> None:
    def command(version: str) -> dict[str, Any]:
        return wish(type="RunCommand", typeHandlerVersion=version)

    assert arm("PUT", path_of(machine, "one"), command("1.0.0")).status_code == 202
    assert arm("PUT", path_of(machine, "two"), command("1.0.0")).status_code == 202
    assert code_of(arm("PUT", path_of(machine, "three"), command("1.1.0"))) == (409, "Conflict")
    machine.report_all()
    answer = arm("POST", f"{machine.resource_id}/upgradeExtensions", {"extensionTargets": {}})
    assert answer.status_code == 202
    assert [item["version"] for item in machine.content()["extensions"]] == ["1.1.0", "1.1.0"]
    machine.report_all(state="failed", code=1008, message="update failed")
    told = operation_of(arm, answer)
    assert told["status"] == "Failed"
    assert [item["target"] for item in told["error"]["details"]] == ["one", "two"]


def test_upgrade_extensions(client: Client, arm: Arm, machine: ExtensionMachine) -> None:
    def upgrade(**targets: str) -> Any:
        named = {
            f"Hawser.{name}": models.ExtensionTargetProperties(target_version=version)
            for name, version in targets.items()
        }
        wanted = models.MachineExtensionUpgrade(extension_targets=named)
        return client.begin_upgrade_extensions(G, machine.name, wanted)

    arm("PUT", path_of(machine), wish(typeHandlerVersion="1.0.2", settings={"a": 1}))
    arm("PUT", path_of(machine, "probe"), wish(type="HealthProbe", typeHandlerVersion="1.0.0"))
    machine.report_all()
    poller = upgrade(CustomScript="1.2.0")
    script_item, _ = machine.content()["extensions"]
    assert (script_item["version"], script_item["sequence"], script_item["rollbackTo"]) == ("1.2.0", 0, None)
    assert (state_of(arm, machine), state_of(arm, machine, "probe")) == ("Updating", "Succeeded")
    machine.report_all(operation="update")
    poller.result()
    assert arm("GET", path_of(machine)).json()["properties"]["typeHandlerVersion"] == "1.2.0"
    poller = upgrade()
    machine.report_all(operation="update")
    poller.result()
    assert arm("GET", path_of(machine)).json()["properties"]["instanceView"]["typeHandlerVersion"] == "2.0.0"
    upgrade().result()  # all have the newest
    downgrade = upgrade(CustomScript="1.0.3")
    machine.report_all(operation="update")
    downgrade.result()
    for targets in ({"CustomScript": "9.9"}, {"Nothing": "1.0"}):
        with pytest.raises(HttpResponseError) as refused:
            upgrade(**targets)
        assert refused.value.status_code == 400


@pytest.mark.parametrize("targets", [{}, {"extensionTargets": {"Hawser.CustomScript": {"targetVersion": "2.0.0"}}}])
def test_an_upgrade_that_failed_is_tried_again(arm: Arm, machine: ExtensionMachine, targets: dict[str, Any]) -> None:
    upgrade = f"{machine.resource_id}/upgradeExtensions"
    arm("PUT", path_of(machine), wish(typeHandlerVersion="1.0.3"))
    machine.report_all()
    assert arm("POST", upgrade, targets).status_code == 202
    machine.report_all(state="failed", code=1008, version="1.0.3")
    assert state_of(arm, machine) == "Failed"
    again = arm("POST", upgrade, targets)
    assert (again.status_code, state_of(arm, machine)) == (202, "Updating")
    (entry,) = machine.content()["extensions"]
    assert (entry["version"], entry["sequence"]) == ("2.0.0", 1), "handlers do a sequence once"
    machine.report_all()
    assert operation_of(arm, again)["status"] == "Succeeded"
    assert arm("POST", upgrade, targets).status_code == 200


def test_add_extensions(client: Client, machine: ExtensionMachine) -> None:
    wanted = models.SetupExtensionRequest(
        extensions=[
            models.MachineExtensionProperties(publisher="Hawser", type="CustomScript", type_handler_version="1.0.3"),
            models.MachineExtensionProperties(publisher="Hawser", type="HealthProbe"),
        ]
    )
    poller = client.begin_setup_extensions(G, machine.name, wanted)
    assert [item["name"] for item in machine.content()["extensions"]] == ["CustomScript", "HealthProbe"]
    machine.report_all()
    result = poller.result()
    assert result.extensions is not None
    assert [item.type for item in result.extensions] == ["CustomScript", "HealthProbe"]
    assert {item.name for item in client.machine_extensions.list(G, machine.name, expand="instanceView")} == {
        "CustomScript",
        "HealthProbe",
    }


def test_the_catalogue(client: Client) -> None:
    assert [item.name for item in client.extension_publisher.list("local")] == ["Hawser"]
    types = [item.name for item in client.extension_type.list("local", "hawser")]
    assert types == ["CustomScript", "HealthProbe", "RunCommand"]
    found = list(client.extension_metadata_v2.list("local", "Hawser", "customscript"))
    assert [item.name for item in found][:4] == ["1.0.2", "1.0.3", "1.2.0", "2.0.0"]
    one = client.extension_metadata_v2.get("local", "Hawser", "CustomScript", "1.2.0")
    assert one.properties is not None
    assert one.properties.operating_system == "Linux, Windows"
    assert one.properties.extension_uris is not None
    assert one.properties.extension_uris[0].endswith(
        f"/artefacts/targets/extensions/Hawser.CustomScript/1.2.0/{'ab' * 32}.linux.zip"
    )
    assert [item.name for item in client.extension_metadata.list("local", "Hawser", "HealthProbe")] == ["1.0.0"]
    old = client.extension_metadata.get("local", "Hawser", "HealthProbe", "1.0.0")
    assert old.properties is not None
    assert (old.properties.publisher, old.properties.extension_type) == ("Hawser", "HealthProbe")

# SPDX-License-Identifier: Apache-2.0
"""What an operator may wish of extensions, with the unmodified SDK on one side and a machine played over the channel on
the other (docs/protocol.md section 15, identity-and-arm-api.md C.3, C.4, C.7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.hybridcompute import models
from jsonschema import Draft7Validator

from tests.integration.extension_machine import ExtensionMachine
from tests.integration.extension_site import Arm, Client, G, code_of, operation_of, path_of, script, state_of, wish
from tests.integration.hub_process import REPOSITORY, HubProcess

SCHEMA = json.loads((REPOSITORY / "docs/schemas/desired-extensions.schema.json").read_text())


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

# SPDX-License-Identifier: Apache-2.0
"""How a wish ends: with the machine's success or failure, by removal, at the pollers of operations (docs/protocol.md
section 15, identity-and-arm-api.md C.4)."""

from __future__ import annotations

import json

import pytest
from azure.core.exceptions import HttpResponseError

from tests.integration.extension_machine import ExtensionMachine
from tests.integration.extension_site import Arm, Client, G, code_of, operation_of, path_of, script, state_of, wish
from tests.integration.hub_process import HubProcess


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

# SPDX-License-Identifier: Apache-2.0
"""Run commands at the hub, with the unmodified SDK on one side and a machine played over the channel on the other
(docs/protocol.md section 15.5, identity-and-arm-api.md C.8)."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.hybridcompute import models
from jsonschema import Draft7Validator

from tests.integration.extension_machine import ExtensionMachine
from tests.integration.extension_site import Arm, Client, G, arm_of, code_of, operation_of, path_of, sdk, wish
from tests.integration.hub_machine import payload_of
from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.waiting import until

SCHEMA = json.loads((REPOSITORY / "docs/schemas/desired-runcommands.schema.json").read_text())


def body(script: str = "date", **properties: Any) -> dict[str, Any]:
    """The body of a PUT."""
    return {"location": "local", "properties": {"source": {"script": script}, **properties}}


def path(machine: ExtensionMachine, name: str = "run") -> str:
    """Id of a run command."""
    return f"{machine.resource_id}/runCommands/{name}"


def document(machine: ExtensionMachine) -> dict[str, Any]:
    """The newest document of kind `runcommands`, of the documented shape."""
    found = payload_of(machine.desired("runcommands").json()["document"])
    Draft7Validator(SCHEMA).validate(found["content"])
    return found


def tell(machine: ExtensionMachine, state: str = "Succeeded", **members: Any) -> None:
    """Report every command of the newest document alike."""
    found = document(machine)
    items = [
        {
            "name": item["name"],
            "sequence": item["sequence"],
            "executionState": state,
            "executionMessage": "",
            "exitCode": 0 if state == "Succeeded" else None,
            "output": "",
            "error": "",
            "startTime": "2026-11-28T10:00:00Z",
            "endTime": None if state == "Running" else "2026-11-28T10:00:01Z",
            "at": "2026-11-28T10:00:01Z",
            **members,
        }
        for item in found["content"]["runCommands"]
    ]
    answer = machine.report("runcommands", {"generation": found["generation"], "runCommands": items})
    assert answer.status_code == 200, answer.text


def sequence(machine: ExtensionMachine) -> int:
    """That of the only command."""
    (item,) = document(machine)["content"]["runCommands"]
    return int(item["sequence"])


def state(arm: Arm, machine: ExtensionMachine) -> tuple[str, str]:
    """provisioningState and executionState."""
    properties = arm("GET", path(machine)).json()["properties"]
    return properties["provisioningState"], properties["instanceView"]["executionState"]


def test_put_document_report_and_the_pollers_end(
    hub: HubProcess, owner: dict[str, Any], machine: ExtensionMachine
) -> None:
    with sdk(hub, owner) as client:
        _drive(client, machine)


def _drive(client: Client, machine: ExtensionMachine) -> None:
    commands = client.machine_run_commands
    wanted = models.MachineRunCommand(
        location="local",
        properties=models.MachineRunCommandProperties(
            source=models.MachineRunCommandScriptSource(script="echo $GREETING"),
            parameters=[models.RunCommandInputParameter(name="GREETING", value="hello")],
            timeout_in_seconds=60,
        ),
    )
    poller = commands.begin_create_or_update(G, machine.name, "run", wanted)
    (item,) = document(machine)["content"]["runCommands"]
    assert (item["name"], item["sequence"], item["script"]) == ("run", 0, "echo $GREETING")
    assert item["parameters"] == [{"name": "GREETING", "value": "hello"}]
    assert (item["timeoutSeconds"], item["asyncExecution"], item["protected"]) == (60, False, None)
    tell(machine, "Running")
    assert not poller.done()
    tell(machine, output="hello\n", exitCode=3, executionState="Failed")
    result = poller.result()
    assert result.properties is not None
    assert result.properties.provisioning_state == "Succeeded", "the script was started, however it ended"
    view = result.properties.instance_view
    assert view is not None
    assert (view.execution_state, view.exit_code, view.output) == ("Failed", 3, "hello\n")
    assert [found.name for found in commands.list(G, machine.name, expand="instanceView")] == ["run"]
    shown = commands.get(G, machine.name, "run")
    assert shown.properties is not None
    assert shown.properties.instance_view == view
    again = commands.begin_create_or_update(G, machine.name, "run", wanted)
    assert document(machine)["content"]["runCommands"][0]["sequence"] == 1, "a PUT runs again"
    tell(machine, "Failed", startTime=None, executionMessage="no such user 'x'")
    with pytest.raises(HttpResponseError) as failed:
        again.result()
    assert "no such user" in str(failed.value.message)
    gone = commands.begin_delete(G, machine.name, "run")
    assert document(machine)["content"]["runCommands"] == []
    tell(machine)
    gone.result()
    commands.begin_delete(G, machine.name, "run").result()


def test_status_codes_and_runs(arm: Arm, machine: ExtensionMachine) -> None:
    made = arm("PUT", path(machine), body(asyncExecution=True))
    assert made.status_code == 201
    assert state(arm, machine) == ("Creating", "Pending")
    tell(machine, "Running")
    assert operation_of(arm, made)["status"] == "Succeeded", "with asyncExecution it need not have ended"
    assert state(arm, machine) == ("Succeeded", "Running")
    tell(machine, output="done")
    assert state(arm, machine) == ("Succeeded", "Succeeded")
    assert arm("PATCH", path(machine), {"tags": {"a": "b"}}).status_code == 200
    assert document(machine)["content"]["runCommands"][0]["sequence"] == 0
    changed = arm("PATCH", path(machine), {"properties": {"source": {"script": "id"}}})
    assert changed.status_code == 200
    assert state(arm, machine) == ("Updating", "Pending"), "of this run, not of the one before"
    again = arm("PUT", path(machine), body("id"))
    assert again.status_code == 200
    assert operation_of(arm, changed)["status"] == "Canceled"
    tell(machine)
    assert operation_of(arm, again)["status"] == "Succeeded"
    removal = arm("DELETE", path(machine))
    assert removal.status_code == 202
    assert code_of(arm("PATCH", path(machine), {"properties": {"source": {"script": "id"}}})) == (409, "Conflict")
    assert document(machine)["content"]["runCommands"] == []
    tell(machine)
    assert arm("GET", removal.headers["Location"]).status_code == 204
    assert arm("DELETE", path(machine)).status_code == 204


def with_id(hub: HubProcess, token: str, request_id: str | None = None) -> Arm:
    """Requests that have one id, as a client gives to all tries of one."""
    return arm_of(hub, token, {"x-ms-client-request-id": request_id or str(uuid4())})


def protected(value: str) -> dict[str, Any]:
    """Properties with a protected parameter."""
    return {"protectedParameters": [{"name": "P", "value": value}]}


def test_a_repeated_put_whose_answer_was_lost_runs_nothing_twice(
    hub: HubProcess, token: str, arm: Arm, machine: ExtensionMachine
) -> None:
    wanted = body("sleep 60", **protected("s3cret")) | {"tags": {"a": "b"}}
    client = with_id(hub, token)
    made = client("PUT", path(machine), wanted)
    tell(machine, "Running")
    before = document(machine)
    again = client("PUT", path(machine), wanted)
    assert (made.status_code, again.status_code) == (201, 200)
    assert document(machine) == before, "the machine hears of nothing"
    for name in ("Azure-AsyncOperation", "Location", "Retry-After"):
        assert again.headers[name] == made.headers[name]
    assert state(arm, machine) == ("Creating", "Running")
    assert arm("PATCH", path(machine), {"tags": {"a": "c"}}).status_code == 200, "of somebody else, and no run"
    tell(machine)
    again = client("PUT", path(machine), wanted)
    assert (again.status_code, again.json()["properties"]["provisioningState"]) == (200, "Succeeded")
    assert again.json()["tags"] == {"a": "c"}
    assert again.headers["Azure-AsyncOperation"] == made.headers["Azure-AsyncOperation"]
    assert operation_of(arm, again)["status"] == "Succeeded"
    assert sequence(machine) == 0


def test_what_is_no_repeated_put_runs(hub: HubProcess, token: str, arm: Arm, machine: ExtensionMachine) -> None:
    secret, other = protected("s3cret"), protected("another")
    wanted = body(**secret)
    client = with_id(hub, token, "constant")
    client("PUT", path(machine), wanted)
    for number, (who, what) in enumerate(
        (
            (arm, wanted),
            (arm, wanted),
            (client, wanted),
            (client, body(**other)),
            (client, body("id", **secret)),
            (client, body("id", timeoutInSeconds=60, **secret)),
            (client, body("id", timeoutInSeconds=60, **secret) | {"tags": {"a": "b"}}),
            (with_id(hub, hub.token(hub.principal("somebody", "Contributor")), "constant"), wanted),
            (with_id(hub, token), wanted),
            (client, wanted),
        ),
        1,
    ):
        assert who("PUT", path(machine), what).status_code == 200
        assert sequence(machine) == number
    client("PUT", path(machine), wanted)
    assert sequence(machine) == number
    hub.execute("UPDATE run_commands SET began = began - 3600")
    client("PUT", path(machine), wanted)
    assert sequence(machine) == number + 1, "not for ever"
    client("DELETE", path(machine))
    client("PUT", path(machine), wanted)
    assert sequence(machine) == number + 2, "made anew"
    patch = {"properties": secret}
    assert [client("PATCH", path(machine), patch).status_code for _ in range(2)] == [200, 200]
    assert sequence(machine) == number + 3, "a PATCH is repeated as well"


def test_the_sdk_follows_the_first_run_when_it_repeats(
    hub: HubProcess, owner: dict[str, Any], machine: ExtensionMachine
) -> None:
    source = models.MachineRunCommandScriptSource(script="date")
    wanted = models.MachineRunCommand(location="local", properties=models.MachineRunCommandProperties(source=source))
    headers = {"x-ms-client-request-id": str(uuid4())}
    with sdk(hub, owner) as client:
        begin = client.machine_run_commands.begin_create_or_update
        pollers = [begin(G, machine.name, "run", wanted, headers=headers) for _ in range(2)]
        assert sequence(machine) == 0
        tell(machine, output="once")
        for poller in pollers:
            properties = poller.result().properties
            assert properties is not None
            assert properties.instance_view is not None
            assert properties.instance_view.output == "once"


def test_other_protected_parameters_take_the_tag_of_the_former_with_them(arm: Arm, machine: ExtensionMachine) -> None:
    mine, other = protected("mine"), protected("another")
    tags = {"hawser-protected-digest": "of mine", "env": "prod"}

    def left(method: str, what: dict[str, Any]) -> Any:
        assert arm("PUT", path(machine), body(**mine) | {"tags": tags}).json()["tags"] == tags
        return arm(method, path(machine), what).json()["tags"]

    assert left("PATCH", {"properties": {"timeoutInSeconds": 60}}) == tags
    assert left("PATCH", {"properties": other}) == {"env": "prod"}
    assert left("PATCH", {"properties": other, "tags": tags}) == tags
    assert left("PUT", body(**other)) == {"env": "prod"}
    assert left("PUT", body()) == {"env": "prod"}


def test_who_lost_the_role_reads_nothing_through_an_operation(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine
) -> None:
    who = hub.principal("revoked-later", "Contributor")
    other = arm_of(hub, hub.token(who))
    extension = other("PUT", path_of(machine), wish())
    begun = other("PUT", path(machine), body())
    machine.report_all()
    tell(machine, output="first")
    for answer in (begun, extension):
        assert other("GET", answer.headers["Location"]).status_code == 200
    assert other("GET", begun.headers["Location"]).json()["properties"]["instanceView"]["output"] == "first"
    held = arm("GET", "/providers/Microsoft.Authorization/roleAssignments").json()["value"]
    mine = [item["id"] for item in held if item["properties"]["principalId"] == who["objectId"]]
    assert [arm("DELETE", item).status_code for item in mine] == [200]
    arm("PUT", path(machine), body())
    tell(machine, output="somebody else's")
    assert other("GET", path(machine)).status_code == 403
    for answer in (begun, extension):
        left = other("GET", answer.headers["Location"])
        assert (left.status_code, left.text) == (204, "")


def test_secrets_stay_the_machines(hub: HubProcess, arm: Arm, machine: ExtensionMachine, tmp_path: Path) -> None:
    secret, signature = "s3cret-of-a-run", "s1gnature-of-a-blob"
    blob, other = "https://blobs.example/out/log.txt", "https://blobs.example/err/log.txt"
    protected = [{"name": "PASSWORD", "value": secret}, {"value": 7}]
    addresses = {
        "outputBlobUri": f"{blob}?sv=1&sig={signature}",
        "errorBlobUri": f"{other}?SIG={signature}#{signature}",
    }
    wanted = body(protectedParameters=protected, runAsUser="app", runAsPassword=f"{secret}!", **addresses)
    shown = arm("PUT", path(machine), wanted).json()["properties"]
    assert (shown["outputBlobUri"], shown["errorBlobUri"]) == (blob, other)
    content = document(machine)["content"]
    (item,) = content["runCommands"]
    assert (item["outputBlobUri"], item["errorBlobUri"]) == (blob, other), "the machine still refuses them"
    envelope = {**item, "protectedSettings": item["protected"]}
    assert json.loads(machine.opened(envelope, content["certificates"], tmp_path)) == {
        "protectedParameters": [{"name": "PASSWORD", "value": secret}, {"name": "", "value": "7"}],
        "runAsPassword": f"{secret}!",
    }
    assert secret not in arm("GET", path(machine)).text
    patched = {"outputBlobUri": f"{other}?sig={signature}"}
    assert arm("PATCH", path(machine), {"properties": patched}).json()["properties"]["outputBlobUri"] == other
    (item,) = document(machine)["content"]["runCommands"]
    assert (item["outputBlobUri"], item["protected"] is not None) == (other, True)
    hub.run("backup", tmp_path / "backup.tar.gz")
    with tarfile.open(tmp_path / "backup.tar.gz") as backup:
        kept = [part.read() for member in backup if (part := backup.extractfile(member)) is not None]
    assert any(other.encode() in table for table in kept)
    assert not any(word.encode() in table for table in kept for word in (secret, signature))
    assert arm("PUT", path(machine), body()).status_code == 200
    (item,) = document(machine)["content"]["runCommands"]
    assert (item["outputBlobUri"], item["protected"]) == (None, None), "a PUT is the whole"
    for file in hub.data.rglob("*"):
        if file.is_file():
            found = file.read_bytes()
            assert not any(word.encode() in found for word in (secret, signature)), file


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("x" * 37, {}),
        ("-x", {}),
        ("x", {"source": None}),
        ("x", {"source": {}}),
        ("x", {"source": {"script": "a", "scriptUri": "https://a/b"}}),
        ("x", {"source": {"commandId": "IPConfig"}}),
        ("x", {"source": {"scriptUri": "file:///etc/shadow"}}),
        ("x", {"parameters": {"a": "b"}}),
        ("x", {"parameters": [{"name": "a", "value": {}}]}),
        ("x", {"timeoutInSeconds": 0}),
        ("x", {"timeoutInSeconds": True}),
        ("x", {"asyncExecution": "yes"}),
        ("x", {"outputBlobManagedIdentity": {"clientId": "x"}}),
    ],
)
def test_bad_wishes(hub: HubProcess, token: str, arm: Arm, name: str, properties: dict[str, Any]) -> None:
    machine = ExtensionMachine(hub, "wished-badly")
    if arm("GET", machine.resource_id).status_code == 404:
        ExtensionMachine.connected(hub, machine.name, token)
    answer = arm("PUT", path(machine, name), body(**properties))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].endswith(".")
    assert arm("GET", f"{machine.resource_id}/runCommands").json()["value"] == []


def test_large_scripts_and_limits(arm: Arm, machine: ExtensionMachine) -> None:
    assert arm("PUT", path(machine), body("#" * 250_000)).status_code == 201
    assert arm("PUT", path(machine, "two"), body("#" * 500_000)).status_code == 201
    assert code_of(arm("PUT", path(machine, "three"), body("#" * 250_000))) == (400, "DesiredStateTooLarge")
    assert len(document(machine)["content"]["runCommands"]) == 2
    for number in range(62):
        assert arm("PUT", path(machine, f"r{number}"), body()).status_code == 201
    assert code_of(arm("PUT", path(machine, "more"), body())) == (409, "RunCommandLimitExceeded")


def test_what_nobody_answers_for_six_hours_fails(hub: HubProcess, arm: Arm, machine: ExtensionMachine) -> None:
    answer = arm("PUT", path(machine), body())
    hub.execute("UPDATE run_commands SET began = began - 6 * 3600")
    told = until(lambda: (found := operation_of(arm, answer))["status"] == "Failed" and found)
    assert told["error"]["code"] == "ExtensionOperationTimeout"
    assert state(arm, machine) == ("Failed", "Unknown")
    tell(machine)
    assert state(arm, machine) == ("Succeeded", "Succeeded")
    listed = arm("GET", f"/subscriptions/{hub.subscription_id}/resources").json()["value"]
    assert f"{machine.name}/run" in [item["name"] for item in listed]
    refused = machine.report("runcommands", {"generation": 1, "runCommands": [{"name": "run"}]})
    assert code_of(refused) == (400, "InvalidRequestContent")


def older(machine: ExtensionMachine, hours: float) -> None:
    """Lets time pass for the run commands."""
    machine.hub.execute("UPDATE run_commands SET began = began - :seconds", seconds=int(hours * 3600))


@pytest.mark.parametrize(
    ("given", "hours", "told"),
    [({"timeoutInSeconds": 12 * 3600}, 12.0, {}), ({}, 1.5, {"sequence": 1 << 62})],
    ids=["given", "none-given-told-of-before-a-restore"],
)
def test_what_runs_has_the_time_that_it_was_given(
    arm: Arm, machine: ExtensionMachine, given: dict[str, Any], hours: float, told: dict[str, Any]
) -> None:
    def late() -> dict[str, Any]:
        return dict(arm("GET", path(machine, "late")).json()["properties"])

    answer = arm("PUT", path(machine), body(**given))
    tell(machine, "Running", **told)
    arm("PUT", path(machine, "late"), body(timeoutInSeconds=7 * 86400))
    older(machine, 6)
    until(lambda: late()["provisioningState"] == "Failed", what="this one has not begun")
    assert late()["instanceView"]["executionState"] == "Unknown"
    assert state(arm, machine) == ("Creating", "Running")
    assert operation_of(arm, answer)["status"] == "InProgress"
    tell(machine, "Running")
    assert (late()["provisioningState"], late()["instanceView"]["executionState"]) == ("Failed", "Running")
    older(machine, hours)
    ended = until(lambda: (found := operation_of(arm, answer))["status"] == "Failed" and found)
    assert ended["error"]["code"] == "ExtensionOperationTimeout"
    assert f"within {6 + hours:g} hours" in ended["error"]["message"]
    assert state(arm, machine) == ("Failed", "Running")
    tell(machine)
    assert state(arm, machine) == ("Succeeded", "Succeeded")


def test_a_deletion_waits_for_nothing_that_runs(arm: Arm, machine: ExtensionMachine) -> None:
    arm("PUT", path(machine), body(timeoutInSeconds=12 * 3600))
    tell(machine, "Running")
    assert arm("DELETE", path(machine)).status_code == 202
    older(machine, 6)
    until(lambda: state(arm, machine)[0] == "Failed")

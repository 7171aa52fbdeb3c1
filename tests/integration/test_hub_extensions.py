# SPDX-License-Identifier: Apache-2.0
"""Extensions at the hub, with the unmodified SDK on one side and a machine played over the channel on the other
(docs/protocol.md section 15, identity-and-arm-api.md C.3, C.4, C.7)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.hybridcompute import HybridComputeManagementClient, models
from jsonschema import Draft7Validator

from tests.integration import hub_process
from tests.integration.extension_machine import ExtensionMachine, catalogue_of, package
from tests.integration.hub_machine import API, make_csr, make_key
from tests.integration.hub_process import REPOSITORY, HubProcess

G = "fleet"
SCHEMA = json.loads((REPOSITORY / "docs/schemas/desired-extensions.schema.json").read_text())
PACKAGES = [
    package("Hawser", "CustomScript", "1.0.2"),
    package("Hawser", "CustomScript", "1.0.3"),
    package("Hawser", "CustomScript", "1.2.0"),
    package("Hawser", "CustomScript", "2.0.0"),
    package("Hawser", "CustomScript", "1.2.0", os="windows"),
    package("Hawser", "HealthProbe", "1.0.0"),
    package("Hawser", "RunCommand", "1.0.0", supportsMultipleExtensions=True),
    package("Hawser", "RunCommand", "1.1.0", supportsMultipleExtensions=True),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    made = hub_process.make(tmp_path_factory.mktemp("hub") / "data").start()
    catalogue_of(made, PACKAGES)
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


@pytest.fixture(scope="module")
def client(hub: HubProcess, owner: dict[str, Any]) -> Iterator[HybridComputeManagementClient]:
    credential = ClientSecretCredential(
        hub.tenant_id,
        owner["clientId"],
        owner["clientSecret"],
        authority=hub.url,
        disable_instance_discovery=True,
        connection_verify=hub.ca_file,
    )
    options: Any = {"base_url": hub.url, "connection_verify": hub.ca_file}
    with HybridComputeManagementClient(credential, hub.subscription_id, **options) as made:
        yield made


@pytest.fixture
def machine(hub: HubProcess, token: str, request: pytest.FixtureRequest) -> ExtensionMachine:
    return ExtensionMachine.connected(hub, _name(request), token)


def _name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).removeprefix("test_").translate(str.maketrans("[", "-", "]"))[:50].strip("-_")


@pytest.fixture(scope="module")
def token(hub: HubProcess, owner: dict[str, Any]) -> str:
    return hub.token(owner)


Arm = Callable[..., Any]


@pytest.fixture(scope="module")
def arm(hub: HubProcess, token: str) -> Arm:
    """Requests to ARM as curl would send them."""
    session = hub.session()

    def ask(method: str, path: str, body: Any = None, **query: str) -> Any:
        url = path if path.startswith("https://") else f"{hub.url}{path}"
        headers = {"Authorization": f"Bearer {token}"}
        return session.request(method, url, params={**API, **query}, json=body, headers=headers, timeout=30)

    return ask


def wish(**properties: Any) -> dict[str, Any]:
    """The body of a PUT for our script extension."""
    base = {"publisher": "Hawser", "type": "CustomScript", "typeHandlerVersion": "1.0.3"}
    return {"location": "local", "properties": {**base, **properties}}


def _code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def _path(machine: ExtensionMachine, name: str = "script") -> str:
    return f"{machine.resource_id}/extensions/{name}"


def _state(arm: Arm, machine: ExtensionMachine, name: str = "script") -> str:
    answer = arm("GET", _path(machine, name))
    return str(answer.json()["properties"]["provisioningState"]) if answer.status_code == 200 else "gone"


def _operation(arm: Arm, answer: Any) -> dict[str, Any]:
    """Where the operation of an answer stands."""
    told: dict[str, Any] = arm("GET", answer.headers["Azure-AsyncOperation"]).json()
    return told


def _until(found: Callable[[], Any], seconds: float = 30) -> Any:
    """What the hub does by itself, within its turn of ten seconds and some."""
    ends = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < ends:
        time.sleep(0.3)
    return value


def script(**changes: Any) -> models.MachineExtension:
    """A wish for our script extension."""
    properties = {
        "publisher": "Hawser",
        "type": "CustomScript",
        "type_handler_version": "1.0.3",
        "settings": {"commandToExecute": "true"},
        **changes,
    }
    return models.MachineExtension(location="local", properties=models.MachineExtensionProperties(**properties))


def test_put_document_report_and_the_pollers_end(
    client: HybridComputeManagementClient, machine: ExtensionMachine
) -> None:
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


def test_the_same_again_changes_nothing(arm: Arm, machine: ExtensionMachine) -> None:
    first = arm("PUT", _path(machine), wish(settings={"a": 1}, protectedSettings={"password": "x"}))
    assert first.status_code == 202
    assert int(first.headers["Retry-After"]) >= 1
    again = arm("PUT", _path(machine), wish(settings={"a": 1}, protectedSettings={"password": "x"}))
    assert again.status_code == 202, "not finished, and the same wish"
    machine.report_all()
    assert _operation(arm, first)["status"] == _operation(arm, again)["status"] == "Succeeded"
    before = machine.payload()
    body: dict[str, Any]
    for body in (
        wish(settings={"a": 1}, protectedSettings={"password": "x"}),
        wish(settings={"a": 1}),
        arm("GET", _path(machine)).json(),  # az reads the whole and writes it back
        {"location": "local", "properties": {}, "tags": {"env": "prod"}},
        wish(autoUpgradeMinorVersion=False),
    ):
        answer = arm("PUT", _path(machine).upper().replace("/SUBSCRIPTIONS", "/subscriptions"), body)
        assert (answer.status_code, "Azure-AsyncOperation" in answer.headers) == (200, False), answer.text
        assert answer.json()["properties"]["provisioningState"] == "Succeeded"
        assert "protectedSettings" not in answer.json()["properties"]
    assert arm("PATCH", _path(machine), {"tags": {"env": "test"}}).json()["tags"] == {"env": "test"}
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
        answer = arm(method, _path(machine), body)
        assert answer.status_code == 202, answer.text
        (item,) = machine.content()["extensions"]
        found.append((item["sequence"], item["version"], item["publicSettings"], item["protectedSettings"] is not None))
        machine.report_all()
        assert _state(arm, machine) == "Succeeded"
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
    assert arm("PUT", _path(machine), wish(protectedSettings=protected)).status_code == 202
    content = machine.content()
    Draft7Validator(SCHEMA).validate(content)
    (item,) = content["extensions"]
    assert json.loads(machine.opened(item, content["certificates"], tmp_path)) == protected
    machine.report_all()
    for path in (_path(machine), f"{machine.resource_id}/extensions", machine.resource_id):
        answer = arm("GET", path, **{"$expand": "instanceView"})
        assert "s3cret" not in answer.text
        assert item["protectedSettings"] not in answer.text
    # A renewed certificate of the same key: what is there stays, and is still named by its own certificate.
    again = {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "csr": make_csr(make_key())}
    settings_csr = make_csr(machine.settings_key)
    assert machine.post("renew", {**again, "settingsCsr": settings_csr}).json()["settingsCertificate"]
    assert arm("PUT", _path(machine), wish(protectedSettings=protected)).status_code == 200
    content = machine.content()
    assert content["extensions"][0] == item
    assert json.loads(machine.opened(content["extensions"][0], content["certificates"], tmp_path)) == protected
    # Of another key: the old envelope is of no use, and the same settings are encrypted anew.
    machine.settings_key = make_key()
    again["requestId"] = str(uuid4())
    other = machine.post("renew", {**again, "settingsCsr": make_csr(machine.settings_key)})
    assert other.json()["settingsCertificate"]
    assert arm("PUT", _path(machine), wish(protectedSettings=protected)).status_code == 202
    content = machine.content()
    assert content["extensions"][0]["sequence"] == 1
    assert json.loads(machine.opened(content["extensions"][0], content["certificates"], tmp_path)) == protected
    audit = hub.session().get(f"{hub.url}/hawser/v1/audit", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    (entry, *_) = [row for row in audit.json()["value"] if row["target"] == _path(machine)]
    assert "protectedSettings" in entry["detail"]["members"]
    assert "s3cret" not in audit.text
    for file in hub.data.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file


def test_protected_settings_need_a_certificate(hub: HubProcess, arm: Arm, token: str) -> None:
    machine = ExtensionMachine.connected(hub, "without", token, certificate=False)
    refused = arm("PUT", _path(machine), wish(protectedSettings={"a": "b"}))
    assert _code(refused) == (409, "SettingsCertificateMissing")
    assert _code(arm("GET", _path(machine))) == (404, "ResourceNotFound")
    assert arm("PUT", _path(machine), wish()).status_code == 202


def test_a_failure_has_the_agents_code_and_message(
    client: HybridComputeManagementClient, arm: Arm, machine: ExtensionMachine
) -> None:
    poller = client.machine_extensions.begin_create_or_update(G, machine.name, "script", script())
    first = arm("PUT", _path(machine), wish(settings={"commandToExecute": "true"}))
    machine.report_all(state="failed", code=1009, message="enable ended with 3: no such file")
    with pytest.raises(HttpResponseError) as failed:
        poller.result()
    assert failed.value.error is not None
    assert (failed.value.error.code, failed.value.error.message) == ("1009", "enable ended with 3: no such file")
    assert _code(arm("GET", first.headers["Location"])) == (400, "1009")
    shown = arm("GET", _path(machine)).json()["properties"]
    assert shown["provisioningState"] == "Failed"
    assert shown["instanceView"]["status"]["level"] == "Error"
    again = arm("PUT", _path(machine), wish(settings={"commandToExecute": "true"}))
    assert again.status_code == 202, "what failed is tried again"
    assert machine.content()["extensions"][0]["sequence"] == 1
    machine.report_all(
        state="failed", status={"status": "error", "code": 7, "formattedMessage": {"lang": "en", "message": "of mine"}}
    )
    assert _operation(arm, again)["error"] == {"code": "7", "message": "of mine"}


def test_the_location_gives_the_resource_at_the_end(arm: Arm, machine: ExtensionMachine) -> None:
    answer = arm("PUT", _path(machine), wish())
    waiting = arm("GET", answer.headers["Location"])
    assert (waiting.status_code, waiting.headers["Location"]) == (202, answer.headers["Location"])
    assert int(waiting.headers["Retry-After"]) >= 1
    running = _operation(arm, answer)
    assert (running["status"], running["percentComplete"]) == ("InProgress", 0.0)
    machine.report_all(state="transitioning")
    assert arm("GET", answer.headers["Location"]).status_code == 202
    machine.report_all()
    done = arm("GET", answer.headers["Location"])
    assert (done.status_code, done.json()["properties"]["provisioningState"]) == (200, "Succeeded")


def test_delete_ends_when_the_machine_says_so(
    client: HybridComputeManagementClient, arm: Arm, machine: ExtensionMachine
) -> None:
    client.machine_extensions.begin_create_or_update(G, machine.name, "script", script())
    machine.report_all()
    document = machine.payload()
    poller = client.machine_extensions.begin_delete(G, machine.name, "script")
    assert _state(arm, machine) == "Deleting"
    assert machine.content()["extensions"] == []
    machine.report_items(document["generation"], [])  # late, and of the document before
    assert _state(arm, machine) == "Deleting"
    wanted = document["content"]["extensions"][0]
    machine.report_items(machine.payload()["generation"], [machine.item(wanted, state="removing", operation="disable")])
    again = arm("DELETE", _path(machine))
    assert again.status_code == 202
    machine.report_all()
    poller.result()
    assert _operation(arm, again)["status"] == "Succeeded"
    assert arm("GET", again.headers["Location"]).status_code == 204
    assert _code(arm("GET", _path(machine))) == (404, "ResourceNotFound")
    assert arm("DELETE", _path(machine)).status_code == 204


def test_a_removal_that_fails_says_why(arm: Arm, machine: ExtensionMachine) -> None:
    arm("PUT", _path(machine), wish())
    machine.report_all()
    wanted = machine.content()["extensions"][0]
    answer = arm("DELETE", _path(machine))
    generation = machine.payload()["generation"]
    failed = machine.item(wanted, state="failed", operation="uninstall", code=1011, message="uninstall took too long")
    machine.report_items(generation, [failed])
    assert _operation(arm, answer)["error"] == {"code": "1011", "message": "uninstall took too long"}
    machine.report_items(generation, [])
    assert _state(arm, machine) == "gone"


def test_a_machine_that_never_connected(hub: HubProcess, arm: Arm, token: str) -> None:
    machine = ExtensionMachine(hub, "never")
    assert machine.put(token).status_code == 200
    assert arm("PUT", _path(machine), wish()).status_code == 202
    assert arm("DELETE", _path(machine)).status_code == 204
    assert _state(arm, machine) == "gone"


def test_a_newer_wish_replaces_an_older(arm: Arm, machine: ExtensionMachine) -> None:
    first = arm("PUT", _path(machine), wish(settings={"a": 1}))
    second = arm("PUT", _path(machine), wish(settings={"a": 2}))
    told = _operation(arm, first)
    assert (told["status"], told["error"]["code"]) == ("Canceled", "OperationPreempted")
    removal = arm("DELETE", _path(machine))
    assert _operation(arm, second)["status"] == "Canceled"
    third = arm("PUT", _path(machine), wish(settings={"a": 3}))
    assert _operation(arm, removal)["status"] == "Canceled"
    (item,) = machine.content()["extensions"]
    assert item["sequence"] == 2, "never the number of other settings, whatever the machine has done"
    machine.report_all()
    assert _operation(arm, third)["status"] == "Succeeded"


def test_versions(arm: Arm, machine: ExtensionMachine) -> None:
    def version(name: str, **properties: Any) -> Any:
        answer = arm("PUT", _path(machine, name), wish(**properties))
        if answer.status_code != 202:
            return answer.json()["error"]["code"], answer.json()["error"]["message"]
        item = machine.content()["extensions"][0]
        assert arm("DELETE", _path(machine, name)).status_code == 202
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
        assert _code(arm("PUT", _path(machine, name), body)) == told, name
    assert _code(arm("PATCH", _path(machine), wish())) == (404, "ResourceNotFound")
    assert _code(arm("PUT", f"{machine.resource_id}x/extensions/script", wish())) == (404, "ResourceNotFound")
    assert arm("PUT", _path(machine), wish()).status_code == 202
    assert _code(arm("PUT", _path(machine), wish(type="HealthProbe"))) == (409, "PropertyChangeNotAllowed")
    assert _code(arm("PUT", _path(machine, "other"), wish())) == (409, "Conflict")
    assert arm("GET", f"{machine.resource_id}/extensions").json()["value"][0]["name"] == "script"
    assert machine.desired("extensions").json()["generation"] == 1, "nothing that was refused is left"


def test_several_of_one_handler(arm: Arm, machine: ExtensionMachine) -> None:
    def command(version: str) -> dict[str, Any]:
        return wish(type="RunCommand", typeHandlerVersion=version)

    assert arm("PUT", _path(machine, "one"), command("1.0.0")).status_code == 202
    assert arm("PUT", _path(machine, "two"), command("1.0.0")).status_code == 202
    assert _code(arm("PUT", _path(machine, "three"), command("1.1.0"))) == (409, "Conflict")
    machine.report_all()
    answer = arm("POST", f"{machine.resource_id}/upgradeExtensions", {"extensionTargets": {}})
    assert answer.status_code == 202
    assert [item["version"] for item in machine.content()["extensions"]] == ["1.1.0", "1.1.0"]
    machine.report_all(state="failed", code=1008, message="update failed")
    told = _operation(arm, answer)
    assert told["status"] == "Failed"
    assert [item["target"] for item in told["error"]["details"]] == ["one", "two"]


def test_upgrade_extensions(client: HybridComputeManagementClient, arm: Arm, machine: ExtensionMachine) -> None:
    def upgrade(**targets: str) -> Any:
        named = {
            f"Hawser.{name}": models.ExtensionTargetProperties(target_version=version)
            for name, version in targets.items()
        }
        wanted = models.MachineExtensionUpgrade(extension_targets=named)
        return client.begin_upgrade_extensions(G, machine.name, wanted)

    arm("PUT", _path(machine), wish(typeHandlerVersion="1.0.2", settings={"a": 1}))
    arm("PUT", _path(machine, "probe"), wish(type="HealthProbe", typeHandlerVersion="1.0.0"))
    machine.report_all()
    poller = upgrade(CustomScript="1.2.0")
    script_item, _ = machine.content()["extensions"]
    assert (script_item["version"], script_item["sequence"], script_item["rollbackTo"]) == ("1.2.0", 0, None)
    assert (_state(arm, machine), _state(arm, machine, "probe")) == ("Updating", "Succeeded")
    machine.report_all(operation="update")
    poller.result()
    assert arm("GET", _path(machine)).json()["properties"]["typeHandlerVersion"] == "1.2.0"
    poller = upgrade()
    machine.report_all(operation="update")
    poller.result()
    assert arm("GET", _path(machine)).json()["properties"]["instanceView"]["typeHandlerVersion"] == "2.0.0"
    upgrade().result()  # all have the newest
    downgrade = upgrade(CustomScript="1.0.3")
    machine.report_all(operation="update")
    downgrade.result()
    for targets in ({"CustomScript": "9.9"}, {"Nothing": "1.0"}):
        with pytest.raises(HttpResponseError) as refused:
            upgrade(**targets)
        assert refused.value.status_code == 400


def test_add_extensions(client: HybridComputeManagementClient, machine: ExtensionMachine) -> None:
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


def test_the_catalogue(client: HybridComputeManagementClient) -> None:
    assert [item.name for item in client.extension_publisher.list("local")] == ["Hawser"]
    types = [item.name for item in client.extension_type.list("local", "hawser")]
    assert types == ["CustomScript", "HealthProbe", "RunCommand"]
    found = list(client.extension_metadata_v2.list("local", "Hawser", "customscript"))
    assert [item.name for item in found][:4] == ["1.0.2", "1.0.3", "1.2.0", "2.0.0"]
    one = client.extension_metadata_v2.get("local", "Hawser", "CustomScript", "1.2.0")
    assert one.properties is not None
    assert one.properties.operating_system == "Linux, Windows"
    assert [item.name for item in client.extension_metadata.list("local", "Hawser", "HealthProbe")] == ["1.0.0"]
    old = client.extension_metadata.get("local", "Hawser", "HealthProbe", "1.0.0")
    assert old.properties is not None
    assert (old.properties.publisher, old.properties.extension_type) == ("Hawser", "HealthProbe")


def test_a_held_checkin_is_woken_by_a_wish(arm: Arm, machine: ExtensionMachine) -> None:
    woken: list[float] = []

    def hold() -> None:
        assert machine.checkin(hold=60).json()["generations"]["extensions"] == 1
        woken.append(time.monotonic())

    machine.checkin()
    thread = threading.Thread(target=hold)
    thread.start()
    time.sleep(0.5)
    assert not woken
    began = time.monotonic()
    assert arm("PUT", _path(machine), wish()).status_code == 202
    thread.join(20)
    assert woken, "the hold was not answered"
    assert woken[0] - began < 5


def test_reports_that_do_not_count(arm: Arm, machine: ExtensionMachine) -> None:
    answer = arm("PUT", _path(machine), wish(settings={"a": 1}))
    document = machine.payload()
    (wanted,), generation = document["content"]["extensions"], document["generation"]
    good = machine.item(wanted)
    for bad in (
        {"generation": generation},
        {"generation": generation, "extensions": [{**good, "state": "done"}]},
        {"generation": generation, "extensions": [{**good, "version": "x"}]},
        {"generation": generation, "extensions": [{**good, "message": "x" * 4097}]},
    ):
        assert _code(machine.report("extensions", bad)) == (400, "InvalidRequestContent")
    machine.report_items(generation - 1, [good])
    machine.report_items(generation, [{**good, "sequence": 7}])
    machine.report_items(generation, [{**good, "version": "1.0.2"}])
    machine.report_items(generation, [{**good, "name": "other"}])
    assert _operation(arm, answer)["status"] == "InProgress"
    refused = {"desired": {"kind": "extensions", "accepted": False, "reason": "expired"}}
    assert machine.report("extensions", refused).status_code == 200
    machine.report_items(generation, [{**good, "name": "SCRIPT"}])
    assert _operation(arm, answer)["status"] == "Succeeded"
    statement = (
        "SELECT CAST(data AS VARCHAR(10000)) FROM reports WHERE kind = 'extensions' "
        "AND machine_id = (SELECT id FROM machines WHERE name = :name)"
    )
    ((kept,),) = machine.hub.rows(statement, name=machine.name)
    assert json.loads(kept)["desired"] == refused["desired"], "beside the other, until the next of it"


def test_what_a_machine_shows_of_its_extensions(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine, token: str
) -> None:
    arm("PUT", _path(machine), wish(settings={"none": None}) | {"tags": {"env": "demo"}})
    machine.report_all(message="all is well")
    shown = arm("GET", machine.resource_id, **{"$expand": "instanceView"}).json()
    (inner,) = shown["resources"]
    assert (inner["id"], inner["properties"]["settings"]) == (_path(machine), {"none": None})
    assert shown["properties"]["extensions"][0]["status"]["code"] == "success"
    assert "resources" not in arm("GET", machine.resource_id).json()
    group = f"/subscriptions/{hub.subscription_id}/resourceGroups/{G}"
    wanted = "resourceType eq 'Microsoft.HybridCompute/machines/extensions'"
    listed = arm("GET", f"{group}/resources", **{"$filter": wanted, "$expand": "provisioningState"}).json()["value"]
    (row,) = [item for item in listed if item["id"] == _path(machine)]
    assert (row["name"], row["tags"], row["provisioningState"]) == (
        f"{machine.name}/script",
        {"env": "demo"},
        "Succeeded",
    )
    tags = f"{_path(machine)}/providers/Microsoft.Resources/tags/default"
    merge = {"operation": "Merge", "properties": {"tags": {"a": "b"}}}
    assert arm("PATCH", tags, merge).json()["properties"]["tags"] == {"env": "demo", "a": "b"}
    lock = f"{_path(machine)}/providers/Microsoft.Authorization/locks/keep"
    assert arm("PUT", lock, {"properties": {"level": "CanNotDelete"}}).status_code == 201
    assert _code(arm("DELETE", _path(machine))) == (409, "ScopeLocked")
    assert _code(arm("DELETE", machine.resource_id)) == (409, "ScopeLocked")
    assert arm("DELETE", lock).status_code == 200
    headers = {"Authorization": f"Bearer {token}"}
    detail = hub.session().get(f"{hub.url}/hawser/v1/machines{machine.resource_id}", headers=headers, timeout=30)
    assert [(item["state"], item["message"]) for item in detail.json()["extensions"]] == [("Succeeded", "all is well")]
    told = hub.json("extensions", "--machine", machine.name)
    assert [(item["name"], item["installed"], item["state"]) for item in told] == [("script", "1.0.3", "Succeeded")]
    assert "script" in hub.run("extensions").stdout
    assert hub.run("extensions", "--machine", "nobody", check=False).returncode == 1
    assert arm("DELETE", machine.resource_id).status_code == 204


def test_operations_end_with_their_machine(arm: Arm, machine: ExtensionMachine) -> None:
    put = arm("PUT", _path(machine), wish())
    assert arm("DELETE", machine.resource_id).status_code == 204
    assert _until(lambda: _operation(arm, put)["status"] == "Canceled")


def test_what_nobody_answers_for_six_hours_fails(
    hub: HubProcess, client: HybridComputeManagementClient, arm: Arm, machine: ExtensionMachine
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
    shown = arm("GET", _path(machine)).json()["properties"]
    assert (shown["provisioningState"], shown["instanceView"]["status"]["level"]) == ("Failed", "Error")
    machine.report_all()
    assert _state(arm, machine) == "Succeeded", "the wish was kept"


def test_automatic_upgrades_and_their_rollback(hub: HubProcess, arm: Arm, machine: ExtensionMachine) -> None:
    def item() -> dict[str, Any]:
        (found,) = machine.content()["extensions"]
        return dict(found)

    more = [*PACKAGES, package("Auto", "Agent", "1.0.0"), package("Auto", "Agent", "2.0.0")]
    catalogue_of(hub, more)
    body = wish(publisher="Auto", type="Agent", typeHandlerVersion="1.0.0", enableAutomaticUpgrade=True)
    assert arm("PUT", _path(machine), body).status_code == 202
    machine.report_all()
    assert _state(arm, machine) == "Succeeded"
    more.append(package("Auto", "Agent", "1.1.0"))
    catalogue_of(hub, more)
    assert _until(lambda: item()["version"] == "1.1.0"), "never 2.0.0: the first number stays"
    assert (item()["rollbackTo"], item()["sequence"], _state(arm, machine)) == ("1.0.0", 0, "Updating")
    machine.report_all(state="installing")
    assert _state(arm, machine) == "Updating"
    machine.report_all(state="failed", operation="update", code=1008)
    assert _state(arm, machine) == "Failed"
    machine.report_all(version="1.0.0", message="1.1.0 failed; 1.0.0 is back")
    shown = arm("GET", _path(machine)).json()["properties"]
    assert (shown["provisioningState"], shown["instanceView"]["typeHandlerVersion"]) == ("Succeeded", "1.0.0")
    assert (item()["version"], item()["rollbackTo"]) == ("1.0.0", None)
    assert arm("PUT", _path(machine), body).status_code == 200
    machine.report_all()
    more.append(package("Auto", "Agent", "1.1.1"))
    catalogue_of(hub, more)
    assert _until(lambda: item()["version"] == "1.1.1")
    machine.report_all(operation="update")
    assert _state(arm, machine) == "Succeeded"
    assert item()["rollbackTo"] is None
    # What was rolled back is tried again after an hour, the catalogue being the same.
    machine.hub.execute("UPDATE extensions SET version = '1.1.0', retry = 1 WHERE handler_key = 'auto.agent'")
    assert _until(lambda: item()["version"] == "1.1.1")
    catalogue_of(hub, PACKAGES)


def test_limits(arm: Arm, machine: ExtensionMachine) -> None:
    text = {f"k{number}": "x" * 60_000 for number in range(10)}
    assert arm("PUT", _path(machine), wish(settings=text)).status_code == 202
    probe = wish(type="HealthProbe", typeHandlerVersion="1.0.0", settings=text)
    refused = arm("PUT", _path(machine, "probe"), probe)
    assert _code(refused) == (400, "DesiredStateTooLarge")
    assert len(machine.desired("extensions").json()["document"]) < 1024 * 1024 - 2048
    assert arm("PATCH", _path(machine), {"properties": {"settings": {}}}).status_code == 202
    command = wish(type="RunCommand", typeHandlerVersion="1.0.0")
    for number in range(255):
        assert arm("PUT", _path(machine, f"r{number}"), command).status_code == 202
    assert _code(arm("PUT", _path(machine, "more"), command)) == (409, "ExtensionLimitExceeded")
    first = arm("GET", f"{machine.resource_id}/extensions").json()
    assert len(first["value"]) == 200
    assert len(arm("GET", first["nextLink"]).json()["value"]) == 56
    assert len(machine.content()["extensions"]) == 256


def test_operations_are_told_after_a_restart_and_to_nobody_else(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine
) -> None:
    answer = arm("PUT", _path(machine), wish())
    other = hub.token(hub.principal("onboarding", "Onboarding"))
    foreign = hub.session().get(
        answer.headers["Azure-AsyncOperation"], headers={"Authorization": f"Bearer {other}"}, timeout=30
    )
    assert foreign.status_code == 404
    assert hub.stop() == 0
    hub.start()
    assert _operation(arm, answer)["status"] == "InProgress"
    machine.http.close()
    assert machine.checkin().status_code == 200
    machine.report_all()
    assert _operation(arm, answer)["status"] == "Succeeded"

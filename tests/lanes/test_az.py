# SPDX-License-Identifier: Apache-2.0
"""Lane az: the unmodified Azure command line against a hub, as somebody would use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration import hub_process
from tests.integration.agent_process import Agent, unpacked
from tests.integration.extension_site import serving
from tests.integration.hub_machine import Machine
from tests.integration.hub_process import HubProcess
from tests.integration.test_collection_extensions import publish
from tests.lanes import clients
from tests.waiting import until

pytestmark = [pytest.mark.lane("az"), pytest.mark.timeout(600)]
API = "2024-07-10"
TYPE = "Microsoft.HybridCompute/machines"


class Az:
    """`az` with a configuration of its own, which reaches nothing but the hub. `variables`: more of them."""

    def __init__(self, hub: HubProcess, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self.hub, self.program = hub, str(clients.environment("az", sys.executable) / "python")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "AZURE_CONFIG_DIR": str(folder / "azure"),
            "AZURE_CORE_COLLECT_TELEMETRY": "false",
            "AZURE_CORE_INSTANCE_DISCOVERY": "false",
            "AZURE_CORE_NO_COLOR": "true",
            "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
            "REQUESTS_CA_BUNDLE": hub.ca_file,
            **(variables or {}),
        }

    def run(self, *words: str, show: str = "--only-show-errors") -> subprocess.CompletedProcess[str]:
        """Run to its end, whatever it says."""
        return subprocess.run(
            [self.program, "-m", "azure.cli", *words, show],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def __call__(self, *words: str) -> Any:
        """What a command that succeeds prints, read as JSON; None for nothing."""
        done = self.run(*words)
        assert done.returncode == 0, f"az {' '.join(words)}: {done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def begin(self, method: str, path: str, body: Any = None) -> tuple[int, Any, str]:
        """`az rest`, which waits for nothing: status, answer, and the address at which its operation is watched, as
        its log tells them; no address where there is none."""
        words = ("rest", "-m", method, "-u", f"{path}?api-version={API}")
        done = self.run(*words, *(() if body is None else ("-b", json.dumps(body))), show="--debug")
        assert done.returncode == 0, done.stderr
        (status,) = re.findall(r"Response status: (\d+)", done.stderr)
        address = re.search(r"'Azure-AsyncOperation': '([^']+)'", done.stderr, re.IGNORECASE)
        return int(status), json.loads(done.stdout or "null"), address[1] if address else ""

    def ended(self, address: str) -> dict[str, Any]:
        """An operation once it has ended, watched by `az rest`."""
        told: dict[str, Any] = until(
            lambda: (found := self("rest", "-m", "get", "-u", address))["status"] != "InProgress" and found, seconds=60
        )
        return told

    def refused(self, *words: str) -> str:
        """What a command that fails says."""
        done = self.run(*words)
        assert done.returncode != 0, done.stdout
        return done.stderr


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data = tmp_path_factory.mktemp("hub") / "data"
    made = hub_process.make(data, "--location", "local=Laboratory", "--location", "ber1=Berlin 1").start()
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


def _register(az: Az) -> Az:
    az("cloud", "register", "--name", "hawser", "--endpoint-resource-manager", az.hub.url)
    az("cloud", "set", "--name", "hawser")
    return az


@pytest.fixture(scope="module")
def az(hub: HubProcess, owner: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Az:
    """In a shell as the demo's, which knows the cloud, signed in as Owner, with a group `fleet` and machines web01
    (connected) and web02."""
    folder = tmp_path_factory.mktemp("az")
    variables = clients.demo_variables(hub, owner, folder / "demo")
    made = Az(hub, folder, variables)
    secret = f"@{variables['HAWSER_CLIENT_SECRET_FILE']}"
    made("login", "--service-principal", "-u", owner["clientId"], "-p", secret, "-t", hub.tenant_id)
    made("group", "create", "-n", "fleet", "-l", "local", "--tags", "team=web")
    Machine(hub, "web01").connect(hub.token(owner), tags={"env": "prod"})
    return made


@pytest.fixture(scope="module")
def machine(az: Az) -> str:
    return Machine(az.hub, "web01").resource_id


def test_the_cloud_is_what_the_hub_says(az: Az) -> None:
    told = az("cloud", "show")["endpoints"]
    assert (told["activeDirectory"], told["resourceManager"].rstrip("/")) == (az.hub.url, az.hub.url)
    (account,) = az("account", "list")
    assert (account["id"], account["cloudName"], account["state"]) == (az.hub.subscription_id, "hawser", "Enabled")
    assert {item["name"] for item in az("account", "list-locations")} == {"local", "ber1"}
    again = az.refused("cloud", "register", "--name", "hawser", "--endpoint-resource-manager", az.hub.url)
    assert "already registered" in again


def test_a_cloud_that_is_registered(hub: HubProcess, owner: dict[str, Any], tmp_path: Path) -> None:
    az = _register(Az(hub, tmp_path))
    az("login", "--service-principal", "-u", owner["clientId"], "-p", owner["clientSecret"], "-t", hub.tenant_id)
    assert az("cloud", "show")["endpoints"]["activeDirectory"] == az.hub.url
    assert az("account", "show")["id"] == hub.subscription_id


def test_a_cloud_with_explicit_endpoints(hub: HubProcess, owner: dict[str, Any], tmp_path: Path) -> None:
    az = Az(hub, tmp_path)
    endpoints = {"resource-manager": hub.url, "active-directory": hub.url, "active-directory-resource-id": hub.url}
    words = [word for name, value in endpoints.items() for word in (f"--endpoint-{name}", f"{value}/")]
    az("cloud", "register", "--name", "mine", *words)
    az("cloud", "set", "--name", "mine")
    az("login", "--service-principal", "-u", owner["clientId"], "-p", owner["clientSecret"], "-t", hub.tenant_id)
    assert az("group", "exists", "-n", "no-such-group") is False
    token = az("account", "get-access-token", "--resource", hub.url)
    assert token["tenant"] == hub.tenant_id
    az("logout")
    assert az("account", "list") == []


def test_a_wrong_secret_is_told_with_its_code(hub: HubProcess, owner: dict[str, Any], tmp_path: Path) -> None:
    az = _register(Az(hub, tmp_path))
    said = az.refused("login", "--service-principal", "-u", owner["clientId"], "-p", "wrong", "-t", hub.tenant_id)
    assert "AADSTS7000215" in said


def test_a_certificate_signs_in(hub: HubProcess, tmp_path: Path) -> None:
    key, certificate, both = (tmp_path / name for name in ("key.pem", "cert.pem", "both.pem"))
    make = ["openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-subj", "/CN=az", "-days", "30"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    made = hub.json("principal", "create", "by-certificate", "--role", "Reader", "--certificate", str(certificate))
    az = _register(Az(hub, tmp_path))
    az("login", "--service-principal", "-u", made["clientId"], "--certificate", str(both), "-t", hub.tenant_id)
    assert az("account", "show")["user"]["name"] == made["clientId"]
    assert "AuthorizationFailed" in az.refused("group", "create", "-n", "not-mine", "-l", "local")


def test_rest(az: Az, machine: str) -> None:
    url = f"{machine}?api-version={API}"
    assert az("rest", "-m", "get", "-u", url)["properties"]["status"] == "Connected"
    other = url.replace("web01", "by-rest")
    body = '{"location": "ber1", "tags": {"a": "b"}}'
    assert az("rest", "-m", "put", "-u", other, "-b", body)["location"] == "ber1"
    assert az("rest", "-m", "patch", "-u", other, "-b", '{"tags": {"c": "d"}}')["tags"] == {"c": "d"}
    requests = [
        {"httpMethod": "GET", "name": name, "url": f"{az.hub.url}{path}"}
        for name, path in zip("ab", (url, other), strict=True)
    ]
    told = az("rest", "-m", "post", "-u", "/batch?api-version=2015-11-01", "-b", json.dumps({"requests": requests}))
    assert [item["httpStatusCode"] for item in told["responses"]] == [200, 200]
    az("rest", "-m", "delete", "-u", other)
    assert "ResourceNotFound" in az.refused("rest", "-m", "get", "-u", other)


@pytest.fixture(scope="module")
def extended(
    az: Az, owner: dict[str, Any], agent_deb: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Id of a machine with a real himds and extd, and a folder for what its scripts leave; our packages are
    published."""
    publish(az.hub, tmp_path_factory.mktemp("packages"))
    library = unpacked(agent_deb, tmp_path_factory.mktemp("package"))
    agent = Agent(tmp_path_factory.mktemp("machine"), library).start()
    with serving(agent):
        agent.add_cloud(az.hub)
        done = agent.connect(az.hub, az.hub.token(owner), "extended")
        assert done.returncode == 0, done.stdout
        yield Machine(az.hub, "extended").resource_id, tmp_path_factory.mktemp("left")
    az("resource", "delete", "--ids", Machine(az.hub, "extended").resource_id)
    assert agent.stop() == 0


def _script(command: str, **properties: Any) -> dict[str, Any]:
    base = {"publisher": "Hawser", "type": "CustomScript", "typeHandlerVersion": "1.0.0"}
    return {"location": "local", "properties": {**base, "settings": {"commandToExecute": command}, **properties}}


def test_rest_of_extensions(az: Az, extended: tuple[str, Path]) -> None:
    (machine, left), url = extended, f"{extended[0]}/extensions/setup"
    status, told, address = az.begin("put", url, _script(f"echo first >>{left}/ran; echo the end"))
    assert (status, told["properties"]["provisioningState"]) == (202, "Creating")
    assert az.ended(address)["status"] == "Succeeded"
    _, shown, _ = az.begin("get", url)
    assert shown["properties"]["provisioningState"] == "Succeeded"
    assert "the end" in shown["properties"]["instanceView"]["status"]["message"]
    status, again, address = az.begin("put", url, _script(f"echo first >>{left}/ran; echo the end"))
    assert again["properties"] == shown["properties"], "it is there already"
    assert (status, address) == (200, "")
    assert (left / "ran").read_text() == "first\n"

    tagged = az.begin("patch", url, {"tags": {"env": "test"}})
    assert (tagged[0], tagged[1]["tags"], tagged[2]) == (200, {"env": "test"}, "")
    secret = {"protectedSettings": {"commandToExecute": f"echo second >>{left}/ran"}, "settings": {}}
    _, told, address = az.begin("patch", url, {"properties": secret})
    assert told["properties"]["provisioningState"] == "Updating"
    assert "protectedSettings" not in told["properties"]
    assert az.ended(address)["status"] == "Succeeded"
    assert (left / "ran").read_text() == "first\nsecond\n"
    _, listed, _ = az.begin("get", f"{machine}/extensions")
    assert [(item["name"], item["tags"]) for item in listed["value"]] == [("setup", {"env": "test"})]

    secret["protectedSettings"] = {"commandToExecute": "echo what went wrong >&2; exit 7"}
    _, _, address = az.begin("patch", url, {"properties": secret})
    failed = az.ended(address)
    assert failed["status"] == "Failed"
    assert "what went wrong" in failed["error"]["message"]
    assert az.begin("get", url)[1]["properties"]["provisioningState"] == "Failed"
    other = f"{machine}/extensions/other?api-version={API}"
    bad = json.dumps(_script("true", type="Nothing"))
    assert "ExtensionNotFound" in az.refused("rest", "-m", "put", "-u", other, "-b", bad)

    status, _, address = az.begin("delete", url)
    assert status == 202
    assert az.ended(address)["status"] == "Succeeded"
    assert az.begin("delete", url)[0] == 204
    assert "ResourceNotFound" in az.refused("rest", "-m", "get", "-u", f"{url}?api-version={API}")


def test_extensions_as_resources(az: Az, extended: tuple[str, Path]) -> None:
    """Here az waits until operations have ended."""
    machine, left = extended
    place = ("-g", "fleet", "--namespace", "Microsoft.HybridCompute", "--parent", "machines/extended")
    words = (*place, "--resource-type", "extensions", "-n", "waited")
    wanted = json.dumps(_script(f"echo made >>{left}/waited"))
    made = az("resource", "create", *words, "--is-full-object", "-p", wanted)
    assert made["properties"]["provisioningState"] == "Succeeded"
    command = f"properties.settings.commandToExecute=echo changed >>{left}/waited"
    changed = az("resource", "update", *words, "--set", command)
    assert changed["properties"]["provisioningState"] == "Succeeded"
    assert (left / "waited").read_text() == "made\nchanged\n"
    az("resource", "update", *words, "--set", "properties.forceUpdateTag=again")
    assert (left / "waited").read_text() == "made\nchanged\nchanged\n"
    upgrade = ("--action", "upgradeExtensions", "--request-body", '{"extensionTargets": {}}')
    az("resource", "invoke-action", "--ids", machine, *upgrade)
    assert "waited" in json.dumps(az("resource", "list", "-g", "fleet", "--query", "[].name"))
    az("resource", "delete", *words)
    assert "ResourceNotFound" in az.refused("resource", "show", *words)
    bad = json.dumps(_script("exit 9"))
    assert "9" in az.refused("resource", "create", *words, "--is-full-object", "-p", bad)
    az("resource", "delete", *words)


def test_rest_of_run_commands(az: Az, extended: tuple[str, Path]) -> None:
    (machine, left), url = extended, f"{extended[0]}/runCommands/greet"
    parameters = {"parameters": [{"name": "GREETING", "value": "hello"}]}
    wanted = {"location": "local", "properties": {"source": {"script": 'echo "$GREETING"; exit 3'}, **parameters}}
    status, told, address = az.begin("put", url, wanted)
    assert (status, told["properties"]["provisioningState"]) == (201, "Creating")
    assert az.ended(address)["status"] == "Succeeded"
    view = az.begin("get", url)[1]["properties"]["instanceView"]
    assert (view["executionState"], view["exitCode"], view["output"]) == ("Failed", 3, "hello\n")
    tagged = az.begin("patch", url, {"tags": {"a": "b"}})
    assert (tagged[0], tagged[1]["tags"], tagged[2]) == (200, {"a": "b"}, "")
    source = {"source": {"script": f"echo once >>{left}/commands"}}
    assert az.ended(az.begin("patch", url, {"properties": source})[2])["status"] == "Succeeded"
    assert (left / "commands").read_text() == "once\n"
    _, listed, _ = az.begin("get", f"{machine}/runCommands")
    assert [(item["name"], item["properties"]["instanceView"]["exitCode"]) for item in listed["value"]] == [
        ("greet", 0)
    ]
    nobody = {"location": "local", "properties": {"source": {"script": "true"}, "runAsUser": "nobody-here"}}
    failed = az.ended(az.begin("put", f"{machine}/runCommands/who", nobody)[2])
    assert (failed["status"], "nobody-here" in failed["error"]["message"]) == ("Failed", True)
    for name in ("greet", "who"):
        status, _, address = az.begin("delete", f"{machine}/runCommands/{name}")
        assert status == 202
        assert az.ended(address)["status"] == "Succeeded"
    assert az.begin("get", f"{machine}/runCommands")[1]["value"] == []


def test_resources(az: Az, machine: str) -> None:
    words = ("-g", "fleet", "-n", "web02", "--resource-type", TYPE)
    full = '{"location": "local", "tags": {"env": "test"}, "properties": {}}'
    made = az("resource", "create", *words, "--is-full-object", "-p", full)
    assert made["properties"]["status"] == "AwaitingConnection"
    names = "[?starts_with(name, 'web')].name"
    assert az("resource", "list", "--query", names) == ["web01", "web02"]
    assert az("resource", "list", "--tag", "env=prod", "--query", names) == ["web01"]
    assert az("resource", "list", "--tag", "env", "--query", names) == ["web01", "web02"]
    assert az("resource", "list", "-g", "fleet", "--resource-type", TYPE, "--query", names) == ["web01", "web02"]
    assert az("resource", "list", "-n", "web02", "--query", "[0].tags.env") == "test"
    assert az("resource", "list", "--location", "ber1") == []
    assert az("resource", "show", *words, "--query", "properties.vmId") == made["properties"]["vmId"]
    assert az("resource", "show", "--ids", machine, "--query", "properties.status") == "Connected"
    assert az("resource", "tag", *words, "--tags", "a=1", "--query", "tags") == {"a": "1"}
    assert az("resource", "tag", *words, "-i", "--tags", "b=2", "--query", "tags") == {"a": "1", "b": "2"}
    assert az("resource", "update", *words, "--set", "tags.c=3", "--query", "tags.c") == "3"
    az("resource", "wait", *words, "--exists")
    az("resource", "delete", *words)
    assert "ResourceNotFound" in az.refused("resource", "show", *words)


def test_licences(az: Az) -> None:
    words = ("-g", "fleet", "-n", "esu", "--resource-type", "Microsoft.HybridCompute/licenses")
    properties = '{"licenseType": "ESU", "licenseDetails": {"state": "Activated", "processors": 16}}'
    made = az("resource", "create", *words, "-l", "local", "-p", properties)
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert "processors" in az.refused(
        "resource", "create", *words, "-l", "local", "-p", properties.replace("16", '"many"')
    )
    az("resource", "delete", *words)


def test_groups(az: Az) -> None:
    az("group", "create", "-n", "passing", "-l", "Berlin 1")
    assert az("group", "show", "-n", "passing")["location"] == "ber1"
    assert az("group", "update", "-n", "passing", "--tags", "a=b", "--query", "tags") == {"a": "b"}
    assert az("group", "update", "-n", "passing", "--set", "tags.c=d", "--query", "tags") == {"a": "b", "c": "d"}
    assert az("group", "list", "--tag", "a=b", "--query", "[].name") == ["passing"]
    az("group", "wait", "-n", "passing", "--exists")
    az("group", "delete", "-n", "passing", "-y")
    assert az("group", "exists", "-n", "passing") is False
    assert "ResourceGroupNotFound" in az.refused("group", "delete", "-n", "passing", "-y")


def test_tags(az: Az, machine: str) -> None:
    words = ("--resource-id", machine, "--query", "properties.tags")
    before = az("tag", "list", *words)
    assert az("tag", "update", *words, "--operation", "Merge", "--tags", "x=1") == {**before, "x": "1"}
    assert az("tag", "update", *words, "--operation", "Delete", "--tags", "x=1") == before
    assert az("tag", "create", *words, "--tags", "only=this") == {"only": "this"}
    assert "only" in az("tag", "list", "--query", "[].tagName")
    az("tag", "delete", "--resource-id", machine, "-y")
    assert az("tag", "list", *words) == {}
    assert az("tag", "create", *words, "--tags", "env=prod") == {"env": "prod"}
    az("tag", "create", "--resource-id", f"/subscriptions/{az.hub.subscription_id}", "--tags", "cost=1")


def test_locks(az: Az, machine: str) -> None:
    words = ("-g", "fleet", "--resource-name", "web01", "--resource-type", TYPE)
    az("lock", "create", "-n", "keep", *words, "--lock-type", "ReadOnly", "--notes", "do not touch")
    az("lock", "create", "-n", "whole", "-g", "fleet", "--lock-type", "CanNotDelete")
    assert {item["name"] for item in az("lock", "list")} == {"keep", "whole"}
    assert az("lock", "show", "-n", "keep", *words)["notes"] == "do not touch"
    assert "ScopeLocked" in az.refused("resource", "tag", "--ids", machine, "--tags", "a=b")
    assert "ScopeLocked" in az.refused("group", "delete", "-n", "fleet", "-y")
    az("lock", "delete", "-n", "keep", *words)
    az("lock", "delete", "-n", "whole", "-g", "fleet")
    assert az("lock", "list") == []


def test_providers(az: Az) -> None:
    told = az("provider", "show", "-n", "Microsoft.HybridCompute")
    assert told["registrationState"] == "Registered"
    assert {"machines", "licenses", "gateways"} <= {item["resourceType"] for item in told["resourceTypes"]}
    assert "Microsoft.Authorization" in az("provider", "list", "--query", "[].namespace")
    az("provider", "register", "-n", "Microsoft.HybridCompute")

# SPDX-License-Identifier: Apache-2.0
"""Lane az: the unmodified Azure command line against a hub, as somebody would use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import hub_process
from tests.integration.hub_machine import Machine
from tests.integration.hub_process import HubProcess
from tests.lanes import clients

pytestmark = [pytest.mark.lane("az"), pytest.mark.timeout(600)]
TYPE = "Microsoft.HybridCompute/machines"


class Az:
    """`az` with a configuration of its own, which reaches nothing but the hub."""

    def __init__(self, hub: HubProcess, folder: Path) -> None:
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
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run to its end, whatever it says."""
        return subprocess.run(
            [self.program, "-m", "azure.cli", *words, "--only-show-errors"],
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
    """Registered and signed in as Owner, with a group `fleet` and machines web01 (connected) and web02."""
    made = _register(Az(hub, tmp_path_factory.mktemp("az")))
    made("login", "--service-principal", "-u", owner["clientId"], "-p", owner["clientSecret"], "-t", hub.tenant_id)
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
    url = f"{machine}?api-version=2024-07-10"
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


def test_resources(az: Az, machine: str) -> None:
    words = ("-g", "fleet", "-n", "web02", "--resource-type", TYPE)
    full = '{"location": "local", "tags": {"env": "test"}, "properties": {}}'
    made = az("resource", "create", *words, "--is-full-object", "-p", full)
    assert made["properties"]["status"] == "AwaitingConnection"
    names = "[].name"
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

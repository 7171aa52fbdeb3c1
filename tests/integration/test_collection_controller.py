# SPDX-License-Identifier: Apache-2.0
"""machine_info, network_check and the lookup access_token on this machine, with a real hub and a real agent."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_process import Agent
from tests.integration.collection_controller import ROOT, Controller, of_hub
from tests.integration.hub_machine import Machine
from tests.integration.hub_process import HubProcess

CALLBACKS = {
    "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "collection_callbacks"),
    "ANSIBLE_CALLBACKS_ENABLED": "results",
}


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


@pytest.fixture(scope="module")
def fleet(hub: HubProcess, owner: dict[str, Any]) -> list[Machine]:
    token = hub.token(owner)
    made = [Machine(hub, "web01", group="web"), Machine(hub, "web02", group="web"), Machine(hub, "db01", group="data")]
    for machine in made:
        machine.connect(token, tags={"tier": machine.name[:-2]})
    waiting = Machine(hub, "late01", group="web")
    waiting.put(token).raise_for_status()
    return [*made, waiting]


@pytest.fixture
def controller(hub: HubProcess, owner: dict[str, Any], tmp_path: Path) -> Controller:
    made = of_hub(tmp_path, hub, owner)
    made.variables |= CALLBACKS | {
        "HAWSER_TEST_RESULTS": str(tmp_path / "results.jsonl"),
        "HAWSER_SUBSCRIPTION_ID": hub.subscription_id,
    }
    return made


@pytest.fixture
def program(tmp_path: Path, hub: HubProcess) -> Path:
    """azcmagent of this checkout on a machine below a temporary folder that has the hub's profile."""
    agent = Agent(tmp_path / "machine")
    agent.add_cloud(hub)
    script = tmp_path / "azcmagent"
    script.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m agent_runtime.cli --root {agent.root} "$@"\n')
    script.chmod(0o755)
    return script


def run(controller: Controller, module: str, *argv: str, **options: Any) -> dict[str, Any]:
    """The result of one task."""
    results = controller.work / "results.jsonl"
    results.unlink(missing_ok=True)
    done = controller.play([{f"hawser.machine.{module}": options}], *argv)
    assert results.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(results.read_text().splitlines()[-1])
    return {**found, "failed": done.returncode != 0}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"scope": "subscription"}, {"web01", "web02", "db01", "late01"}),
        ({"scope": "resource_group", "resource_group": "web"}, {"web01", "web02", "late01"}),
        ({"scope": "subscription", "statuses": ["Connected"]}, {"web01", "web02", "db01"}),
        ({"scope": "resource_group", "resource_group": "WEB", "tags": {"tier": None}}, {"web01", "web02"}),
        ({"scope": "subscription", "tags": {"tier": "db"}}, {"db01"}),
        ({"scope": "subscription", "search": "01", "statuses": ["AwaitingConnection"]}, {"late01"}),
        ({"scope": "subscription", "search": "nothing"}, set()),
        ({"scope": "machine", "resource_group": "web", "name": "WEB02"}, {"web02"}),
        ({"scope": "machine", "resource_group": "web", "name": "nobody"}, set()),
    ],
)
def test_machine_info(controller: Controller, fleet: list[Machine], options: dict[str, Any], names: set[str]) -> None:
    result = run(controller, "machine_info", **options)
    assert {machine["name"] for machine in result["machines"]} == names
    for machine in result["machines"]:
        # Whatever the fleet query says is passed on, `support` too.
        assert machine["fleet"]["id"] == machine["id"]
        assert set(machine["fleet"]) >= {"lastHeartbeat", "address", "addresses", "status"}
    assert not result["changed"]


def test_a_single_machine_takes_no_filter(controller: Controller) -> None:
    result = run(controller, "machine_info", resource_group="web", name="web01", search="x", tags={"a": "b"})
    assert "tags and search" in result["msg"]


def test_the_network_is_checked(controller: Controller, hub: HubProcess, program: Path) -> None:
    result = run(controller, "network_check", "-e", f"hawser_program={program}")
    assert result["reachable"] is True
    assert result["cloud"] == "demo"
    assert {row["endpoint"] for row in result["endpoints"] if row["required"]} == {hub.url, f"{hub.url}/channel"}
    for row in result["endpoints"]:
        assert row["tls"].startswith("TLSv1.")
        assert row["latency_ms"] >= 0
        assert row["reason"] is None
        assert row["proxy"] == "not set"
    checked = run(controller, "network_check", "--check", "-e", f"hawser_program={program}", cloud="demo")
    assert checked["reachable"] is True
    assert not checked["changed"]


def test_a_hub_that_is_gone_is_said(controller: Controller, hub: HubProcess, program: Path) -> None:
    hub.stop()
    try:
        failed = run(controller, "network_check", "-e", f"hawser_program={program}")
        gone = run(controller, "network_check", "-e", f"hawser_program={program}", fail_on_unreachable=False)
    finally:
        hub.start()
    assert failed["failed"]
    assert not gone["failed"]
    assert failed["error"]["code"] == "AZCM0026"
    assert hub.url in failed["msg"]
    assert gone["reachable"] is False
    assert gone["error"]["remedy"]
    assert {row["reason"] for row in gone["endpoints"]} == {"the connection was refused"}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"cloud": "nowhere"}, "nowhere"), ({"location": "--cloud"}, "--cloud"), ({"where": 1}, "where")],
)
def test_a_check_that_cannot_begin_fails(
    controller: Controller, program: Path, options: dict[str, Any], words: str
) -> None:
    argv = ("-e", f"hawser_program={program}")
    assert words in run(controller, "network_check", *argv, fail_on_unreachable=False, **options)["msg"]


def test_a_host_without_the_agent_is_not_checked(controller: Controller) -> None:
    result = run(controller, "network_check", "-e", "hawser_program=/nonexistent", fail_on_unreachable=False)
    assert "not installed" in result["msg"]


def audience(token: str) -> str:
    part = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["aud"])


def test_tokens_are_looked_up_and_not_shown(controller: Controller, hub: HubProcess) -> None:
    target = controller.work / "tokens"
    name = "'hawser.machine.access_token'"
    values = f"{{{{ [lookup({name}), lookup({name}, 'https://vault.azure.net')] }}}}"
    copy = {"ansible.builtin.copy": {"content": values, "dest": str(target), "mode": "0600"}, "no_log": True}
    done = controller.play([copy], "-vvv")
    assert done.returncode == 0, done.stdout
    tokens = json.loads(target.read_text().replace("'", '"'))
    assert [audience(token) for token in tokens] == [hub.url, "https://vault.azure.net"]
    output = done.stdout + done.stderr
    assert not any(token in output for token in tokens)
    assert controller.variables["HAWSER_CLIENT_SECRET"] not in output


@pytest.mark.parametrize(
    ("changes", "call", "words"),
    [
        ({"HAWSER_CLIENT_SECRET": "wr0ng"}, "", "AZCM0041"),
        ({"HAWSER_CLIENT_SECRET": "wr0ng"}, ", tenant_id='x'", "AZCM00"),
        ({"HAWSER_CLIENT_ID": ""}, "", "HAWSER_CLIENT_ID"),
        ({}, ", 'not an audience'", "AZCM00"),
    ],
)
def test_a_lookup_that_fails_says_why(controller: Controller, changes: dict[str, str], call: str, words: str) -> None:
    debug = {"ansible.builtin.debug": {"msg": f"{{{{ lookup('hawser.machine.access_token'{call}) }}}}"}}
    done = controller.play([debug], "-vvv", **changes)
    assert done.returncode == 2
    assert words in done.stdout + done.stderr
    assert "wr0ng" not in done.stdout + done.stderr

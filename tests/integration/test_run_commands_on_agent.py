# SPDX-License-Identifier: Apache-2.0
"""Run commands from the unmodified SDK to scripts that run: a real hub, and himds and extd as real processes
(docs/protocol.md section 15.5, identity-and-arm-api.md C.8)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.hybridcompute import models

from agent_runtime.platform import processes
from tests.integration.agent_process import Agent
from tests.integration.extension_site import Client, G, sdk, serving
from tests.integration.hub_process import HubProcess
from tests.waiting import until

NAME = "runs-commands"


@pytest.fixture(scope="module")
def agent(hub: HubProcess, owner: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    made = Agent(tmp_path_factory.mktemp("machine")).start()
    with serving(made):
        made.add_cloud(hub)
        done = made.connect(hub, hub.token(owner), NAME)
        assert done.returncode == 0, done.stdout
        yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("run-commands-owner", "Owner")


@pytest.fixture
def client(hub: HubProcess, owner: dict[str, Any], agent: Agent) -> Iterator[Client]:
    with sdk(hub, owner) as made:
        yield made


def wanted(script: str, **properties: Any) -> models.MachineRunCommand:
    source = models.MachineRunCommandScriptSource(script=script)
    return models.MachineRunCommand(
        location="local", properties=models.MachineRunCommandProperties(source=source, **properties)
    )


def run(client: Client, name: str, script: str, **properties: Any) -> models.MachineRunCommandInstanceView:
    """Runs a script to its end."""
    poller = client.machine_run_commands.begin_create_or_update(G, NAME, name, wanted(script, **properties))
    result = poller.result(120).properties
    assert result is not None
    assert result.provisioning_state == "Succeeded"
    assert result.instance_view is not None
    return result.instance_view


def test_a_script_with_parameters(client: Client, agent: Agent) -> None:
    view = run(
        client,
        "greet",
        'echo "$GREETING, $1 $2"; echo trouble >&2',
        parameters=[
            models.RunCommandInputParameter(name="GREETING", value="hello"),
            models.RunCommandInputParameter(name="", value="first"),
        ],
        protected_parameters=[models.RunCommandInputParameter(name="", value="s3cret")],
    )
    assert (view.execution_state, view.exit_code) == ("Succeeded", 0)
    assert (view.output, view.error) == ("hello, first s3cret\n", "trouble\n")
    assert view.start_time is not None
    assert view.end_time is not None
    assert run(client, "greet", "echo again; exit 3").exit_code == 3, "a PUT runs again, and its end is its own"


def test_a_script_that_takes_too_long(client: Client) -> None:
    view = run(client, "slow", "echo begun; sleep 60", timeout_in_seconds=1)
    assert (view.execution_state, view.exit_code, view.output) == ("TimedOut", None, "begun\n")


def test_what_cannot_be_started_fails_the_operation(client: Client) -> None:
    with pytest.raises(HttpResponseError, match="no user 'nobody-here'"):
        run(client, "who", "true", run_as_user="nobody-here")


def test_a_running_script_is_ended_by_its_deletion(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    script = f"echo $$ >{path}.new; mv {path}.new {path}; exec sleep 600"
    view = run(client, "long", script, async_execution=True)
    assert view.execution_state == "Running", "an asynchronous operation ends when the script has started"
    until(path.exists)
    pid = int(path.read_text())
    assert processes.is_there(pid)
    client.machine_run_commands.begin_delete(G, NAME, "long").result(120)
    assert not processes.is_there(pid)
    with pytest.raises(ResourceNotFoundError):
        client.machine_run_commands.get(G, NAME, "long")

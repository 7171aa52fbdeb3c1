# SPDX-License-Identifier: Apache-2.0
"""azcmagent, himds, gcad, extd and a hub as real processes on one machine: a connection's way, and its failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.platform import local
from tests.integration import hub_process
from tests.integration.hub_process import HubProcess
from tests.unit.agent_cli.conftest import CHECKOUT, GUID, Machine
from tests.waiting import until


class Agent(Machine):
    """A machine with its three services."""

    def __init__(self, root: Path, hub: HubProcess, principal: dict[str, Any]) -> None:
        super().__init__(root)
        for folder in ("certs", "tokens"):
            (self.state / folder).mkdir()
        self.hub = hub
        self.principal = principal
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.secret_file = root / "connect.json"
        self.write_secret(principal["clientSecret"])

    def write_secret(self, secret: str) -> None:
        flags = {"service-principal-id": self.principal["clientId"], "service-principal-secret": secret}
        self.secret_file.write_text(json.dumps(flags))
        self.secret_file.chmod(0o600)

    def start(self, *names: str) -> None:
        for name in names or ("himds", "policy", "extensions"):
            more = ["--port", str(hub_process.free_port())] if name == "himds" else []
            command = [sys.executable, "-m", f"agent_runtime.{name}", "--root", str(self.root), *more]
            self.processes[name] = subprocess.Popen(command, cwd=CHECKOUT)
        until(lambda: self.run("show", "status").code == 0, "himds answers")

    def stop(self, number: int = signal.SIGTERM) -> None:
        for process in self.processes.values():
            process.send_signal(number)
        for process in self.processes.values():
            process.wait(30)
        self.processes.clear()

    def connect(self, *words: str, name: str = "web01") -> Any:
        subscription = self.hub.subscription_id
        flags = ["-s", subscription, "-g", "rg", "-l", "local", "-n", name, "--config", str(self.secret_file)]
        return self.run("--json", "connect", *flags, *words)

    def place(self, name: str) -> dict[str, Any]:
        return {
            "state": "connected",
            "tenant_id": self.hub.tenant_id,
            "subscription_id": self.hub.subscription_id,
            "resource_group": "rg",
            "location": "local",
            "name": name,
        }

    def wish(self, verb: str, **parts: Any) -> Any:
        done = self.run(verb, "-", stdin=json.dumps({"schema": 1, **parts}))
        answer = done.json
        assert done.code == (int(answer["error"]["code"][4:]) if answer["error"] else 0)
        return answer

    def shown(self, key: str) -> str:
        return self.run("show", key).out.strip()

    def is_clean(self) -> bool:
        """Nothing of a connection is left."""
        left = [*(self.state / "certs").iterdir(), *(self.state / "state").glob("agentconfig.json")]
        return not left and not (self.state / "binding.json").exists() and self.shown("identityState") == "disconnected"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    made = hub_process.make(tmp_path_factory.mktemp("hub"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def principal(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("deployer", "contributor")


@pytest.fixture
def agent(tmp_path: Path, hub: HubProcess, principal: dict[str, Any]) -> Iterator[Agent]:
    machine = Agent(tmp_path, hub, principal)
    machine.start()
    assert machine.run("cloud", "add", "-", stdin=hub.run("cloud-profile").stdout).code == 0
    yield machine
    machine.stop()


def test_the_way_of_a_connection(agent: Agent) -> None:
    assert agent.run("check").code == 0
    done = agent.connect("--tags", "env=demo,Owner='Ann Lee'")
    assert done.code == 0, done.out + done.err
    resource_id = done.json["resourceId"]
    assert resource_id.endswith("/providers/Microsoft.HybridCompute/machines/web01")
    binding = json.loads((agent.state / "binding.json").read_text())
    assert (binding["vmId"], binding["resourceId"]) == (done.json["vmId"], resource_id)

    # Folders of a test are closed to others; those of a machine are not.
    for folder in [agent.root, *agent.root.parents]:
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    shown = agent.run("--json", "show", user=65534)
    assert shown.code == 0, shown.out
    status = shown.json
    assert (status["status"], status["resourceName"], status["vmId"]) == ("Connected", "web01", binding["vmId"])
    assert status["tags"] == {"env": "demo", "Owner": "Ann Lee"}

    again = agent.connect()
    assert (again.code, again.json["error"]["code"]) == (67, "AZCM0067")
    assert resource_id in again.json["error"]["message"]
    assert json.loads((agent.state / "binding.json").read_text()) == binding

    removed = agent.run("cloud", "remove", status["cloud"])
    assert removed.code == 27

    gone = agent.run("--json", "disconnect", "--config", str(agent.secret_file))
    assert (gone.code, gone.json["deleted"]) == (0, True)
    assert agent.is_clean()
    assert agent.run("disconnect").code == 0
    log = agent.log + (agent.state / "log/himds.log").read_text()
    assert agent.principal["clientSecret"] not in log


def test_apply_finds_repairs_and_leaves_alone(agent: Agent, hub: HubProcess) -> None:
    token = hub.token(agent.principal)
    credential = {"access_token": token}
    wanted = agent.wish("plan", connection=agent.place("db01"), tags={"a": "1"})
    assert wanted["changed"] is True
    assert [need["operation"] for need in wanted["credential_required"]] == ["connect"]
    assert wanted["error"] is None

    before = agent.files()
    without = agent.wish("apply", connection=agent.place("db01"), tags={"a": "1"})
    assert (without["error"]["code"], without["changed"], without["steps"]) == ("AZCM0016", False, [])
    assert agent.files() == before

    first = agent.wish("apply", connection={**agent.place("db01"), "credential": credential}, tags={"a": "1"})
    assert first["error"] is None, first
    assert [step["name"] for step in first["steps"]] == ["connect"]
    assert first["after"]["connection"]["status"] == "Connected"
    assert first["after"] == wanted["after"]

    for verb in ("plan", "apply"):
        converged = agent.wish(verb, connection=agent.place("DB01"), tags={"a": "1"})
        assert (converged["changed"], converged["reasons"], converged["credential_required"]) == (False, [], [])

    other = agent.wish("apply", connection={**agent.place("db02"), "credential": credential})
    assert other["error"] is None, other
    assert [step["name"] for step in other["steps"]] == ["disconnect", "connect"]
    assert agent.shown("resourceName") == "db02"

    tagged = agent.wish("apply", connection={"state": "connected", "credential": credential}, tags={"b": "2"})
    assert [step["name"] for step in tagged["steps"]] == ["tags"], tagged
    assert tagged["after"]["tags"] == {"b": "2"}

    left = agent.wish("apply", connection={"state": "disconnected", "credential": credential})
    assert left["after"]["connection"] == {"state": "disconnected", "status": "Disconnected", "resource_id": None}
    assert agent.is_clean()
    everything = agent.log + (agent.state / "log/himds.log").read_text()
    assert token not in everything + json.dumps([first, other, tagged, left])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--tenant-id", GUID], 41, "AADSTS"),
        (["--resource-group", "bad*name"], 23, "resource group"),
        (["-s", GUID], 42, ""),
        (["--location", "mars"], 20, "mars"),
    ],
    ids=["wrong tenant", "bad group", "unknown subscription", "unknown location"],
)
def test_refusals_leave_nothing_half_made(agent: Agent, words: list[str], code: int, said: str) -> None:
    done = agent.connect(*words)
    assert done.code == code, done.out + done.err
    assert said in done.json["error"]["message"]
    assert done.json["error"]["remedy"]
    assert agent.is_clean()


def test_connect_while_another_command_connects(agent: Agent) -> None:
    with local.alone(str(agent.state / "clouds")):
        done = agent.connect()
    assert (done.code, done.json["error"]["code"]) == (27, "AZCM0027")
    assert agent.is_clean()


def test_a_wrong_secret(agent: Agent) -> None:
    agent.write_secret("wrong-hunter2")
    done = agent.connect()
    assert done.code == 41
    assert "AADSTS7000215" in done.json["error"]["message"]
    assert "wrong-hunter2" not in done.out + agent.log
    assert agent.is_clean()


def test_a_name_that_is_taken(agent: Agent, tmp_path: Path, hub: HubProcess, principal: dict[str, Any]) -> None:
    assert agent.connect(name="taken01").code == 0
    other = Agent(tmp_path / "other", hub, principal)
    other.start("himds")
    try:
        assert other.run("cloud", "add", "-", stdin=hub.run("cloud-profile").stdout).code == 0
        done = other.connect(name="taken01")
        assert (done.code, done.json["error"]["code"]) == (44, "AZCM0044")
        assert other.is_clean()
    finally:
        other.stop()
    assert agent.run("--json", "disconnect", "--force-local-only").json["deleted"] is False
    assert agent.is_clean()


def test_a_hub_that_is_not_trusted(agent: Agent) -> None:
    profile = agent.profile(
        "stranger",
        arm=agent.hub.url,
        authority=agent.hub.url,
        channel=[agent.hub.url + "/channel"],
        locations=["local"],
    )
    assert agent.run("cloud", "add", "-", stdin=json.dumps(profile)).code == 0
    done = agent.connect("--cloud", "stranger")
    assert done.code == 26
    assert "not trusted" in done.json["error"]["message"]
    assert agent.is_clean()


def test_one_command_at_a_time_and_cancelling(agent: Agent) -> None:
    token = agent.hub.token(agent.principal)
    wish = {"schema": 1, "connection": agent.place("slow01")}
    # A himds that stands still keeps a connect waiting for as long as the test likes.
    subscription = agent.hub.subscription_id
    command = [sys.executable, "-m", "agent_runtime.cli", "--root", str(agent.root), "connect", "-s", subscription]
    command += ["-g", "rg", "-l", "local", "-n", "slow01", "--access-token", "-"]
    first = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A test run in the background was started with SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - this process has one thread
    )
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdin.write(token + "\n")
    first.stdin.close()
    lines: list[str] = []
    while not any("key" in line for line in lines):
        lines.append(first.stdout.readline())
    agent.processes["himds"].send_signal(signal.SIGSTOP)
    try:
        bound = (agent.state / "binding.json").read_text()
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 11
        assert "AZCM0011" in first.stdout.read()
        assert (agent.state / "binding.json").read_text() == bound
    finally:
        first.stdout.close()
        agent.processes["himds"].send_signal(signal.SIGCONT)
    # himds goes on with what it was asked for, and a repeated apply goes on with that.
    until(lambda: agent.shown("identityState") == "connected", "himds finishes")
    done = agent.run("apply", "-", stdin=json.dumps(wish))
    assert (done.code, done.json["changed"]) == (0, False)
    assert json.loads(bound)["vmId"] == agent.shown("vmId")


def test_without_himds(agent: Agent) -> None:
    assert agent.connect(name="quiet01").code == 0
    agent.stop(signal.SIGKILL)
    done = agent.run("--json", "show")
    assert done.code == 61
    assert (done.json["resourceName"], done.json["agentErrorCode"]) == ("quiet01", "AZCM0061")
    nobody = agent.run("--json", "show", user=65534)
    assert (nobody.code, nobody.json["error"]["code"]) == (61, "AZCM0061")
    assert agent.run("--json", "disconnect", "--force-local-only").code == 61
    agent.start("himds")
    until(lambda: agent.shown("status") == "Connected", "connected again")


if os.geteuid() != 0:
    pytest.skip("needs root to become somebody else", allow_module_level=True)

# SPDX-License-Identifier: Apache-2.0
"""Rotation of the hub's CA and of its desired-state key over machines that run: nobody is cut off, and afterwards the
old ones are worth nothing."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration import hub_process
from tests.integration.agent_process import ENVIRONMENT, Agent
from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.waiting import until


def adopted(agent: Agent, old_ca: str) -> bool:
    """True when the machine no longer trusts the old CA."""
    return old_ca not in json.loads((agent.state / "trust/demo.json").read_text())["ca_pem"]


class Site:
    """A hub of its own and machines whose himds and gcad run as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub: HubProcess = hub_process.make(folder / "hub", "--location", "local=Laboratory").start()
        self.token = self.hub.token(self.hub.principal("owner", "Owner"))
        self.agents: list[Agent] = []
        self.services: list[subprocess.Popen[bytes]] = []

    def connect(self, name: str, *, service: bool = True) -> Agent:
        agent = Agent(self.folder / name).start()
        self.agents.append(agent)
        agent.add_cloud(self.hub)
        done = agent.connect(self.hub, self.token, name)
        assert done.returncode == 0, done.stdout
        if service:
            argv = [sys.executable, "-m", "agent_runtime.policy", "--root", str(agent.root)]
            self.services.append(subprocess.Popen(argv, cwd=REPOSITORY, env=ENVIRONMENT))
        return agent

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.hub.json("trust", "status")
        return found

    def presents(self) -> bytes:
        """The certificate the server shows now."""
        host, port = self.hub.listen.split(":")
        return ssl.get_server_certificate((host, int(port))).encode()

    def beats(self, agent: Agent) -> bool:
        """A heartbeat over a new connection."""
        agent.stop()
        agent.start()
        return agent.run("show", "--json").returncode == 0 and bool(
            until(lambda: agent.show()["status"] == "Connected", seconds=90)
        )

    def close(self) -> None:
        for service in self.services:
            service.send_signal(signal.SIGTERM)
            service.wait(15)
        for agent in self.agents:
            agent.stop()
        self.hub.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_the_ca_is_rotated_under_a_running_fleet(site: Site) -> None:
    first, second = site.connect("web01"), site.connect("web02")
    old_ca = Path(site.hub.ca_file).read_text()
    shown = site.presents()
    until(lambda: not site.status()["behind"], seconds=90)

    site.hub.run("trust", "rotate", "ca")
    status = site.status()
    assert status["underWay"] == ["ca"]
    assert len(status["caSha256"]) == 2
    # The new certificate is served without a restart, and who trusts the old CA alone is served still.
    until(lambda: site.presents() != shown, seconds=90)
    (site.folder / "old.pem").write_text(old_ca)
    assert requests.get(f"{site.hub.url}/healthz", verify=str(site.folder / "old.pem"), timeout=30).ok
    until(lambda: not site.status()["behind"], seconds=90)

    site.hub.run("trust", "finish", "ca")
    assert not site.status()["underWay"]
    with pytest.raises(requests.exceptions.SSLError):
        until(
            lambda: not requests.get(f"{site.hub.url}/healthz", verify=str(site.folder / "old.pem"), timeout=30).ok,
            seconds=90,
        )
    for agent in (first, second):
        assert json.loads((agent.state / "clouds/demo.json").read_text())["ca_pem"] == old_ca
        until(partial(adopted, agent, old_ca), seconds=90)
        assert site.beats(agent)
        assert agent.run("check").returncode == 0
    # The playbook's profile is still the old one: giving it again changes nothing and breaks nothing.
    again = first.run("cloud", "add", str(first.root / "profile.json"))
    assert again.returncode == 0
    assert site.beats(first)


def test_nobody_is_left_behind_unasked(site: Site) -> None:
    """A machine whose services cannot adopt anything holds the rotation up, by name; force ends it."""
    site.connect("deaf", service=False)
    site.hub.run("trust", "rotate", "ca")
    refused = site.hub.run("trust", "finish", "ca", check=False)
    assert refused.returncode == 1
    assert "deaf" in refused.stderr
    assert site.status()["underWay"] == ["ca"]
    assert "1 machines are left behind" in site.hub.run("trust", "finish", "ca", "--force").stdout
    assert "No rotation" in site.hub.run("trust", "finish", "ca", check=False).stderr


def test_the_desired_state_key_is_rotated(site: Site) -> None:
    agent = site.connect("web01")
    before = site.status()["kids"]
    until(lambda: not site.status()["behind"], seconds=90)
    site.hub.run("trust", "rotate", "desired-state-key")
    until(lambda: not site.status()["behind"], seconds=90)
    site.hub.run("trust", "finish", "desired-state-key")
    after = site.status()["kids"]
    assert len(after) == 1
    assert after != before
    until(
        lambda: (
            [key["kid"] for key in json.loads((agent.state / "trust/demo.json").read_text())["desired_state_keys"]]
            == after
        ),
        seconds=90,
    )
    profile = json.loads(site.hub.run("cloud-profile").stdout)
    assert [key["kid"] for key in profile["desired_state_keys"]] == after


@pytest.mark.parametrize("cut", ["ca-next.key", "bundle", "cross", "tls-next.key", "tls.crt", "ca.key"])
def test_begin_may_be_killed_after_each_file(tmp_path: Path, cut: str) -> None:
    """What a crash after each write leaves is a hub that starts, and a rotation that goes on."""
    hub = hub_process.make(tmp_path / "hub", "--location", "local=Laboratory")
    program = (
        "import sys, pathlib\n"
        "from control_plane import keyring, settings, trust\n"
        "cut, data = sys.argv[1], pathlib.Path(sys.argv[2])\n"
        "real = settings.write_file\n"
        "names = {'bundle': 'ca.crt', 'cross': 'ca-cross.crt'}\n"
        "def write(path, content, mode=0o600):\n"
        "    real(path, content, mode)\n"
        "    if path.name == names.get(cut, cut):\n"
        "        import os; os._exit(9)\n"
        "keyring.write_file = trust.write_file = write\n"
        "trust.begin_ca(data, settings.load(data))\n"
    )
    argv = [sys.executable, "-c", program, cut, str(hub.data)]
    assert subprocess.run(argv, cwd=REPOSITORY, check=False).returncode == 9
    hub.start()
    assert hub.session().get(f"{hub.url}/healthz", timeout=30).ok
    hub.stop()
    hub.run("trust", "rotate", "ca")
    assert len(hub.json("trust", "status")["caSha256"]) == 2
    hub.start()
    assert hub.session().get(f"{hub.url}/healthz", timeout=30).ok
    hub.stop()

# SPDX-License-Identifier: Apache-2.0
"""The support window where people see it: `show` on a machine, the fleet query of the hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.version import RELEASED, VERSION
from benchmarks.simulator import Fleet, background
from tests.integration.agent_process import Agent
from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.waiting import until

TWO_YEARS = 2 * 366 * 86400.0


def at_hub(hub: HubProcess, owner: str) -> Any:
    """What the hub says of the machine's support."""
    answer = hub.session().get(
        f"{hub.url}/hawser/v1/machines",
        params={"subscriptionId": hub.subscription_id, "name": "support01"},
        headers={"Authorization": f"Bearer {owner}"},
        timeout=30,
    )
    return answer.json()["value"][0]["support"]


def test_show_judges_by_the_hubs_clock(hub: HubProcess, tmp_path: Path) -> None:
    owner = hub.token(hub.principal("support-owner", "Owner"))
    agent = Agent(tmp_path, clock_ahead=TWO_YEARS).start()
    try:
        # Nobody has told this machine that it is not two years later.
        assert agent.show()["agentSupport"] == "ended"
        text = agent.run("show")
        assert re.search(
            r"^Agent Support +: ended: this version is over a year old; upgrade the agent$", text.stdout, re.MULTILINE
        )
        agent.add_cloud(hub)
        assert agent.connect(hub, owner, "support01").returncode == 0
        told = agent.show()
        assert (told["agentSupport"], told["agentReleased"]) == ("supported", RELEASED)
        assert told["agentSupportedUntil"] == f"{int(RELEASED[:4]) + 1}{RELEASED[4:]}"
        ends = told["agentSupportedUntil"]
        supported = {"state": "supported", "released": RELEASED, "until": ends}
        until(lambda: at_hub(hub, owner) == supported)  # once it has the inventory
    finally:
        agent.stop()


def test_an_old_version_is_flagged_without_himds_too(tmp_path: Path) -> None:
    shutil.copytree(
        REPOSITORY / "agent_runtime", tmp_path / "agent_runtime", ignore=shutil.ignore_patterns("__pycache__")
    )
    source = tmp_path / "agent_runtime" / "version.py"
    source.write_text(source.read_text(encoding="utf-8").replace(RELEASED, "2024-02-29"), encoding="utf-8")
    root = tmp_path / "root"
    for folder in ("clouds", "log", "socks", "state"):
        (root / "var/opt/azcmagent" / folder).mkdir(parents=True)
    command = [sys.executable, "-m", "agent_runtime.cli", "--root", str(root), "show"]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [*command, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 61
    told = json.loads(done.stdout)
    assert told["agentSupport"] == "ended"
    assert (told["agentReleased"], told["agentSupportedUntil"]) == ("2024-02-29", "2025-02-28")


@pytest.mark.parametrize(
    ("version", "released", "state"),
    [(VERSION, RELEASED, "supported"), (VERSION, "2024-02-29", "ended"), ("0.9.0.0", RELEASED, "unknown")],
)
def test_the_fleet_query_flags_old_versions(hub: HubProcess, version: str, released: str, state: str) -> None:
    owner = hub.principal(f"support-{state}", "Owner")
    where = (hub.url, hub.ca_file, hub.tenant_id, hub.subscription_id, f"support-{state}")
    fleet = Fleet(*where, owner, 1, keys=1)
    with background() as call:
        call(fleet.enrol())
        data = {"osType": "linux", "agentVersion": version, "agentReleased": released}
        call(fleet.machines[0].report("inventory", data))
        call(fleet.stop())
    answer = hub.session().get(
        f"{hub.url}/hawser/v1/machines",
        params={"subscriptionId": hub.subscription_id, "resourceGroup": fleet.group},
        headers={"Authorization": f"Bearer {hub.token(owner)}"},
        timeout=30,
    )
    [row] = answer.json()["value"]
    assert row["support"]["state"] == state
    assert row["support"]["released"] == (released if state != "unknown" else None)

# SPDX-License-Identifier: Apache-2.0
"""Lane cores: the collection with each ansible-core that it is for, on a real host: rollout, modules, inventory, end.

Newer cores need a newer Python than Debian 12 has. One that this machine does not have is named as skipped.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.collection_site import Site, site
from tests.lanes import clients
from tests.lanes.cores import CORES, programs

pytestmark = [pytest.mark.lane("cores"), pytest.mark.hosts, pytest.mark.timeout(600)]
PLAY, REMOVE = "hawser.machine.site", "hawser.machine.remove"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("cores"), ["web01"]) as made:
        yield made


def test_there_is_a_python_for_one_of_them() -> None:
    found = []
    for version in CORES.values():
        try:
            found.append(clients.newest_python(version))
        except pytest.skip.Exception:
            continue
    assert found, f"none of these is on this machine: Python {', '.join(CORES.values())}"


@pytest.mark.parametrize("core", CORES)
def test_core(hosts_possible: None, ground: Site, core: str) -> None:
    ground.programs = programs(core)
    version = subprocess.run(
        [str(ground.programs / "ansible"), "--version"], env=ground.environment(), check=True, capture_output=True
    )
    assert f"core {core[4]}.{core[5:]}." in version.stdout.decode()

    fresh = ground.play(PLAY, "--check", "--diff")
    assert (fresh.code, fresh.changed("web01")) == (0, 1), fresh.output
    rollout = ground.play(PLAY, "-vvv", "--diff")
    assert rollout.code == 0, rollout.output
    assert ground.machines()["web01"]["status"] == "Connected"
    assert ground.secrets_in(rollout.output) == []
    again = ground.play(PLAY, "-vvv")
    assert (again.code, again.changed("web01")) == (0, 0), again.output
    assert again.commands(str(ground.lab.hosts["web01"].address)) == 1
    _from_the_hubs_inventory(ground)
    refused = ground.play([{"hawser.machine.config": {"config": {"no.such": 1}}}])
    assert refused.code == 2
    assert refused.of("config")[0]["error"]["code"] == "AZCM0023"

    removed = ground.play(REMOVE)
    assert removed.code == 0, removed.output
    assert "web01" not in ground.machines()
    for run in (fresh, rollout, again, removed):
        assert "[DEPRECATION WARNING]" not in run.output, run.output


def _from_the_hubs_inventory(ground: Site) -> None:
    """The host out of the hub's list, all modules on it, and the playbook that finds nothing to do."""
    source = ground.work / "fleet.hawser.yml"
    options = {
        "plugin": "hawser.machine.machines",
        "cloud_profile": "profile.json",
        "statuses": ["Connected"],
        "compose": {name: repr(value) for name, value in ground.reach().items()},
        "keyed_groups": [{"key": "tags.env", "prefix": "env"}],
        "strict": True,
    }
    source.write_text(yaml.safe_dump(options))
    place = {
        "cloud_profile": str(ground.work / "profile.json"),
        "subscription_id": ground.hub.subscription_id,
        "resource_group": "servers",
    }
    hub = {"hawser.machine.machine_info", "hawser.machine.wait_ready"}
    modules = ["network_check", "agent_info", "machine_info", "wait_ready"]
    tasks: list[dict[str, Any]] = [
        {f"hawser.machine.{name}": place if f"hawser.machine.{name}" in hub else None} for name in modules
    ]
    tasks.append({"hawser.machine.agent": {"version": ground.variables["agent_version"]}})
    tasks.append({"hawser.machine.config": {"config": {"extensions.blocklist": ["Example.Publisher/Forbidden"]}}})
    secret = {"that": "lookup('hawser.machine.access_token', cloud_profile='profile.json') | length > 100"}
    tasks.append({"ansible.builtin.assert": secret})
    groups = {"ansible.builtin.assert": {"that": "'env_test' in group_names and 'hawser_linux' in group_names"}}
    run = ground.play([*tasks, groups], "-vvv", source=source)
    assert run.code == 0, run.output
    assert run.changed("web01") == 0
    assert ground.secrets_in(run.output) == []
    assert run.of("network_check")[0]["reachable"]
    assert run.of("machine_info")[0]["machines"][0]["fleet"]["status"] == "Connected"
    values = {f"-e{name}={value}" for name, value in ground.variables.items() if isinstance(value, str)}
    converged = ground.play(PLAY, *sorted(values), source=source)
    assert (converged.code, converged.changed("web01")) == (0, 0), converged.output


def test_every_core_has_its_lock() -> None:
    assert {path.stem for path in Path(clients.ROOT, "requirements").glob("core*.txt")} == set(CORES)

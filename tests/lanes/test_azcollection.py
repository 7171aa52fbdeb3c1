# SPDX-License-Identifier: Apache-2.0
"""Lane azcollection: the unmodified collection azure.azcollection, out of PyPI's ansible, against a hub: its modules,
its inventory, and its role azure_arc on a machine that has the agent (the role would download it from its vendor)."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.agent_process import Agent, unpacked
from tests.integration.extension_site import serving
from tests.integration.hub_machine import Machine
from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.integration.test_collection_extensions import publish
from tests.lanes import clients

pytestmark = [pytest.mark.lane("azcollection"), pytest.mark.timeout(600)]
MODULE = "azure.azcollection.azure_rm_"
MACHINE = {"resource_group": "fleet", "provider": "HybridCompute", "resource_type": "machines"}


class Ansible:
    """ansible-playbook and ansible-inventory with credentials in the environment, as the demo hands them out."""

    def __init__(self, hub: HubProcess, principal: dict[str, Any], folder: Path) -> None:
        self.hub, self.folder = hub, folder
        # The role azure_arc came with 3.15.0, resolving a cloud by its URL works again since; both need ansible 14.
        self.programs = clients.environment("azcollection", clients.newest_python("3.12", "3.13"))
        self.environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "AZURE_CONFIG_DIR": str(folder / "azure"),
            **clients.demo_variables(hub, principal, folder / "demo"),
        }

    def _run(self, program: str, *words: str, **more: str) -> str:
        done = subprocess.run(
            [str(self.programs / program), *words],
            env={**self.environment, **more},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout

    def play(
        self, tasks: list[dict[str, Any]], variables: dict[str, Any] | None = None, path: str = ""
    ) -> dict[str, Any]:
        """Results of tasks on localhost by their names."""
        known = {"ansible_python_interpreter": "{{ ansible_playbook_python }}", "ansible_become": False}
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
        playbook = self.folder / "play.yml"
        playbook.write_text(yaml.safe_dump([{**play, "vars": {**known, **(variables or {})}}]))
        more = {"PATH": f"{path}:{self.environment['PATH']}"} if path else {}
        told = json.loads(self._run("ansible-playbook", "-i", "localhost,", str(playbook), **more))
        (done,) = told["plays"]
        results = ((item["task"]["name"], item["hosts"].get("localhost")) for item in done["tasks"])
        return {name.rpartition(" : ")[2]: result for name, result in results if result is not None}

    def inventory(self, **options: Any) -> dict[str, Any]:
        """What the inventory plugin finds."""
        source = self.folder / "fleet.azure_rm.yml"
        source.write_text(yaml.safe_dump({"plugin": "azure.azcollection.azure_rm", **options}))
        found: dict[str, Any] = _plain(json.loads(self._run("ansible-inventory", "-i", str(source), "--list")))
        return found


def _plain(value: Any) -> Any:
    """Without the marks that Ansible puts around texts that came from elsewhere."""
    if isinstance(value, dict):
        marked = value.get("__ansible_unsafe")
        return marked if marked is not None else {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local=Laboratory")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


@pytest.fixture(scope="module")
def ansible(hub: HubProcess, owner: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Ansible:
    return Ansible(hub, owner, tmp_path_factory.mktemp("ansible"))


def _task(register: str, module: str, **arguments: Any) -> dict[str, Any]:
    return {"name": register, f"{MODULE}{module}": arguments, "register": register}


def test_modules(ansible: Ansible, hub: HubProcess) -> None:
    wish = {**MACHINE, "resource_name": "web01", "idempotency": True}
    tagged = {"location": "local", "tags": {"env": "prod"}}
    scope = "{{ made.response.id }}"
    lock = {"name": "keep", "resource_group": "fleet"}
    told = ansible.play(
        [
            _task("group", "resourcegroup", name="fleet", location="local", tags={"team": "web"}),
            _task("made", "resource", **wish, body=tagged),
            _task("again", "resource", **wish, body=tagged),
            _task("changed", "resource", **wish, body={**tagged, "tags": {"env": "test"}}),
            _task(
                "licence",
                "resource",
                **{**wish, "resource_type": "licenses", "resource_name": "esu"},
                body={"location": "local"},
            ),
            _task("found", "resource_info", **MACHINE),
            _task("info", "resourcegroup_info", name="fleet", list_resources=True),
            _task("subscriptions", "subscription_info"),
            _task("merged", "tags", scope=scope, operation="Merge", tags={"x": "y"}),
            _task("locked", "lock", **lock, level="can_not_delete"),
            _task("locks", "lock_info", resource_group="fleet"),
            _task("extensions", "arcmachineextensions_info", resource_group="fleet", machine_name="web01"),
            {**_task("kept", "resource", **wish, state="absent"), "ignore_errors": True},
            _task("unlocked", "lock", **lock, state="absent"),
            _task("gone", "resource", **wish, state="absent"),
            _task("group_gone", "resourcegroup", name="fleet", state="absent", force_delete_nonempty=True),
        ]
    )
    assert [told[name]["changed"] for name in ("group", "made", "again", "changed", "gone", "group_gone")] == [
        True,
        True,
        False,
        True,
        True,
        True,
    ]
    (machine,) = told["found"]["response"]
    assert (machine["name"], machine["tags"], machine["properties"]["status"]) == (
        "web01",
        {"env": "test"},
        "AwaitingConnection",
    )
    (group,) = told["info"]["resourcegroups"]
    assert {item["name"] for item in group["resources"]} == {"web01", "esu"}
    assert told["subscriptions"]["subscriptions"][0]["subscription_id"] == hub.subscription_id
    assert told["locks"]["locks"][0]["level"] == "can_not_delete"
    assert told["extensions"]["arcmachineextensions"] == []
    assert told["kept"]["failed"]
    assert "ScopeLocked" in json.dumps(told["kept"])


def test_the_inventory(ansible: Ansible, hub: HubProcess, owner: dict[str, Any]) -> None:
    network = {
        "networkInterfaces": [{"name": "eth0", "ipAddresses": [{"address": "10.0.0.7", "ipAddressVersion": "IPv4"}]}]
    }
    for name in ("inv01", "inv02"):
        machine = Machine(hub, name, group="inventory").connect(hub.token(owner), tags={"env": name})
        report = {"osType": "linux", "osName": "linux", "osSku": "Debian GNU/Linux 12", "networkProfile": network}
        assert machine.report("inventory", report).status_code == 200
    for batch in (True, False):
        found = ansible.inventory(
            include_arc_resource_groups=["inventory"],
            plain_host_names=True,
            batch_fetch=batch,
            keyed_groups=[{"key": "tags.env", "prefix": "env"}],
        )
        hosts = found["_meta"]["hostvars"]
        assert set(hosts) == {"inv01", "inv02"}
        assert hosts["inv01"]["resource_type"] == "Microsoft.HybridCompute/machines"
        assert hosts["inv01"]["tags"] == {"env": "inv01"}
        assert found["env_inv02"]["hosts"] == ["inv02"]


def test_the_module_of_extensions(
    ansible: Ansible, hub: HubProcess, owner: dict[str, Any], agent_deb: Path, tmp_path: Path
) -> None:
    """From the module to a script that runs: a real himds and extd."""
    publish(hub, tmp_path / "packages")
    agent = Agent(tmp_path / "machine", unpacked(agent_deb, tmp_path / "package")).start()
    with serving(agent):
        agent.add_cloud(hub)
        done = agent.connect(hub, hub.token(owner), "extended")
        assert done.returncode == 0, done.stdout
        _drive_extensions(ansible, tmp_path)
    assert agent.stop() == 0


def _drive_extensions(ansible: Ansible, folder: Path) -> None:
    place = {"resource_group": "fleet", "machine_name": "extended"}
    ran = folder / "ran"

    def extension(register: str, command: str, **more: Any) -> dict[str, Any]:
        handler = {"publisher": "Hawser", "type": "CustomScript", "type_handler_version": "1.0.0"}
        properties = {**handler, "settings": {"commandToExecute": command}}
        return _task(register, "arcmachineextensions", **place, name="setup", properties=properties, **more)

    first, second = (f"echo {word} >>{ran}; echo the end" for word in ("first", "second"))
    gone = {**place, "name": "setup", "state": "absent"}
    told = ansible.play(
        [
            {**extension("checked", first), "check_mode": True},
            extension("made", first, tags={"env": "test"}),
            extension("again", first),
            _task("listed", "arcmachineextensions_info", **place),
            extension("changed", second),
            _task("one", "arcmachineextensions_info", **place, name="setup"),
            {**extension("failed", "echo what went wrong >&2; exit 7"), "ignore_errors": True},
            extension("mended", first),
            _task("gone", "arcmachineextensions", **gone),
            _task("gone_again", "arcmachineextensions", **gone),
            _task("nothing", "arcmachineextensions_info", **place),
        ]
    )
    changed = ("checked", "made", "again", "changed", "mended", "gone", "gone_again")
    assert [told[name]["changed"] for name in changed] == [True, True, False, True, True, True, False]
    (listed,), (one,) = (told[name]["arcmachineextensions"] for name in ("listed", "one"))
    assert (listed["tags"], listed["properties"]["provisioning_state"]) == ({"env": "test"}, "Succeeded")
    assert listed["properties"]["settings"] == {"commandToExecute": first}
    assert "the end" in listed["properties"]["instance_view"]["status"]["message"]
    assert (one["tags"], one["properties"]["settings"]) == ({"env": "test"}, {"commandToExecute": second})
    assert told["failed"]["failed"]
    assert "what went wrong" in told["failed"]["msg"]
    assert told["nothing"]["arcmachineextensions"] == []
    assert ran.read_text().split() == ["first", "second", "first"]


def test_the_role_connects_a_machine_that_has_the_agent(
    ansible: Ansible, hub: HubProcess, owner: dict[str, Any], tmp_path: Path
) -> None:
    answer = hub.session().put(
        f"{hub.url}/subscriptions/{hub.subscription_id}/resourceGroups/arc",
        params={"api-version": "2022-09-01"},
        json={"location": "local"},
        headers={"Authorization": f"Bearer {hub.token(owner)}"},
        timeout=30,
    )
    assert answer.status_code == 201
    agent = Agent(tmp_path / "machine").start()
    try:
        agent.add_cloud(hub)
        programs = tmp_path / "bin"
        programs.mkdir()
        program = programs / "azcmagent"
        command = shlex.join([sys.executable, "-m", "agent_runtime.cli", "--root", str(agent.root)])
        program.write_text(f'#!/bin/sh\ncd {shlex.quote(str(REPOSITORY))} && exec {command} "$@"\n')
        program.chmod(0o755)
        variables = {
            "azure_arc_resource_group": "arc",
            "azure_arc_subscription_id": hub.subscription_id,
            "azure_arc_tenant_id": hub.tenant_id,
            "azure_arc_cloud": "demo",
            "azure_arc_tags": {"archost": "true"},
            "azure_arc_log_enabled": False,  # it would tell the vendor's host
        }
        role = {"name": "role", "ansible.builtin.include_role": {"name": "azure.azcollection.azure_arc"}}
        told = ansible.play([role], variables, str(programs))
        connected = agent.show()
        assert (connected["status"], connected["resourceGroup"]) == ("Connected", "arc")
        assert (
            told["Set resource id as variable for easy access in other roles (newly registered system in azure arc)"][
                "ansible_facts"
            ]["azure_arc_resource_id"]
            == connected["resourceId"]
        )
        again = ansible.play([role], variables, str(programs))
        assert again["Verify configuration settings match expected values"]["changed"] is False
        assert agent.show()["resourceId"] == connected["resourceId"]
    finally:
        assert agent.stop() == 0

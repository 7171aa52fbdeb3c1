# SPDX-License-Identifier: Apache-2.0
"""The collection over ssh on real systemd hosts with a real hub: one story, told in the order of its tests."""

from __future__ import annotations

import functools
import http.server
import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.collection_site import CommandLines, Site, build_package, site
from tests.integration.connected_host import show
from tests.waiting import until

pytestmark = pytest.mark.hosts
HOSTS = ["web01", "web02"]
SITE, REMOVE = "hawser.machine.site", "hawser.machine.remove"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), HOSTS) as made:
        yield made


def address(ground: Site, name: str) -> str:
    return str(ground.lab.hosts[name].address)


def ids(ground: Site) -> dict[str, str]:
    """Resource ids of the fleet by name."""
    return {name: str(machine["id"]) for name, machine in ground.machines().items()}


def described(ground: Site, **changes: Any) -> dict[str, Any]:
    """A task that describes a host as the site's variables do."""
    options = {
        "cloud_profile": ground.variables["agent_cloud_profile"],
        "subscription_id": ground.variables["agent_subscription_id"],
        "resource_group": "servers",
        "location": "local",
        "tags": ground.variables["agent_tags"],
        **changes,
    }
    return {"hawser.machine.machine": options}


def test_check_mode_is_true_on_a_fresh_host(ground: Site) -> None:
    run = ground.play(SITE, "--check", "--diff")
    assert run.code == 0, run.output
    for name in HOSTS:
        assert run.changed(name) == 1
        assert run.of("machine", name)[0]["reasons"] == [{"path": "agent.installed", "expected": True, "actual": False}]
        assert ground.lab.hosts[name].run(["test", "-e", "/opt/azcmagent"], check=False).code == 1
    assert "+  installed: true" in run.output


def test_another_package_than_the_described_one_is_refused(ground: Site) -> None:
    run = ground.play(SITE, "--limit", "web01", agent_package_sha256="0" * 64)
    assert run.code == 2
    assert "Correct agent_package_sha256" in run.output
    assert ground.lab.hosts["web01"].run(["test", "-e", "/opt/azcmagent"], check=False).code == 1


def test_without_credentials_the_host_stays_as_it_is(ground: Site) -> None:
    run = ground.play(SITE, "--limit", "web02", extra={"HAWSER_CLIENT_ID": ""})
    assert run.code == 2
    assert "AZCM0016" in run.output
    assert "HAWSER_CLIENT_ID" in run.output
    assert "web02" not in ground.machines()


def test_rollout_connects_and_keeps_secrets(ground: Site) -> None:
    with CommandLines() as lines:
        run = ground.play(SITE, "-vvv", "--diff")
    assert run.code == 0, run.output
    for name in HOSTS:
        assert run.of("wait_ready", name)[0]["ready"] is True
        assert ground.machines()[name]["status"] == "Connected"
    assert ground.secrets_in(run.output) == []
    assert ground.secrets_in("\n".join(lines.seen)) == []
    assert any("azcmagent apply" in line for line in lines.seen), "the processes of the hosts were not seen"


def test_hosts_keep_neither_secret_nor_ticket(ground: Site) -> None:
    for name in HOSTS:
        host = ground.lab.hosts[name]
        logs = host.run(["sh", "-c", "cat /var/opt/azcmagent/log/* 2>/dev/null; journalctl --no-pager"]).output
        assert ground.secrets_in(logs) == []
        found = host.run(
            ["grep", "-rlF", ground.principal["clientSecret"], "/var", "/etc", "/root", "/tmp", "/opt", "/home"],
            check=False,
        )
        assert found.output == ""
        assert host.run(["find", "/root/.ansible", "/tmp", "-type", "f"], check=False).output == ""


def test_a_second_run_costs_one_remote_command_and_the_hub_nothing(ground: Site) -> None:
    """The hub is not even there."""
    ground.hub.stop()
    try:
        run = ground.play(SITE, "-vvv")
    finally:
        ground.hub.start()
    assert run.code == 0, run.output
    for name in HOSTS:
        assert run.changed(name) == 0
        assert run.commands(address(ground, name)) == 1


def test_a_host_that_was_not_heard_from_is_verified_again(ground: Site) -> None:
    """The run that has connected it may have failed just there; the next one must not be green for that."""
    host, lease = ground.lab.hosts["web02"], "/var/opt/azcmagent/state/lease.json"
    ground.hub.stop()
    try:
        host.run(["systemctl", "stop", "himdsd"])
        host.run(["sed", "-i", 's/"lastHeartbeatUnix": [0-9.]*/"lastHeartbeatUnix": 0.0/', lease])
        host.run(["systemctl", "start", "himdsd"])
        failed = ground.play(SITE, "--limit", "web02", agent_wait_timeout=5)
    finally:
        ground.hub.start()
    assert failed.code == 2, failed.output
    assert "web02 is not ready after 5 s: the hub cannot be asked" in failed.output
    run = ground.play(SITE, "--limit", "web02")
    assert (run.code, run.changed("web02")) == (0, 0), run.output
    until(lambda: show(host)["status"] == "Connected", seconds=60)


def test_a_hub_that_comes_back_is_waited_for(ground: Site) -> None:
    options = {
        "cloud_profile": ground.variables["agent_cloud_profile"],
        "subscription_id": ground.variables["agent_subscription_id"],
        "resource_group": "servers",
        "interval": 1,
    }
    ground.hub.stop()
    back = threading.Timer(8, ground.hub.start)
    back.start()
    try:
        run = ground.play([{"hawser.machine.wait_ready": options}], "--limit", "web01")
    finally:
        back.join()
    assert run.code == 0, run.output
    assert run.of("wait_ready", "web01")[0]["ready"] is True


def test_a_second_run_needs_no_credentials(ground: Site) -> None:
    run = ground.play(SITE, extra={"HAWSER_CLIENT_ID": "", "HAWSER_CLIENT_SECRET_FILE": ""})
    assert run.code == 0, run.output
    assert [run.changed(name) for name in HOSTS] == [0, 0]


def test_check_mode_afterwards_finds_nothing(ground: Site) -> None:
    run = ground.play(SITE, "--check", "--diff")
    assert run.code == 0, run.output
    assert [run.changed(name) for name in HOSTS] == [0, 0]


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"name": "{{ inventory_hostname }}-other"}, {"connection.name"}),
        ({"resource_group": "other"}, {"connection.resource_group"}),
        ({"location": "north"}, {"connection.location"}),
        ({"tags": {"env": "other"}}, {"tags"}),
    ],
    ids=["name", "group", "location", "tags"],
)
def test_a_wrong_connection_is_planned_shown_and_repaired(
    ground: Site, changes: dict[str, Any], paths: set[str]
) -> None:
    wrong = ground.play([described(ground, **changes)], "--limit", "web02")
    assert wrong.code == 0, wrong.output
    assert wrong.changed("web02") == 1
    before = ids(ground)

    plan = ground.play(SITE, "--check", "--diff", "--limit", "web02")
    assert plan.changed("web02") == 1
    (planned,) = plan.of("machine")
    assert {
        reason["path"].split(".")[0] if "tags" in paths else reason["path"] for reason in planned["reasons"]
    } == paths
    assert planned["diff"]["before"] != planned["diff"]["after"]
    assert ids(ground) == before

    repair = ground.play(SITE, "--limit", "web02")
    assert repair.code == 0, repair.output
    assert repair.changed("web02") == 1
    assert set(ground.machines()) == set(HOSTS)
    machine = ground.machines()["web02"]
    assert (machine["resourceGroup"].lower(), machine["location"]) == ("servers", "local")

    again = ground.play(SITE, "--limit", "web02")
    assert again.changed("web02") == 0


def test_tags_are_repaired_without_connecting_anew(ground: Site) -> None:
    def vm_id() -> str:
        return str(
            ground.play([{"hawser.machine.agent_info": None}], "--limit", "web01").of("agent_info")[0]["agent"]["vmId"]
        )

    before = vm_id()
    run = ground.play([described(ground, tags={"env": "other"})], "--limit", "web01")
    assert [step["name"] for step in run.of("machine")[0]["steps"]].count("connect") == 0
    ground.play(SITE, "--limit", "web01")
    assert vm_id() == before


def test_the_onboarding_role_moves_nobody(ground: Site) -> None:
    """It may create machines and not delete them: the plan is refused at the ticket, and the host stays connected."""
    weak = ground.hub.principal("weak", "Onboarding")
    run = ground.play(
        [described(ground, name="moved")],
        "--limit",
        "web01",
        extra={
            "HAWSER_CLIENT_ID": weak["clientId"],
            "HAWSER_CLIENT_SECRET_FILE": "",
            "HAWSER_CLIENT_SECRET": weak["clientSecret"],
        },
    )
    assert run.code == 2
    assert "AuthorizationFailed" in run.output
    assert set(ground.machines()) == set(HOSTS)
    assert ground.play(SITE, "--limit", "web01").changed("web01") == 0


def test_config_four_ways(ground: Site) -> None:
    task: list[dict[str, Any]] = [{"hawser.machine.config": {"config": {"config.mode": "monitor"}}}]
    assert ground.play(task, "--check").changed("web01") == 1
    assert ground.play(task).changed("web01") == 1
    assert ground.play(task).changed("web01") == 0
    assert ground.play(task, "--check").changed("web01") == 0
    assert ground.play([{"hawser.machine.config": {"config": {"config.mode": None}}}]).changed("web01") == 1


def test_a_bad_property_is_one_sentence_and_changes_nothing(ground: Site) -> None:
    run = ground.play(
        [{"hawser.machine.config": {"config": {"no.such": 1, "config.mode": "monitor"}}}], "--limit", "web01"
    )
    assert run.code == 2
    (failed,) = run.of("config")
    assert failed["error"]["code"] == "AZCM0023"
    assert "no.such" in failed["msg"]
    assert (
        ground.play([{"hawser.machine.config": {"config": {"config.mode": None}}}], "--limit", "web01").changed("web01")
        == 0
    )


def test_controller_side_modules_send_nothing_to_hosts(ground: Site) -> None:
    shared = {
        "cloud_profile": ground.variables["agent_cloud_profile"],
        "subscription_id": ground.variables["agent_subscription_id"],
        "resource_group": "servers",
    }
    run = ground.play(
        [
            {"hawser.machine.machine_info": shared},
            {"hawser.machine.machine_info": {**shared, "scope": "subscription"}},
            {"hawser.machine.wait_ready": {**shared, "timeout": 5}},
            {"hawser.machine.access_token": {"cloud_profile": shared["cloud_profile"]}, "no_log": True},
        ],
        "-vvv",
    )
    assert run.code == 0, run.output
    assert [run.commands(address(ground, name)) for name in HOSTS] == [0, 0]
    one, all_of_them = run.of("machine_info", "web01")
    assert [machine["name"] for machine in one["machines"]] == ["web01"]
    assert one["machines"][0]["tags"] == {"env": "test", "number": "1"}
    assert {machine["name"] for machine in all_of_them["machines"]} == set(HOSTS)
    assert ground.secrets_in(run.output) == []


def test_a_machine_that_never_comes_is_a_clear_failure(ground: Site) -> None:
    options = {
        "name": "nobody",
        "cloud_profile": ground.variables["agent_cloud_profile"],
        "subscription_id": ground.variables["agent_subscription_id"],
        "resource_group": "servers",
        "timeout": 2,
        "interval": 1,
    }
    run = ground.play([{"hawser.machine.wait_ready": options}], "--limit", "web01")
    assert run.code == 2
    assert "nobody is not ready after 2 s: the hub does not know it" in run.output


def test_sudo_and_su(ground: Site) -> None:
    host = ground.lab.hosts["web01"]
    host.run(["chpasswd"], stdin="app:app-password\nroot:root-password\n")
    host.write("/etc/sudoers.d/app", "app ALL=(ALL) ALL\n", mode=0o440)
    try:
        by_sudo: dict[str, Any] = {
            "ansible_user": "app",
            "ansible_become": True,
            "ansible_become_password": "app-password",
        }
        run = ground.play([described(ground)], "-vvv", "--limit", "web01", **by_sudo)
        assert run.code == 0, run.output
        assert run.commands(address(ground, "web01")) == 1
        by_su: dict[str, Any] = {**by_sudo, "ansible_become_method": "su", "ansible_become_password": "root-password"}
        run = ground.play([described(ground, tags={"env": "su"})], "-vvv", "--limit", "web01", **by_su)
        assert run.code == 0, run.output
        assert run.changed("web01") == 1
        assert ground.secrets_in(run.output) == []
        left = host.run(["find", "/home/app/.ansible/tmp", "/tmp", "-name", "*input.json*"], check=False).output
        assert left == ""
        run = ground.play([{"hawser.machine.agent_info": None}], "--limit", "web01", ansible_user="app")
        assert run.of("agent_info")[0]["agent"]["status"] == "Connected"
        run = ground.play([described(ground)], "--limit", "web01", ansible_user="app")
        assert run.of("machine")[0]["error"]["code"] == "AZCM0018"
    finally:
        host.run(["rm", "/etc/sudoers.d/app"])
        host.run(["passwd", "--lock", "root"])
    assert ground.play(SITE, "--limit", "web01").code == 0


@pytest.mark.parametrize(
    "module",
    ["agent", "agent_info", "config", "machine_info", "access_token", "wait_ready", "machine", "connection"],
)
def test_examples_run_as_they_are_written(ground: Site, module: str) -> None:
    """On a connected host, with the place and the hub in the environment, as the examples assume."""
    source = importlib.import_module(f"plugins.modules.{module}")
    environment = {
        "HAWSER_ARM": ground.hub.url,
        "HAWSER_AUTHORITY": ground.hub.url,
        "HAWSER_TENANT_ID": ground.hub.tenant_id,
        "HAWSER_CA_FILE": ground.hub.ca_file,
        "HAWSER_SUBSCRIPTION_ID": ground.hub.subscription_id,
        "HAWSER_RESOURCE_GROUP": "servers",
        "HAWSER_LOCATION": "local",
    }
    try:
        run = ground.play(yaml.safe_load(source.EXAMPLES), "--limit", "web02", extra=environment)
        assert run.code == 0, run.output
    finally:
        if "web02" in ground.machines() and module == "connection":
            # Its last example forgets the machine on the host alone.
            url = f"{ground.hub.url}{ground.machines()['web02']['id']}?api-version=2026-07-15"
            bearer = {"Authorization": f"Bearer {ground.hub.token(ground.principal)}"}
            assert ground.hub.session().delete(url, headers=bearer, timeout=30).status_code in {202, 204}
        if module == "machine":
            sealed = ground.play(SITE, "--limit", "web02")
            assert "AZCM0027: this image is sealed. On the builder run 'azcmagent unseal --here'" in sealed.output
            ground.lab.hosts["web02"].run(["azcmagent", "unseal", "--here"])
        assert ground.play(SITE, "--limit", "web02").code == 0


def test_upgrade_in_place_from_an_address(ground: Site, tmp_path: Path) -> None:
    path, sha256, version = build_package(tmp_path, "1.0.0.2")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/{Path(path).name}"
            _upgrade(ground, version, agent_package_path=None, agent_package_url=url, agent_package_sha256=sha256)
        finally:
            server.shutdown()
            thread.join()


def _upgrade(ground: Site, version: str, **package: Any) -> None:
    newer = {**package, "agent_version": version}
    plan = ground.play(SITE, "--check", "--limit", "web01", **newer)
    assert plan.changed("web01") == 1
    assert plan.of("machine")[0]["upgrade_required"] is True
    run = ground.play(SITE, "--limit", "web01", **newer)
    assert run.code == 0, run.output
    (info,) = ground.play([{"hawser.machine.agent": {"version": version}}], "--limit", "web01").of("agent")
    assert info["agent_version"] == version
    assert not info["upgrade_required"]
    again = ground.play(SITE, "--limit", "web01", "-vvv", **newer)
    assert again.changed("web01") == 0
    assert again.commands(address(ground, "web01")) == 1


def test_remove(ground: Site) -> None:
    plan = ground.play(REMOVE, "--check")
    assert plan.code == 0, plan.output
    assert set(ground.machines()) == set(HOSTS)
    run = ground.play(REMOVE)
    assert run.code == 0, run.output
    assert "These stay: /var/opt/azcmagent" in run.output
    assert ground.machines() == {}
    for name in HOSTS:
        assert ground.lab.hosts[name].run(["test", "-e", "/usr/bin/azcmagent"], check=False).code == 1
    again = ground.play(REMOVE, "-vvv")
    for name in HOSTS:
        assert again.changed(name) == 0
        assert again.commands(address(ground, name)) == 1
    data = ground.play(REMOVE, remove_data="true")  # text, as `-e remove_data=true` gives it
    assert data.code == 0, data.output
    assert "Nothing of the agent stays" in data.output
    assert [ground.play(REMOVE, remove_data=True).changed(name) for name in HOSTS] == [0, 0]

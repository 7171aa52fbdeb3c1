# SPDX-License-Identifier: Apache-2.0
"""The demo's preflight and what it hands out."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab import Host
from lab.demo import handout, preflight
from lab.demo.layout import Layout

GOOD = preflight.Facts(
    missing_tools=(),
    can_install=True,
    memory_mib=8000,
    disk_mib=20000,
    prepared=False,
    port_free=True,
    bridge_exists=False,
    overlay=True,
    writable_cgroups=True,
)
ACCESS = handout.Access("https://198.18.0.1:8443", "t", "s", "c")
LAYOUT = Layout(top=Path("/srv/a b/.demo"))
HOST = Host(
    name="web01",
    address=ipaddress.IPv4Address("198.18.0.11"),
    machine="demo-1",
    bridge="hawser-demo",
    root=Path("/srv/root"),
    private_key=Path("/srv/a b/key"),
    known_hosts=Path("/srv/a b/known_hosts"),
    supervisor=lambda: None,
)
PACKAGE = handout.Package(Path("/srv/a.deb"), "0" * 64, "1.0.0.1")


def test_nothing_stands_in_the_way_of_a_good_machine() -> None:
    assert preflight.judge_request(0, 40, 8443) == []
    assert preflight.judge(GOOD, 3, 8443) == []
    assert preflight.judge(dataclasses.replace(GOOD, memory_mib=12000), 40, 8443) == []


@pytest.mark.parametrize(
    ("change", "hosts", "port", "sentence", "remedy"),
    [
        ({"missing_tools": ("systemd-nspawn",), "can_install": False}, 3, 8443, "systemd-nspawn", "apt-get install"),
        ({"memory_mib": 900}, 3, 8443, "900 MiB of memory", "fewer hosts"),
        ({"disk_mib": 900}, 3, 8443, "900 MiB of disk", "Free some"),
        ({"port_free": False}, 3, 8443, "port 8443 is in use", "PORT=9443"),
        ({"bridge_exists": True}, 3, 8443, "hawser-demo exists", "ip link delete"),
        ({"overlay": False}, 3, 8443, "overlayfs", "modprobe"),
        ({"writable_cgroups": False}, 3, 8443, "Control groups", "privileged"),
    ],
)
def test_each_obstacle_is_one_sentence_and_a_remedy(
    change: dict[str, Any], hosts: int, port: int, sentence: str, remedy: str
) -> None:
    problems = preflight.judge(dataclasses.replace(GOOD, **change), hosts, port)
    assert len(problems) == 1
    assert sentence in problems[0].sentence
    assert remedy in problems[0].remedy


@pytest.mark.parametrize(
    ("uid", "hosts", "port", "sentence", "remedy"),
    [
        (1000, 3, 8443, "only root", "sudo make demo"),
        (0, 0, 8443, "0 hosts", "HOSTS=3"),
        (0, 201, 8443, "201 hosts", "HOSTS=3"),
        (0, 3, 80, "Port 80", "PORT=8443"),
        (0, 3, 70000, "Port 70000", "PORT=8443"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(uid: int, hosts: int, port: int, sentence: str, remedy: str) -> None:
    (problem,) = preflight.judge_request(uid, hosts, port)
    assert sentence in problem.sentence
    assert remedy in problem.remedy


def test_missing_programs_are_no_obstacle_where_setup_installs_them() -> None:
    assert preflight.judge(dataclasses.replace(GOOD, missing_tools=("mmdebstrap",)), 3, 8443) == []


def test_a_prepared_checkout_needs_less_disk() -> None:
    little = dataclasses.replace(GOOD, disk_mib=1000)
    assert preflight.judge(little, 3, 8443)
    assert preflight.judge(dataclasses.replace(little, prepared=True), 3, 8443) == []


def test_connection_has_the_documented_keys() -> None:
    made = handout.connection(ACCESS, LAYOUT, [HOST])
    wanted = "arm authority web tenant_id client_id client_secret_file ca_file subscription_id resource_group location"
    assert set(made) >= {*wanted.split(), "inventory", "hosts", "web_user", "web_password_file"}
    assert set(made["hosts"][0]) == {"name", "address", "os", "connection", "user", "port", "private_key_file"}
    for key in ("arm", "authority"):
        assert made[key].startswith("https://")
        assert not made[key].endswith("/")


def test_env_sh_is_read_by_a_shell_to_exactly_the_values() -> None:
    values = {"A": "it's", "B": '$(false) `x` "y"', "C": "two words"}
    script = handout.shell(values, Path("/srv/a b/bin")) + 'printf "%s\\0" "$A" "$B" "$C" "$PATH"'
    done = subprocess.run(
        ["sh", "-eu", "-c", script + "\n"], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin"}
    )
    assert done.stdout.split("\0")[:4] == [*values.values(), "/srv/a b/bin:/usr/bin"]


def test_the_inventory_is_yaml_and_names_every_host() -> None:
    made = json.loads(handout.inventory(ACCESS, LAYOUT, [HOST], PACKAGE))
    group = made["all"]["children"]["hawser"]
    assert group["hosts"] == {"web01": {"ansible_host": "198.18.0.11"}}
    assert group["vars"]["agent_package_sha256"] == PACKAGE.sha256
    assert "'/srv/a b/known_hosts'" in group["vars"]["ansible_ssh_common_args"]


def test_the_fleet_table_shows_what_the_hub_does_not_know() -> None:
    machine = {"name": "web01", "os": None, "agentVersion": "1.0.0.1", "status": "Connected", "address": None}
    now = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
    table = handout.fleet(
        [{**machine, "lastHeartbeat": "2026-11-23T12:00:00Z"}, {**machine, "lastHeartbeat": None}], now
    )
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["NAME", "OS", "AGENT", "STATUS", "LAST", "HEARTBEAT", "ADDRESS"]
    assert lines[1] == ["web01", "-", "1.0.0.1", "Connected", "30", "s", "ago", "-"]
    assert lines[2] == ["web01", "-", "1.0.0.1", "Connected", "never", "-"]

# SPDX-License-Identifier: Apache-2.0
"""run_command and role `extensions` by ansible-playbook, with a real hub and real hosts whose extd carries out what
they describe: what comes back, what is done once, and where a rollout in waves stops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.collection_site import Run, Site, site
from tests.integration.test_collection_extensions import publish
from tests.waiting import until

pytestmark = pytest.mark.hosts
HOSTS = ["web01", "web02"]
GROUP = "servers"
SECRET = "hush-hush-on-a-host"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two hosts that the collection has connected, and a hub with our own packages."""
    with site(tmp_path_factory.mktemp("site"), HOSTS) as made:
        publish(made.hub, tmp_path_factory.mktemp("packages"))
        profile = Path(made.variables["agent_cloud_profile"])
        profile.write_text(json.dumps(made.hub.profile("test")))  # with the root of the packages now
        done = made.play("hawser.machine.site")
        assert done.code == 0, done.output
        yield made


def environment(ground: Site) -> dict[str, str]:
    return {
        "HAWSER_ARM": ground.hub.url,
        "HAWSER_AUTHORITY": ground.hub.url,
        "HAWSER_TENANT_ID": ground.hub.tenant_id,
        "HAWSER_CA_FILE": ground.hub.ca_file,
        "HAWSER_SUBSCRIPTION_ID": ground.hub.subscription_id,
        "HAWSER_RESOURCE_GROUP": GROUP,
    }


def command(ground: Site, *argv: str, name: str = "job", **options: Any) -> Run:
    """One task with run_command, on both hosts."""
    return ground.play([{"hawser.machine.run_command": {"name": name, **options}}], *argv, extra=environment(ground))


def lines(ground: Site, host: str, path: str) -> list[str]:
    return ground.lab.hosts[host].run(["cat", path]).output.splitlines()


def test_a_command_brings_back_what_it_said(ground: Site) -> None:
    run = command(
        ground,
        "-vvv",
        script='hostname; echo "$WORD $1 $(printf %s "$PASSWORD" | wc -c)"; echo "not so good" >&2',
        parameters={"WORD": "good"},
        arguments=["morning"],
        protected_parameters={"PASSWORD": SECRET},
    )
    assert run.code == 0, run.output
    for host in HOSTS:
        (result,) = run.of("run_command", host)
        assert result["changed"]
        assert (result["rc"], result["execution_state"]) == (0, "Succeeded")
        assert result["stdout_lines"] == [host, f"good morning {len(SECRET)}"]
        assert result["stderr"] == "not so good\n"
        assert result["start"] <= result["end"]
    assert SECRET not in run.output + json.dumps(run.results)


def test_a_command_that_ends_badly_fails_the_task_and_says_how(ground: Site) -> None:
    run = command(ground, script="echo before; echo what went wrong >&2; exit 3")
    assert run.code == 2
    for host in HOSTS:
        (result,) = run.of("run_command", host)
        assert result["changed"]
        assert (result["rc"], result["stdout"], result["stderr"]) == (3, "before\n", "what went wrong\n")
        assert "the script ended Failed with the exit code 3" in result["msg"]


def test_once_runs_once_and_anything_else_again(ground: Site) -> None:
    wish: dict[str, Any] = {
        "name": "once",
        "script": "echo ran >>/root/once",
        "protected_parameters": {"PASSWORD": SECRET},
    }
    for changed in (True, False):
        run = command(ground, **wish, once=True)
        assert run.code == 0, run.output
        assert [run.changed(host) for host in HOSTS] == [int(changed)] * 2
        assert [lines(ground, host, "/root/once") for host in HOSTS] == [["ran"]] * 2
    planned = command(ground, "--check", **wish)
    assert planned.code == 0, planned.output
    assert [found["changed"] for found in planned.of("run_command")] == [True, True]
    assert [lines(ground, host, "/root/once") for host in HOSTS] == [["ran"]] * 2
    changes: list[dict[str, Any]] = [{}, {"once": True, "protected_parameters": {"PASSWORD": "another"}}]
    for more in changes:
        run = command(ground, **{**wish, **more})
        assert run.code == 0, run.output
        assert [run.changed(host) for host in HOSTS] == [1, 1]
    assert [lines(ground, host, "/root/once") for host in HOSTS] == [["ran"] * 3] * 2


def test_a_command_that_takes_too_long_says_so_and_is_ended(ground: Site) -> None:
    run = command(ground, script="echo begun; sleep 4321", timeout=3)
    assert run.code == 2
    for host in HOSTS:
        (result,) = run.of("run_command", host)
        assert (result["execution_state"], result["stdout"]) == ("TimedOut", "begun\n")
        assert "the script ended TimedOut" in result["msg"]
        assert ground.lab.hosts[host].run(["pgrep", "-f", "sleep 4321"], check=False).code == 1


def test_a_task_that_waits_no_longer_leaves_the_script_alone_and_its_removal_ends_it(ground: Site) -> None:
    def runs(host: str) -> bool:
        return ground.lab.hosts[host].run(["pgrep", "-f", "sleep 4322"], check=False).code == 0

    begun = command(ground, script="sleep 4322", wait=False)
    assert begun.code == 0, begun.output
    assert [result["rc"] for result in begun.of("run_command")] == [None, None]
    until(lambda: all(runs(host) for host in HOSTS), "never begun")
    begun = command(ground, script="sleep 4322", wait_timeout=2)
    assert begun.code == 2
    assert all("2 s" in result["msg"] for result in begun.of("run_command")), begun.output
    until(lambda: all(runs(host) for host in HOSTS), "never begun")
    for changed in (1, 0):
        gone = command(ground, state="absent")
        assert gone.code == 0, gone.output
        assert [gone.changed(host) for host in HOSTS] == [changed] * 2
    assert [runs(host) for host in HOSTS] == [False, False]


def roll_out(ground: Site, command_to_execute: str) -> Run:
    """The role as its README shows it: a first wave of one host, then all others."""
    wish = {
        "name": "setup",
        "publisher": "Hawser",
        "type": "CustomScript",
        "type_handler_version": "1.0",
        "settings": {"commandToExecute": command_to_execute},
    }
    play = {
        "hosts": "hawser",
        "gather_facts": False,
        "serial": [1, "100%"],
        "max_fail_percentage": 0,
        "roles": [{"role": "hawser.machine.extensions", "vars": {"extensions_list": [wish]}}],
    }
    path = ground.work / "waves.yml"
    path.write_text(yaml.safe_dump([play]))
    return ground.play(str(path), extra=environment(ground))


def written(ground: Site, host: str) -> list[tuple[str, str]]:
    """What was ever written of a host's extensions at the hub."""
    rows = ground.hub.rows("SELECT action, target FROM audit WHERE lower(target) LIKE :like", like=f"%/{host}/ext%")
    return [(str(action), str(target)) for action, target in rows]


def test_a_rollout_in_waves_stops_after_a_wave_that_failed(ground: Site) -> None:
    failed = roll_out(ground, "echo no >&2; date +%s.%N >>/root/wave; exit 3")
    assert failed.code == 2, failed.output
    (known,) = ground.hub.json("extensions", "--machine", "web01")
    assert (known["name"], known["state"]) == ("setup", "Failed")
    assert failed.of("extension", "web01"), failed.output
    assert "The script ended with the exit code 3" in json.dumps(failed.of("extension", "web01")[-1])
    # Of the second wave nothing was begun: not by the play, not at the hub, not on the host.
    assert failed.of("extension", "web02") == []
    assert ground.hub.json("extensions", "--machine", "web02") == []
    assert written(ground, "web01")
    assert written(ground, "web02") == []
    second = ground.lab.hosts["web02"]
    assert "CustomScript" not in second.run(["ls", "-A", "/var/lib/waagent"], check=False).output
    assert second.run(["test", "-e", "/root/wave"], check=False).code == 1

    mended = roll_out(ground, "date +%s.%N >>/root/wave")
    assert mended.code == 0, mended.output
    assert [mended.changed(host) for host in HOSTS] == [1, 1]
    states = [ground.hub.json("extensions", "--machine", host)[0]["state"] for host in HOSTS]
    assert states == ["Succeeded", "Succeeded"]
    (_, first), (other,) = (lines(ground, host, "/root/wave") for host in HOSTS)
    assert float(first) < float(other), "the second wave came after the first had carried it out"
    again = roll_out(ground, "date +%s.%N >>/root/wave")
    assert [again.changed(host) for host in HOSTS] == [0, 0]
    assert [len(lines(ground, host, "/root/wave")) for host in HOSTS] == [2, 1]

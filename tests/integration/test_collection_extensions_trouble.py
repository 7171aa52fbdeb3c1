# SPDX-License-Identifier: Apache-2.0
"""extension, extension_info and run_command with an ARM that goes on in any way, fails, or goes away meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.collection_controller import ROOT, Controller
from tests.integration.collection_fake_arm import FakeArm
from tests.integration.collection_fake_hub import Answer, fake_hub
from tests.integration.test_collection_controller import CALLBACKS, run

SECRET = "hush-hush-7"
PLACE = {"machine": "web01"}
WISH = {
    **PLACE,
    "name": "setup",
    "publisher": "Hawser",
    "type": "CustomScript",
    "type_handler_version": "1.0",
    "settings": {"commandToExecute": "true"},
}
EXTENSION = "/subscriptions/s/resourceGroups/g/providers/Microsoft.HybridCompute/machines/web01/extensions/setup"
Site = tuple[FakeArm, Controller]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = FakeArm()
    with fake_hub(tmp_path, made) as (_, variables):
        variables |= CALLBACKS | {
            "HAWSER_TEST_RESULTS": str(tmp_path / "results.jsonl"),
            "HAWSER_SUBSCRIPTION_ID": "s",
            "HAWSER_RESOURCE_GROUP": "g",
        }
        yield made, Controller(tmp_path, variables)


@pytest.mark.parametrize("way", ["operation", "location", "resource", "now"])
def test_check_apply_apply_check(site: Site, way: str) -> None:
    arm, controller = site
    arm.way = way
    planned = run(controller, "extension", "--check", "--diff", **WISH)
    assert planned["changed"]
    assert planned["reasons"] == [{"path": "extension", "expected": "present", "actual": "absent"}]
    assert "CustomScript" in planned["diff"]["after"]
    assert arm.sent == []

    made = run(controller, "extension", **WISH)
    assert made["changed"]
    assert made["extension"]["properties"]["provisioningState"] == "Succeeded"
    assert made["instance_view"]["status"]["message"] == "It went well."
    assert [target for target, _body in arm.sent] == [EXTENSION]
    assert arm.sent[0][1] == {
        "location": "local",
        "tags": {},
        "properties": {
            "publisher": "Hawser",
            "type": "CustomScript",
            "typeHandlerVersion": "1.0",
            "settings": {"commandToExecute": "true"},
        },
    }
    if way != "now":
        assert made["steps"][-1]["name"] == "Succeeded"
    for argv in ((), ("--check",)):
        again = run(controller, "extension", *argv, **WISH)
        assert not again["changed"], again["reasons"]
        assert again["extension"]["name"] == "setup"
    assert len(arm.sent) == 1

    changed = run(controller, "extension", "--diff", **{**WISH, "settings": {"commandToExecute": "false"}})
    assert changed["reasons"] == [{"path": "settings.commandToExecute", "expected": "false", "actual": "true"}]
    assert changed["diff"]["before"] != changed["diff"]["after"]

    for argv, left in (("--check",), 1), ((), 0), ((), 0):
        before = len(arm.resources)
        gone = run(controller, "extension", *argv, **PLACE, name="setup", state="absent")
        assert gone["changed"] is bool(before)
        assert len(arm.resources) == left
        assert gone["extension"] is None or argv


def test_protected_settings_are_sent_when_they_changed_and_seen_nowhere(site: Site) -> None:
    arm, controller = site
    wish = {**WISH, "settings": {}, "protected_settings": {"commandToExecute": f"x {SECRET}"}}
    shown = []

    def apply(**changes: Any) -> dict[str, Any]:
        result = run(controller, "extension", "--diff", "-vvv", **{**wish, **changes})
        shown.append(json.dumps(result))
        return result

    assert apply()["changed"]
    assert not apply()["changed"]
    other = apply(protected_settings={"commandToExecute": f"y {SECRET}"})
    assert [reason["path"] for reason in other["reasons"]] == ["protected_settings"]
    assert [body["properties"].get("protectedSettings") for _target, body in arm.sent] == [
        {"commandToExecute": f"x {SECRET}"},
        {"commandToExecute": f"y {SECRET}"},
    ]
    # Without the digest they go only with something else.
    assert not apply(protected_settings_digest=False)["changed"]
    assert apply(protected_settings_digest=False, force_update_tag="2")["changed"]
    assert "protectedSettings" in arm.sent[-1][1]["properties"]
    assert "hawser-protected-digest" not in arm.sent[-1][1]["tags"]
    assert not any(SECRET in text for text in shown)
    done = controller.play([{"hawser.machine.extension": wish}], "-vvvvv", "--diff")
    assert done.returncode == 0
    assert SECRET not in done.stdout + done.stderr


def test_an_operation_that_fails_says_why_and_is_tried_again(site: Site) -> None:
    arm, controller = site
    arm.fate = {"code": "1009", "message": f"Enable ended with 53: no {SECRET} to run."}
    failed = run(controller, "extension", **WISH, protected_settings={"script": SECRET})
    assert failed["failed"]
    assert failed["changed"]
    assert "1009" in failed["msg"]
    assert "Enable ended with 53" in failed["msg"]
    assert "extension_logs" in failed["msg"]
    assert failed["instance_view"]["status"]["message"] == "It said no."
    assert SECRET not in json.dumps(failed)
    arm.fate = "Succeeded"
    again = run(controller, "extension", **WISH, protected_settings={"script": SECRET})
    assert [reason["path"] for reason in again["reasons"]] == ["provisioning_state"]
    assert not again["failed"]
    assert again["extension"]["properties"]["provisioningState"] == "Succeeded"


def test_without_waiting_the_next_task_waits(site: Site) -> None:
    arm, controller = site
    arm.way = "resource"
    arm.looks = 6
    begun = run(controller, "extension", **WISH, wait=False)
    assert begun["changed"]
    assert begun["extension"]["properties"]["provisioningState"] == "Creating"
    waited = run(controller, "extension", **WISH)
    assert not waited["changed"]
    assert waited["extension"]["properties"]["provisioningState"] == "Succeeded"
    assert len(waited["steps"]) == 2
    assert len(arm.sent) == 1


def test_a_hub_that_goes_away_meanwhile(site: Site) -> None:
    arm, controller = site
    arm.trouble = [Answer(503, {}, {"Retry-After": "1"})]
    made = run(controller, "extension", **WISH)
    assert made["extension"]["properties"]["provisioningState"] == "Succeeded"


def test_time_is_up(site: Site) -> None:
    arm, controller = site
    arm.looks = 10**6
    failed = run(controller, "extension", **WISH, timeout=2)
    assert failed["failed"]
    assert failed["changed"]
    assert "has not ended after 2 s: it is InProgress" in failed["msg"]
    assert "goes on without us" in failed["msg"]


def test_an_operation_elsewhere_gets_no_token(site: Site) -> None:
    arm, controller = site
    arm.way = "elsewhere"

    def begin(method: str, target: str, status: int) -> Answer:
        return Answer(202, None, {"Azure-AsyncOperation": "https://elsewhere.example/x"})

    arm._begin = begin  # type: ignore[method-assign]
    failed = run(controller, "extension", **WISH)
    assert "elsewhere.example" in failed["msg"]
    assert failed["changed"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "nobody"}, "there is no machine nobody"),
        ({"name": "../x"}, "cannot be used"),
        ({"publisher": None}, "publisher missing"),
        ({"type_handler_version": "new"}, "is none"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(site: Site, changes: dict[str, Any], words: str) -> None:
    arm, controller = site
    failed = run(controller, "extension", **{key: value for key, value in {**WISH, **changes}.items() if value})
    assert failed["failed"]
    assert not failed["changed"]
    assert words in failed["msg"]
    assert arm.sent == []


def test_another_handler_under_the_same_name(site: Site) -> None:
    _arm, controller = site
    run(controller, "extension", **WISH)
    assert "Remove the extension first" in run(controller, "extension", **{**WISH, "type": "HealthProbe"})["msg"]


def test_info(site: Site) -> None:
    _arm, controller = site
    run(controller, "extension", **WISH)
    run(controller, "extension", **{**WISH, "name": "other"})
    names = [found["name"] for found in run(controller, "extension_info", **PLACE)["extensions"]]
    assert names == ["setup", "other"]
    (one,) = run(controller, "extension_info", **PLACE, name="SETUP")["extensions"]
    assert one["properties"]["instanceView"]["status"]["message"] == "It went well."
    for nothing in ({"name": "none"}, {"machine": "nobody"}):
        assert run(controller, "extension_info", **{**PLACE, **nothing})["extensions"] == []


def test_run_command(site: Site) -> None:
    arm, controller = site
    arm.said = {"executionState": "Succeeded", "exitCode": 0, "startTime": "t"}
    arm.said |= {"output": f"a\nb {SECRET}\n", "error": "c\n"}
    wish = {
        **PLACE,
        "name": "hello",
        "script": "echo $A $P $1",
        "parameters": {"A": 1},
        "protected_parameters": {"P": SECRET},
        "arguments": ["x"],
        "once": True,
        "timeout": 60,
    }
    planned = run(controller, "run_command", "--check", **wish)
    assert (planned["changed"], planned["failed"], planned["rc"]) == (True, False, None)
    assert arm.sent == []
    done = run(controller, "run_command", **wish)
    assert done["changed"]
    assert (done["rc"], done["stdout"], done["stderr_lines"]) == (0, "a\nb ********\n", ["c"])
    assert done["start"] == "t"
    body = arm.sent[0][1]
    assert body["location"] == "local"
    assert body["properties"]["protectedParameters"] == [{"name": "P", "value": SECRET}]
    assert SECRET not in json.dumps(done)
    again = run(controller, "run_command", **wish)
    assert not again["changed"]
    assert again["stdout_lines"] == ["a", "b ********"]
    assert run(controller, "run_command", **{**wish, "protected_parameters": {"P": "another"}})["changed"]
    assert run(controller, "run_command", **{**wish, "once": False})["changed"]
    assert run(controller, "run_command", **PLACE, name="hello", state="absent")["changed"]
    assert not run(controller, "run_command", **PLACE, name="hello", state="absent")["changed"]


def test_a_script_of_a_file_that_ends_badly(site: Site) -> None:
    arm, controller = site
    (controller.work / "fix.sh").write_text("exit 3\n")
    arm.said = {"executionState": "Failed", "exitCode": 3, "error": "no\n", "executionMessage": "It ended."}
    failed = run(controller, "run_command", **PLACE, name="fix", script_file="fix.sh")
    assert failed["failed"]
    assert failed["changed"]
    assert failed["rc"] == 3
    assert "exit code 3: It ended. Look at stdout and stderr." in failed["msg"]
    assert arm.sent[0][1]["properties"]["source"] == {"script": "exit 3\n"}
    for changes, words in (
        ({"script_file": "none.sh"}, "cannot be read"),
        ({"script": "a", "script_file": "fix.sh"}, "exactly one"),
        ({}, "exactly one"),
    ):
        assert words in run(controller, "run_command", **PLACE, name="fix", **changes)["msg"]
    assert "36 characters" in run(controller, "run_command", **PLACE, name="x" * 37, script="a")["msg"]


def test_a_command_that_cannot_be_run(site: Site) -> None:
    arm, controller = site
    arm.fate = {"code": "MachineNotConnected", "message": "The machine did not take it in 6 hours."}
    failed = run(controller, "run_command", **PLACE, name="fix", script="true")
    assert "MachineNotConnected" in failed["msg"]
    assert failed["rc"] is None


def test_role(site: Site) -> None:
    """One list for a fleet: all of it is described, in order, and nothing of protected settings is shown."""
    arm, controller = site
    arm.machines = {"web01", "web02"}
    arm.looks = 1
    wishes = [
        {"name": "health", "publisher": "Hawser", "type": "HealthProbe", "settings": {"protocol": "tcp", "port": 22}},
        {"name": "setup", "publisher": "Hawser", "type": "CustomScript", "protected_settings": {"script": SECRET}},
        {"name": "old", "state": "absent"},
    ]
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "roles": [{"role": "hawser.machine.extensions", "vars": {"extensions_list": wishes}}],
        }
    ]
    path = controller.work / "extensions.yml"
    path.write_text(yaml.safe_dump(play))
    for changed in ("changed=1", "changed=0"):
        done = controller.run("ansible-playbook", "-i", "web01,web02,", "-vvv", "--diff", str(path))
        assert done.returncode == 0, done.stdout
        assert done.stdout.count(changed) == 2
        assert SECRET not in done.stdout + done.stderr
    assert sorted(target.split("/")[8] + "/" + target.split("/")[10] for target, _body in arm.sent) == [
        "web01/health",
        "web01/setup",
        "web02/health",
        "web02/setup",
    ]
    assert (ROOT / "roles/extensions/README.md").is_file()


def test_role_refuses_a_list_that_is_none(site: Site) -> None:
    arm, controller = site
    path = controller.work / "extensions.yml"
    for wrong in ([{"publisher": "Hawser"}], [{"name": "a", "version_": "1"}], "a"):
        role = {"role": "hawser.machine.extensions", "vars": {"extensions_list": wrong}}
        path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": [role]}]))
        done = controller.run("ansible-playbook", "-i", "web01,", str(path))
        assert done.returncode != 0
    assert arm.sent == []

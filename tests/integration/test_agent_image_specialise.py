# SPDX-License-Identifier: Apache-2.0
"""A copy gets a name of its own: a twin by the hub's offer, a machine from a sealed image by the token it carries
(docs/protocol.md sections 14.2 and 14.4)."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.platform import local
from tests.integration.agent_process import ENVIRONMENT, Agent
from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.integration.judging_relay import Relay, refused, relayed
from tests.integration.test_himds import ARM, arm
from tests.waiting import until

BUILDER = {"machine_id": "m", "dmi_uuid": "4c4c4544-0042-3510-8052-b4c04f4d3233", "macs": "02:00:00:00:00:01"}
COPY = {**BUILDER, "dmi_uuid": "4c4c4544-0042-3510-8052-b4c04f4d9999"}
ENROLMENT_TOKEN = "hwe_" + "t" * 40


@pytest.fixture(scope="module")
def token(hub: HubProcess) -> str:
    return hub.token(hub.principal("specialise-owner", "Owner"))


@pytest.fixture
def relay(hub: HubProcess, tmp_path: Path) -> Iterator[Relay]:
    with relayed(hub, tmp_path) as found:
        yield found


@pytest.fixture
def name() -> str:
    return f"copy-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def original(tmp_path: Path, hub: HubProcess, relay: Relay) -> Iterator[Agent]:
    agent = Agent(tmp_path / "original")
    agent.hardware(**BUILDER)
    agent.start()
    both = hub.profile()["ca_pem"] + relay.ca_pem
    agent.add_cloud(hub, channel=[relay.url], ca_pem=both)
    yield agent
    stop(agent)


def stop(agent: Agent) -> None:
    if agent.himds is not None:
        assert agent.stop() == 0


def copied(agent: Agent, to: Path) -> Agent:
    """The disk of a machine that stands still, on other hardware."""
    shutil.copytree(agent.root, to, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    twin = Agent(to)
    twin.hardware(**COPY)
    return twin


def enrolment(hub: HubProcess, token: str, name: str) -> dict[str, Any]:
    """A machine that the hub would let somebody become, with a ticket of the real hub."""
    where = (
        f"/subscriptions/{hub.subscription_id}/resourceGroups/fleet/providers/Microsoft.HybridCompute/machines/{name}"
    )
    answer = hub.session().post(
        f"{hub.url}/hawser/v1/tickets",
        json={"operations": [{"operation": "connect", "resourceId": where}]},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    return {
        "ticket": made["accessToken"],
        "expiresOn": made["expiresOn"],
        "resourceId": where,
        "location": "local",
        "tenantId": hub.tenant_id,
    }


def shown(agent: Agent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(agent.run("show", "--json").stdout)
    return found


def clone_of(hub: HubProcess, token: str, name: str) -> tuple[int, dict[str, Any]]:
    offered = enrolment(hub, token, name)
    return refused(409, "identity_conflict", verdict="clone", differs=["dmi_uuid"], enrolment=offered)


@pytest.fixture
def twin(original: Agent, hub: HubProcess, relay: Relay, token: str, name: str, tmp_path: Path) -> Iterator[Agent]:
    """A copy of a connected machine, which runs beside it, parked, with an offer of the name NAME-2."""
    done = original.connect(hub, token, name)
    assert done.returncode == 0, done.stdout
    keys = original.root / "var/lib/GuestConfig/extensions/keys"
    keys.mkdir(parents=True)
    (keys / "settings.key").write_text("copied")
    stop(original)
    made = copied(original, tmp_path / "twin")
    original.start()
    relay.judge = lambda _: clone_of(hub, token, f"{name}-2")
    made.start()
    until((made.state / "state/adopt.json").exists)
    yield made
    stop(made)


def test_a_twin_gets_a_name_of_its_own_and_the_original_keeps_its(
    twin: Agent, original: Agent, hub: HubProcess, token: str, name: str
) -> None:
    before = json.loads((twin.state / "binding.json").read_text())
    assert shown(twin)["identityState"] == "parked"
    assert f"{name}-2" in shown(twin)["agentErrorDetails"]
    done = twin.run("specialise", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout.strip())["resourceId"].endswith(f"{name}-2")
    now = shown(twin)
    assert (now["identityState"], now["status"], now["resourceName"]) == ("connected", "Connected", f"{name}-2")
    bound = json.loads((twin.state / "binding.json").read_text())
    assert bound["vmId"] == now["vmId"] != before["vmId"]
    assert "previous" not in bound
    assert sorted(path.name for path in (twin.state / "certs").iterdir()) == ["identity-1.1.crt", "identity-1.1.key"]
    assert not (twin.state / "state/adopt.json").exists()
    assert not (twin.root / "var/lib/GuestConfig/extensions/keys/settings.key").exists()
    assert twin.token(ARM).status_code == 200
    assert original.token(ARM).status_code == 200
    assert shown(original)["resourceName"] == name
    assert {arm(hub, token, "GET", n).json()["properties"]["status"] for n in (name, f"{name}-2")} == {"Connected"}
    assert "event 4104" in twin.log
    # It stays what it is.
    twin.stop()
    twin.start()
    assert shown(twin)["identityState"] == "connected"
    assert json.loads(twin.run("specialise", "--json").stdout)["changed"] is False


def test_a_name_that_cannot_be_had_leaves_the_twin_parked(
    twin: Agent, relay: Relay, hub: HubProcess, token: str, name: str
) -> None:
    # The ticket is for the original's own name.
    relay.judge = lambda _: clone_of(hub, token, name)
    before = (twin.state / "binding.json").read_bytes()
    done = twin.run("specialise")
    assert done.returncode == 44, done.stdout
    assert (twin.state / "binding.json").read_bytes() == before
    assert sorted(path.name for path in (twin.state / "certs").iterdir()) == ["identity-1.crt", "identity-1.key"]
    assert shown(twin)["identityState"] == "parked"
    assert twin.token(ARM).status_code == 503
    relay.judge = lambda _: clone_of(hub, token, f"{name}-3")
    assert twin.run("specialise").returncode == 0
    assert shown(twin)["resourceName"] == f"{name}-3"


def test_a_twin_killed_on_the_way_goes_on(twin: Agent, hub: HubProcess, relay: Relay, token: str, name: str) -> None:
    """himds dies when the new machine is enrolled and its first heartbeat is due."""
    relay.refuse["checkin"] = refused(503, "ServiceUnavailable")
    (twin.state / "binding.json").read_bytes()
    record = json.loads((twin.state / "state/identity.json").read_text())
    certs = twin.state / "certs"
    key = (certs / "identity-1.key").read_bytes()
    record["pending"] = {
        "step": "enrol",
        "requestId": str(uuid.uuid4()),
        "args": {"resourceName": f"{name}-2"},
        "slot": 1,
        "from": {name: record[name] for name in ("state", "identity", "error")},
    }
    stop(twin)
    (certs / "identity-1.1.key").write_bytes(key)
    record.update(state="connecting", identity=None, error=None)
    (twin.state / "state/identity.json").write_text(json.dumps(record))
    bound = json.loads((twin.state / "binding.json").read_text())
    half = {**bound, "vmId": str(uuid.uuid4()), "previous": bound}
    (twin.state / "binding.json").write_text(json.dumps(half))
    del relay.refuse["checkin"]
    twin.start()
    assert shown(twin)["identityState"] == "parked"
    assert twin.run("specialise").returncode == 0
    assert shown(twin)["resourceName"] == f"{name}-2"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refused(409, "identity_conflict", verdict="clone", differs=[], enrolment=None), 44),
        (refused(403, "quarantined", verdict="clone", differs=[]), 44),
        (refused(401, "InvalidAuthenticationToken"), 41),
        (refused(503, "ServiceUnavailable"), 26),
        (refused(409, "identity_conflict", enrolment={"ticket": "x"}), 62),
        (refused(409, "identity_conflict", enrolment={"ticket": "x", "resourceId": "/x", "location": "l"}), 62),
    ],
)
def test_what_is_no_offer_changes_nothing(
    twin: Agent, relay: Relay, answer: tuple[int, dict[str, Any]], code: int
) -> None:
    before = (twin.state / "binding.json").read_bytes()
    relay.judge = lambda _: answer
    assert twin.run("specialise").returncode == code
    assert (twin.state / "binding.json").read_bytes() == before
    assert shown(twin)["identityState"] in ("parked", "quarantined")


def test_an_offer_of_another_tenant_changes_nothing(twin: Agent, relay: Relay, hub: HubProcess) -> None:
    """Whole in everything else."""
    resource_id = (
        f"/subscriptions/{hub.subscription_id}/resourceGroups/fleet/providers/Microsoft.HybridCompute/machines/other"
    )
    offer = {"ticket": "x", "resourceId": resource_id, "location": "local", "tenantId": str(uuid.uuid4()), "tags": {}}
    before = (twin.state / "binding.json").read_bytes()
    relay.judge = lambda _: refused(409, "identity_conflict", verdict="clone", differs=[], enrolment=offer)
    done = twin.run("specialise")
    assert done.returncode == 62
    assert "another tenant" in done.stdout
    assert (twin.state / "binding.json").read_bytes() == before
    assert shown(twin)["identityState"] == "parked"


def test_root_asks_only_about_the_machine_it_is_bound_to(twin: Agent, relay: Relay) -> None:
    """A himds that was taken over may hold any key: root's services must not follow it."""
    bound = json.loads((twin.state / "binding.json").read_text())
    (twin.state / "binding.json").write_text(json.dumps({**bound, "vmId": str(uuid.uuid4())}))
    asked = len(relay.questions)
    done = twin.run("specialise")
    assert done.returncode == 27, done.stdout
    assert len(relay.questions) == asked


# Sealed images


@pytest.fixture
def copy(original: Agent, hub: HubProcess, relay: Relay, tmp_path: Path) -> Iterator[Agent]:
    """A copy of an image that enrols on first boot, unsealed by its evidence."""
    stop(original)
    done = original.run(
        *("seal", "--image-id", "web-1", "--enroll-on-first-boot", "web", "--token-file", "-"), stdin=ENROLMENT_TOKEN
    )
    assert done.returncode == 0, done.stdout
    made = copied(original, tmp_path / "copy")
    assert json.loads(made.run("unseal", "--if-copied", "--json").stdout)["by"] == "evidence"
    made.start()
    yield made
    stop(made)


def test_a_sealed_machine_gives_no_tokens_and_does_not_connect(
    original: Agent, hub: HubProcess, relay: Relay, token: str, name: str
) -> None:
    # himds runs and nothing here can stop it.
    assert original.run("seal", "--image-id", "web-1").returncode == 27
    assert shown(original)["identityState"] == "disconnected"
    stop(original)
    assert original.run("seal", "--image-id", "web-1").returncode == 0
    original.start()
    assert shown(original)["identityState"] == "sealed"
    for answer in (original.token(ARM), original.get("/metadata/instance?api-version=2020-06-01")):
        assert answer.status_code == 503
        assert "sealed" in answer.json()["error_description"]
    refusal = original.connect(hub, token, name)
    assert refusal.returncode == 27
    assert "unseal --here" in refusal.stdout
    assert json.loads(original.run("specialise", "--json").stdout)["changed"] is False
    # himds runs and nothing here can stop it.
    assert original.run("unseal", "--here").returncode == 27
    stop(original)
    assert original.run("unseal", "--if-copied", "--json").stdout.count('"changed": false') == 1
    assert original.run("unseal", "--here").returncode == 0
    original.start()
    assert original.connect(hub, token, name).returncode == 0


def test_himds_uses_no_identity_that_is_being_sealed(
    original: Agent, hub: HubProcess, relay: Relay, token: str, name: str
) -> None:
    """A seal was cut off, and something started himds before the next boot could end it."""
    assert original.connect(hub, token, name).returncode == 0
    stop(original)
    (original.state / "seal.json").write_text("{}")
    original.start()
    now = shown(original)
    assert (now["identityState"], now["identityReason"]) == ("parked", "sealing")
    assert original.token(ARM).status_code == 503
    assert relay.questions == []
    stop(original)
    assert original.run("seal", "--image-id", "web-1", "--force").returncode == 0
    original.start()
    assert shown(original)["identityState"] == "sealed"


def test_a_copy_of_a_sealed_image_joins_by_itself(
    copy: Agent, original: Agent, hub: HubProcess, relay: Relay, token: str, name: str
) -> None:
    relay.admit = lambda _: refused(503, "ServiceUnavailable")
    assert copy.run("specialise").returncode == 26
    relay.admit = lambda _: (200, enrolment(hub, token, name))
    done = copy.run("specialise")
    assert done.returncode == 0, done.stdout
    now = shown(copy)
    assert (now["identityState"], now["resourceName"], now["imageId"]) == ("connected", name, "web-1")
    first, second = relay.joins
    assert {key: first[key] for key in ("vmId", "requestId", "token", "imageId")} == {
        key: second[key] for key in ("vmId", "requestId", "token", "imageId")
    }
    assert (first["token"], first["imageId"], first["vmId"]) == (ENROLMENT_TOKEN, "web-1", now["vmId"])
    assert json.loads((copy.state / "binding.json").read_text())["vmId"] == now["vmId"]
    assert not (copy.state / "image.token").exists()
    assert not (copy.state / "join.json").exists()
    assert copy.token(ARM).status_code == 200
    assert ENROLMENT_TOKEN not in copy.log + (copy.state / "log/azcmagent.log").read_text()
    assert arm(hub, token, "GET", name).json()["properties"]["status"] == "Connected"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refused(401, "InvalidEnrolmentToken"), 41),
        (refused(403, "EnrolmentTokenSpent"), 12),
        (refused(429, "TooManyRequests"), 26),
        ((200, {"ticket": "x", "resourceId": "/x", "location": "local"}), 62),
        ((200, {}), 62),
    ],
)
def test_a_copy_that_may_not_join_stays_disconnected(
    copy: Agent, relay: Relay, answer: tuple[int, dict[str, Any]], code: int
) -> None:
    relay.admit = lambda _: answer
    done = copy.run("specialise")
    assert done.returncode == code, done.stdout
    assert ENROLMENT_TOKEN not in done.stdout
    assert shown(copy)["identityState"] == "disconnected"
    assert (copy.state / "image.token").exists()
    assert not (copy.state / "binding.json").exists()


def test_a_copy_joins_again_when_a_busy_hub_says(
    copy: Agent, relay: Relay, hub: HubProcess, token: str, name: str
) -> None:
    """Not earlier, also when somebody runs the command by hand; and it says how long it waits."""
    came: list[float] = []

    def busy(_: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        came.append(time.monotonic())
        return refused(429, "TooManyRequests") if len(came) < 3 else (200, enrolment(hub, token, name))

    relay.admit, relay.retry_after = busy, 2
    done = copy.run("specialise")
    assert done.returncode == 0, done.stdout
    assert [came[1] - came[0] >= 2, came[2] - came[1] >= 2] == [True, True]
    assert done.stdout.count("Waiting for 2 s, as the hub has asked") == 2
    assert len({(asked["vmId"], asked["requestId"]) for asked in relay.joins}) == 1
    assert shown(copy)["resourceName"] == name


def test_a_twin_asks_again_when_a_busy_hub_says(
    twin: Agent, relay: Relay, hub: HubProcess, token: str, name: str
) -> None:
    came: list[float] = []

    def busy(_: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        came.append(time.monotonic())
        return refused(429, "TooManyRequests") if len(came) < 2 else clone_of(hub, token, f"{name}-2")

    relay.judge, relay.retry_after = busy, 2
    done = twin.run("specialise")
    assert done.returncode == 0, done.stdout
    assert came[1] - came[0] >= 2
    assert shown(twin)["resourceName"] == f"{name}-2"


def test_a_copy_that_waits_for_the_hub_holds_nobody_up_and_can_be_killed(copy: Agent, relay: Relay) -> None:
    relay.admit, relay.retry_after = (lambda _: refused(429, "TooManyRequests")), 100_000
    waiting = subprocess.Popen(copy.argv("specialise"), cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE)
    try:
        assert waiting.stdout is not None
        told = re.match(rb"Waiting for (\d+) s", waiting.stdout.readline())
        assert told is not None
        assert 3600 <= int(told.group(1)) <= 3960
        with local.alone(str(copy.state)):
            pass
        waiting.terminate()
        assert waiting.wait(5) == -signal.SIGTERM
    finally:
        waiting.kill()
        waiting.wait()
    assert len(relay.joins) == 1
    assert shown(copy)["identityState"] == "disconnected"


def test_a_builder_that_was_unsealed_by_hand_does_not_spend_the_token(
    original: Agent, relay: Relay, hub: HubProcess
) -> None:
    stop(original)
    words = ("seal", "--image-id", "web-1", "--enroll-on-first-boot", "web", "--token-file", "-")
    assert original.run(*words, stdin=ENROLMENT_TOKEN).returncode == 0
    assert original.run("unseal", "--here").returncode == 0
    original.start()
    assert json.loads(original.run("specialise", "--json").stdout)["changed"] is False
    assert relay.joins == []

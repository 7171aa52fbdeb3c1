# SPDX-License-Identifier: Apache-2.0
"""The agent and the real hub on clones: the original keeps working, whatever becomes of its twin."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_process import Agent
from tests.integration.extension_site import serving
from tests.integration.hub_process import HubProcess
from tests.integration.test_agent_image_specialise import BUILDER, copied, shown, stop
from tests.integration.test_himds import ARM, arm
from tests.waiting import until


@pytest.fixture(scope="module")
def token(hub: HubProcess) -> str:
    return hub.token(hub.principal("twin-owner", "Owner"))


@pytest.fixture
def name() -> str:
    return f"twin-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def original(tmp_path: Path, hub: HubProcess, token: str, name: str) -> Iterator[Agent]:
    """Connected, and stopped."""
    agent = Agent(tmp_path / "original")
    agent.hardware(**BUILDER)
    agent.start()
    agent.add_cloud(hub)
    done = agent.connect(hub, token, name)
    assert done.returncode == 0, done.stdout
    stop(agent)
    yield agent
    stop(agent)


@pytest.fixture
def twin(original: Agent, tmp_path: Path) -> Iterator[Agent]:
    """A copy of the original on other hardware, not started yet; the original runs."""
    made = copied(original, tmp_path / "twin")
    original.start()
    until(lambda: shown(original)["status"] == "Connected")
    yield made
    stop(made)


def reason(agent: Agent) -> dict[str, Any]:
    return {key: value for key, value in shown(agent).items() if key.startswith("identity") or "agentError" in key}


def test_a_twin_is_quarantined_and_the_original_keeps_working(
    original: Agent, twin: Agent, hub: HubProcess, token: str, name: str
) -> None:
    twin.start()
    until(lambda: shown(twin)["identityState"] == "quarantined", seconds=30, what=lambda: (reason(twin), twin.log))
    assert reason(twin)["identityVerdict"] == "clone"
    assert twin.token(ARM).status_code == 503
    assert json.loads(twin.run("specialise", "--json").stdout)["error"]["code"] == "AZCM0044"
    assert original.token(ARM).status_code == 200
    assert original.run("show").returncode == 0
    assert shown(original)["status"] == "Connected"
    assert arm(hub, token, "GET", name).json()["properties"]["status"] == "Connected"


def test_a_machine_whose_board_was_changed_is_the_same(original: Agent, hub: HubProcess) -> None:
    """The firmware's serial differs, its UUID does not, and nobody else holds the identity."""
    original.hardware(**BUILDER, dmi_serial="old")
    original.start()
    until(lambda: shown(original)["status"] == "Connected")
    stop(original)
    original.hardware(**{**BUILDER, "machine_id": "reinstalled"}, dmi_serial="old")
    original.start()
    until(lambda: shown(original)["status"] == "Connected", seconds=30, what=lambda: (reason(original), original.log))
    assert original.token(ARM).status_code == 200


def test_by_hand_a_twin_is_reset_and_connected_under_another_name(
    original: Agent, twin: Agent, hub: HubProcess, token: str, name: str
) -> None:
    """The vendor's runbook for clones."""
    twin.start()
    until(lambda: shown(twin)["identityState"] == "quarantined", seconds=30, what=lambda: (reason(twin), twin.log))
    path = twin.root / "disconnect.json"
    path.write_text(json.dumps({"access-token": token}))
    path.chmod(0o600)
    refused = twin.run("disconnect", "--config", str(path))
    assert refused.returncode == 27, refused.stdout
    assert arm(hub, token, "GET", name).status_code == 200
    assert twin.run("disconnect", "--force-local-only").returncode == 0
    done = twin.connect(hub, token, f"{name}-hand")
    assert done.returncode == 0, done.stdout
    assert shown(twin)["status"] == "Connected"
    assert original.token(ARM).status_code == twin.token(ARM).status_code == 200


def settings_key(agent: Agent) -> bytes:
    return (agent.root / "var/lib/GuestConfig/extensions/keys/settings.key").read_bytes()


def test_extd_of_a_twin_does_nothing_and_has_a_key_of_its_own_once_it_is_reset(
    hub: HubProcess, token: str, name: str, tmp_path: Path
) -> None:
    original = Agent(tmp_path / "original")
    original.hardware(**BUILDER)
    original.start()
    original.add_cloud(hub)
    with serving(original):
        done = original.connect(hub, token, name)
        assert done.returncode == 0, done.stdout
        assert (original.state / "state/settings.crt").exists(), "the enrolment brought it"
    stop(original)
    twin = copied(original, tmp_path / "twin")
    log = twin.root / "var/lib/GuestConfig/ext_mgr_logs/gc_ext.log"
    log.unlink()
    original.start()
    until(lambda: shown(original)["status"] == "Connected")
    twin.start()
    with serving(twin):
        until(
            lambda: "identity is quarantined" in log.read_text(),
            seconds=30,
            what=lambda: (reason(twin), log.read_text()),
        )
        assert settings_key(twin) == settings_key(original)
        assert twin.run("disconnect", "--force-local-only").returncode == 0
        done = twin.connect(hub, token, f"{name}-hand")
        assert done.returncode == 0, done.stdout
        assert (twin.state / "state/settings.crt").exists()
        assert settings_key(twin) != settings_key(original)
        until(lambda: "identity is connected" in log.read_text(), what=log.read_text)
    stop(twin)
    stop(original)


def test_a_controllers_wish_for_another_name_does_the_same(
    original: Agent, twin: Agent, hub: HubProcess, token: str, name: str
) -> None:
    twin.start()
    until(lambda: shown(twin)["identityState"] == "quarantined", seconds=30, what=lambda: (reason(twin), twin.log))
    place = {
        "state": "connected",
        "subscription_id": hub.subscription_id,
        "resource_group": "fleet",
        "location": "local",
    }
    wish = {"schema": 1, "connection": {**place, "name": f"{name}-wish", "credential": {"access_token": token}}}
    done = twin.run("apply", "-", stdin=json.dumps(wish))
    answer = json.loads(done.stdout)
    assert (done.returncode, [step["name"] for step in answer["steps"]]) == (0, ["disconnect", "connect"]), answer
    assert [need["operation"] for need in answer["credential_required"]] == ["connect"]
    assert arm(hub, token, "GET", name).status_code == 200
    assert shown(twin)["resourceName"] == f"{name}-wish"


@pytest.fixture
def set_profile(hub: HubProcess) -> Iterator[Callable[..., None]]:
    """Makes an enrolment profile; it is gone after the test, for other tests share the hub."""
    made = []

    def make(name: str, **settings: Any) -> None:
        made.append(name)
        hub.execute(
            "INSERT INTO profiles (name, settings, created, modified) VALUES (:name, :settings, :at, :at)",
            name=name,
            settings=json.dumps(settings),
            at=int(time.time()),
        )

    yield make
    for name in made:
        hub.execute("DELETE FROM enrolment_tokens WHERE profile = :name", name=name)
        hub.execute("DELETE FROM profiles WHERE name = :name", name=name)


def test_a_twin_is_adopted_and_both_work(
    original: Agent, twin: Agent, hub: HubProcess, token: str, name: str, set_profile: Callable[..., None]
) -> None:
    set_profile("default", clones="adopt", nameTemplate=f"{name}-clone")
    twin.start()
    until((twin.state / "state/adopt.json").exists, seconds=30, what=lambda: (reason(twin), twin.log))
    with serving(twin):
        done = twin.run("specialise")
        assert done.returncode == 0, (done.stdout, twin.log)
        assert (twin.state / "state/settings.crt").exists(), "extd has made a key for the new name"
    note = twin.root / "var/lib/GuestConfig/extensions/keys/machine.json"
    assert json.loads(note.read_text())["machine"] == shown(twin)["vmId"]
    assert (shown(twin)["identityState"], shown(twin)["resourceName"]) == ("connected", f"{name}-clone")
    assert shown(original)["resourceName"] == name
    for agent in (original, twin):
        assert agent.token(ARM).status_code == 200
    names = (name, f"{name}-clone")
    found = [arm(hub, token, "GET", one).json()["properties"] for one in names]
    assert {one["status"] for one in found} == {"Connected"}
    assert len({one["vmId"] for one in found}) == 2


def test_copies_of_a_sealed_image_join_with_names_of_their_own(
    original: Agent, hub: HubProcess, name: str, tmp_path: Path, set_profile: Callable[..., None]
) -> None:
    set_profile("web", subscriptionId=hub.subscription_id, resourceGroup="fleet", nameTemplate=name + "-{suffix}")
    secret = "hwe_" + uuid.uuid4().hex
    at = int(time.time())
    hub.execute(
        "INSERT INTO enrolment_tokens (id, profile, digest, image_id, uses, created, created_by, expires) "
        "VALUES (:id, 'web', :digest, 'web-1', 2, :at, 'test', :expires)",
        id=str(uuid.uuid4()),
        digest=hashlib.sha256(secret.encode()).hexdigest(),
        at=at,
        expires=at + 3600,
    )
    words = ("seal", "--image-id", "web-1", "--enroll-on-first-boot", "web", "--token-file", "-", "--force")
    assert original.run(*words, stdin=secret).returncode == 0
    names = set()
    for number, code in enumerate((0, 0, 12)):
        made = copied(original, tmp_path / f"copy{number}")
        made.hardware(**{**BUILDER, "dmi_uuid": str(uuid.uuid4())})
        assert json.loads(made.run("unseal", "--if-copied", "--json").stdout)["by"] == "evidence"
        made.start()
        done = made.run("specialise")
        assert done.returncode == code, (done.stdout, made.log)
        if code == 0:
            assert made.token(ARM).status_code == 200
            names.add(shown(made)["resourceName"])
        stop(made)
    assert len(names) == 2

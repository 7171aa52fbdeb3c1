# SPDX-License-Identifier: Apache-2.0
"""himds against a real hub: connect, heartbeat, tokens, tags, disconnect; and everything that may go wrong on the
way."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import pytest
import requests

from tests.integration.agent_process import TOKEN, Agent
from tests.integration.hub_machine import API
from tests.integration.hub_process import HubProcess, free_port, make
from tests.waiting import until

ARM = "https://management.azure.com"


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("himds-owner", "Owner")


@pytest.fixture
def token(hub: HubProcess, owner: dict[str, Any]) -> str:
    return hub.token(owner)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    started = Agent(tmp_path).start()
    yield started
    if started.himds is not None:
        assert started.stop() == 0


@pytest.fixture
def connected(agent: Agent, hub: HubProcess, token: str, request: pytest.FixtureRequest) -> Agent:
    agent.add_cloud(hub)
    done = agent.connect(hub, token, machine_name(request), tags="env=test,owner=ann")
    assert done.returncode == 0, done.stdout
    return agent


def machine_name(request: pytest.FixtureRequest) -> str:
    return re.sub("[^a-z0-9]+", "-", request.node.name)[:50].strip("-")


def machine_url(hub: HubProcess, name: str) -> str:
    group = f"{hub.url}/subscriptions/{hub.subscription_id}/resourceGroups/fleet"
    return f"{group}/providers/Microsoft.HybridCompute/machines/{name}"


def arm(hub: HubProcess, token: str, method: str, name: str, **body: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return hub.session().request(method, machine_url(hub, name), params=API, headers=headers, timeout=30, **body)


def test_a_connected_machine_is_whole_on_both_sides(
    connected: Agent, hub: HubProcess, token: str, request: pytest.FixtureRequest
) -> None:
    name = machine_name(request)
    shown = connected.show()
    assert (shown["status"], shown["resourceName"], shown["identityState"]) == ("Connected", name, "connected")
    assert shown["tags"] == {"env": "test", "owner": "ann"}
    at_hub = arm(hub, token, "GET", name).json()
    assert at_hub["properties"]["status"] == "Connected"
    assert at_hub["properties"]["vmId"] == shown["vmId"]
    until(lambda: arm(hub, token, "GET", name).json()["properties"].get("osSku"))
    assert arm(hub, token, "GET", name).json()["properties"]["agentConfiguration"]["configMode"] == "full"
    assert (connected.state / "certs/identity-1.key").stat().st_mode & 0o777 == 0o600
    assert (connected.state / "state/identity.json").stat().st_mode & 0o777 == 0o600


def test_a_token_verifies_against_the_authority(connected: Agent, hub: HubProcess) -> None:
    answer = connected.token(quote(ARM))
    body = answer.json()
    assert list(body).index("expires_in") < list(body).index("expires_on")
    assert all(isinstance(value, str) for value in body.values())
    assert body["resource"] == ARM
    jwks = hub.session().get(f"{hub.url}/{hub.tenant_id}/discovery/v2.0/keys", timeout=30).json()
    header = jwt.get_unverified_header(body["access_token"])
    key = next(jwt.PyJWK(row) for row in jwks["keys"] if row["kid"] == header["kid"])
    claims = jwt.decode(body["access_token"], key, algorithms=["RS256"], audience=ARM)
    assert claims["oid"] == body["object_id"]
    assert claims["xms_mirid"].lower() == connected.show()["resourceId"].lower()
    assert abs(claims["exp"] - claims["nbf"] - 86400) < 600


def test_challenges_are_single_use_and_each_caller_s_own(connected: Agent) -> None:
    path = f"{TOKEN}?api-version=2019-11-01&resource={quote(ARM)}"
    answers = [connected.get(path) for _ in range(5)]
    files = [Path(answer.headers["Www-Authenticate"].removeprefix("Basic realm=")) for answer in answers]
    assert len(set(files)) == 5
    assert all(answer.content == b"" and "Retry-After" not in answer.headers for answer in answers)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o440}
    assert {file.suffix for file in files} == {".key"}
    secrets = [file.read_text() for file in files]
    assert all(secret.isprintable() and "\n" not in secret for secret in secrets)
    for secret, file in zip(secrets, files, strict=True):
        assert connected.get(path, Authorization=f"Basic {secret}").status_code == 200
        assert not file.exists()
        again = connected.get(path, Authorization=f"Basic {secret}")
        assert again.status_code == 401
        Path(again.headers["Www-Authenticate"].removeprefix("Basic realm=")).unlink()


@pytest.mark.parametrize(
    ("path", "headers", "status", "words"),
    [
        (f"{TOKEN}?api-version=2020-06-01&resource=x", {"Metadata": ""}, 400, "metadata header"),
        (f"{TOKEN}?api-version=2020-06-01&resource=x", {"Metadata": "false"}, 400, "metadata header"),
        (f"{TOKEN}?resource=x", {}, 400, "Supported are 2019-11-01 2020-06-01"),
        (f"{TOKEN}?api-version=2018-02-01&resource=x", {}, 400, "Supported are"),
        (f"{TOKEN}?api-version=2020-06-01", {}, 400, "resource is missing"),
        (
            f"{TOKEN}?api-version=2020-06-01&resource=x&client_id=00000000-0000-0000-0000-000000000000",
            {},
            400,
            "No identity",
        ),
        (f"{TOKEN}?api-version=2020-06-01&resource=x", {"X_Forwarded_For": "1.2.3.4"}, 403, "forwarded"),
        (f"{TOKEN}?api-version=2020-06-01&resource=x", {"Host": "evil.example:1"}, 403, "this machine"),
        (f"{TOKEN}?api-version=2020-06-01&resource=x", {"Origin": "https://evil.example"}, 403, "this machine"),
        ("/metadata/instance", {}, 400, "Supported are"),
        ("/metadata/nothing?api-version=2020-06-01", {}, 404, "nothing at"),
    ],
)
def test_the_local_endpoint_refuses_in_the_documented_form(
    connected_once: Agent, path: str, headers: dict[str, str], status: int, words: str
) -> None:
    answer = connected_once.get(path, **headers)
    assert answer.status_code == status
    assert words in answer.json()["error_description"]


@pytest.fixture(scope="module")
def connected_once(hub: HubProcess, owner: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    started = Agent(tmp_path_factory.mktemp("machine")).start()
    started.add_cloud(hub)
    assert started.connect(hub, hub.token(owner), "shared").returncode == 0
    yield started
    assert started.stop() == 0


def test_a_resource_that_the_authority_does_not_know(connected_once: Agent) -> None:
    answer = connected_once.token("https%3A%2F%2Funknown.example")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_resource")


def test_bypass_cache_gives_a_fresh_token(connected_once: Agent) -> None:
    first = connected_once.token(quote(ARM)).json()["access_token"]
    assert connected_once.token(quote(ARM)).json()["access_token"] == first
    assert connected_once.token(quote(ARM), "&bypass_cache=true").json()["access_token"] != first


def test_methods_other_than_get_are_refused(connected_once: Agent) -> None:
    for path in (f"{TOKEN}?api-version=2020-06-01&resource=x", "/metadata/instance?api-version=2020-06-01"):
        answer = requests.post(connected_once.url + path, headers={"Metadata": "true"}, timeout=10)
        assert answer.status_code == 405


def test_noise_and_slow_callers_do_not_stop_the_endpoint(connected_once: Agent) -> None:
    address = ("127.0.0.1", connected_once.port)
    slow = [socket.create_connection(address) for _ in range(20)]
    for connection in slow:
        connection.sendall(b"GET /agentstatus HT")
    with socket.create_connection(address) as noisy:
        noisy.sendall(os.urandom(30000))
    assert connected_once.get("/agentstatus", Metadata="").json()["status"] == "Connected"
    slow[0].sendall(f"TP/1.1\r\nHost: localhost:{connected_once.port}\r\n\r\n".encode())
    assert b"Connected" in slow[0].recv(4096)
    for connection in slow:
        connection.close()


def test_instance_metadata_has_the_members_that_consumers_read(connected_once: Agent) -> None:
    answer = connected_once.get("/metadata/instance?api-version=2020-06-01")
    compute = answer.json()["compute"]
    shown = connected_once.show()
    assert compute["resourceId"] == shown["resourceId"]
    assert (compute["osType"], compute["location"], compute["subscriptionId"]) == (
        "linux",
        "local",
        shown["subscriptionId"],
    )
    assert '"resourceId":"/subscriptions/' in answer.text
    assert connected_once.get("/metadata/instance/compute?api-version=2019-11-01").json() == compute


def test_tags_changed_at_arm_arrive_while_a_heartbeat_is_held(
    connected: Agent, hub: HubProcess, token: str, request: pytest.FixtureRequest
) -> None:
    arm(hub, token, "PATCH", machine_name(request), json={"tags": {"stage": "gold"}}).raise_for_status()

    def arrived() -> bool:
        compute = connected.get("/metadata/instance/compute?api-version=2020-06-01").json()
        return bool(compute["tagsList"] == [{"name": "stage", "value": "gold"}] and compute["tags"] == "stage:gold")

    until(arrived)


def test_disconnect_leaves_nothing_on_either_side(
    connected: Agent, hub: HubProcess, token: str, request: pytest.FixtureRequest
) -> None:
    connected.token(quote(ARM)).raise_for_status()
    done = connected.run("disconnect", "--access-token", token)
    assert done.returncode == 0, done.stdout
    assert arm(hub, token, "GET", machine_name(request)).status_code == 404
    assert connected.files() == {"clouds/demo.json", "state/identity.json"}
    assert connected.show()["identityState"] == "disconnected"
    refused = connected.token(quote(ARM))
    assert (refused.status_code, refused.json()["error"]) == (400, "not_connected")
    assert connected.run("disconnect", "--access-token", token).returncode == 0


def test_disconnect_locally_needs_no_hub(
    connected: Agent, hub: HubProcess, token: str, request: pytest.FixtureRequest
) -> None:
    assert connected.run("disconnect", "--force-local-only").returncode == 0
    assert connected.files() == {"clouds/demo.json", "state/identity.json"}
    assert arm(hub, token, "GET", machine_name(request)).status_code == 200


def holds(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text()


def failed(done: Any, code: int) -> str:
    """The text of a command that ended with `code`, which it names."""
    text = str(done.stdout)
    assert done.returncode == code, text
    assert f"AZCM{code:04d}" in text
    return text


def test_connecting_twice(connected: Agent, hub: HubProcess, token: str, request: pytest.FixtureRequest) -> None:
    before = connected.show()["vmId"]
    assert connected.show()["resourceId"] in failed(connected.connect(hub, token, "another"), 67)
    assert connected.show()["vmId"] == before


def test_a_name_that_is_taken(agent: Agent, connected_once: Agent, hub: HubProcess, token: str) -> None:
    agent.add_cloud(hub)
    failed(agent.connect(hub, token, "shared"), 44)
    assert agent.files() == {"clouds/demo.json", "state/identity.json"}
    assert connected_once.show()["status"] == "Connected"
    assert arm(hub, token, "GET", "shared").status_code == 200


def test_a_location_that_the_hub_does_not_have(agent: Agent, hub: HubProcess, token: str) -> None:
    agent.add_cloud(hub, locations=["local", "mars"])
    failed(agent.connect(hub, token, "far", location="mars"), 20)
    assert agent.files() == {"clouds/demo.json", "state/identity.json"}


def test_a_token_that_is_none(agent: Agent, hub: HubProcess) -> None:
    agent.add_cloud(hub)
    failed(agent.connect(hub, "nonsense", "web"), 12)
    assert agent.show()["identityState"] == "disconnected"


def test_a_role_that_may_not_create(agent: Agent, hub: HubProcess) -> None:
    agent.add_cloud(hub)
    reader = hub.token(hub.principal("himds-reader", "Reader"))
    failed(agent.connect(hub, reader, "web"), 42)
    assert agent.files() == {"clouds/demo.json", "state/identity.json"}


def test_a_hub_that_is_not_there(agent: Agent, hub: HubProcess, token: str) -> None:
    gone = f"https://127.0.0.1:{free_port()}"
    agent.add_cloud(hub, arm=gone, channel=[f"{gone}/channel"])
    failed(agent.connect(hub, token, "web"), 26)
    failed(agent.connect(hub, token, "web", **{"ignore-network-check": True}), 26)  # type: ignore[arg-type]
    assert agent.show()["identityState"] == "disconnected"


def test_a_hub_that_is_not_trusted(agent: Agent, hub: HubProcess, token: str, tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    agent.add_cloud(hub, ca_pem=Path(other.ca_file).read_text(encoding="ascii"))
    text = failed(agent.connect(hub, token, "web", **{"ignore-network-check": True}), 26)  # type: ignore[arg-type]
    assert "not trusted" in text


@pytest.mark.parametrize(
    "ahead", [3600, -3600, 20 * 365 * 86400.0], ids=["an hour fast", "an hour slow", "20 years fast"]
)
def test_a_wrong_clock_is_no_obstacle(
    tmp_path: Path, hub: HubProcess, token: str, request: pytest.FixtureRequest, ahead: float
) -> None:
    agent = Agent(tmp_path / "machine", clock_ahead=ahead).start()
    try:
        agent.add_cloud(hub)
        done = agent.connect(hub, token, machine_name(request))
        assert done.returncode == 0, done.stdout
        assert "clock" in done.stdout
        answer = agent.token(quote(ARM))
        assert answer.status_code == 200
        assert abs(int(answer.json()["expires_in"]) - 86400) < 60
        assert abs(int(answer.json()["expires_on"]) - time.time() - 86400) < 60
        assert arm(hub, token, "GET", machine_name(request)).json()["properties"]["status"] == "Connected"
    finally:
        agent.stop()


def test_a_connect_that_is_killed_goes_on_with_the_same_machine(
    agent: Agent, hub: HubProcess, token: str, request: pytest.FixtureRequest
) -> None:
    """kill -9 of himds while it connects: the next connect finds its own machine at the hub, not a stranger's."""
    import threading

    agent.add_cloud(hub)
    name = machine_name(request)
    identity = agent.state / "state/identity.json"
    for step in ("put", "enrol", "checkin"):
        thread = threading.Thread(target=agent.connect, args=(hub, token, name))
        thread.start()
        mark = f'"step": "{step}"'
        until(partial(holds, identity, mark), seconds=20, pause=0.0005)
        agent.stop(signal.SIGKILL)
        thread.join(30)
        agent.start()
        assert agent.show()["identityState"] == "disconnected"
    done = agent.connect(hub, token, name)
    assert done.returncode == 0, done.stdout
    assert arm(hub, token, "GET", name).json()["properties"]["vmId"] == agent.show()["vmId"]


def test_kill_9_and_a_start_later_the_machine_is_the_same(connected: Agent) -> None:
    before = connected.show()
    orphan = connected.get(f"{TOKEN}?api-version=2020-06-01&resource=x").headers["Www-Authenticate"].partition("=")[2]
    connected.stop(signal.SIGKILL)
    assert Path(orphan).exists()
    connected.start()
    assert not Path(orphan).exists()
    after = connected.show()
    assert {name: after[name] for name in ("vmId", "resourceId", "status", "tags")} == {
        name: before[name] for name in ("vmId", "resourceId", "status", "tags")
    }
    assert connected.token(quote(ARM)).status_code == 200


def test_a_machine_that_was_deleted_at_the_hub_says_so(
    connected: Agent, hub: HubProcess, token: str, request: pytest.FixtureRequest
) -> None:
    assert arm(hub, token, "DELETE", machine_name(request)).status_code == 204
    shown = until(lambda: (found := connected.show())["agentErrorCode"] and found)
    assert (shown["agentErrorCode"], shown["status"]) == ("AZCM0042", "Disconnected")
    assert shown["identityState"] == "connected"


def test_a_hub_that_restarts_and_one_that_stays_away(tmp_path: Path) -> None:
    hub = make(tmp_path / "hub").start()
    agent = Agent(tmp_path / "machine").start()
    try:
        token = hub.token(hub.principal("owner", "Owner"))
        agent.add_cloud(hub)
        assert agent.connect(hub, token, "steady").returncode == 0
        agent.token(quote(ARM)).raise_for_status()
        hub.stop(signal.SIGKILL)
        # Cached tokens and metadata are served on; a token that must be asked for is refused in a form SDKs try again.
        assert agent.token(quote(ARM)).status_code == 200
        assert agent.token(quote("https://vault.azure.net")).status_code == 503
        assert agent.get("/metadata/instance/compute?api-version=2020-06-01").json()["name"] == "steady"
        heartbeat = until(lambda: (found := agent.show())["agentErrorCode"] and found)["lastHeartbeat"]
        time.sleep(1.1)  # times have whole seconds
        hub.start()
        until(lambda: agent.show()["lastHeartbeat"] > heartbeat, seconds=60)
        # The heartbeat is held for minutes from now on; the trouble ended when the hub took it.
        until(lambda: not agent.show()["agentErrorCode"])
        assert agent.token(quote("https://vault.azure.net")).status_code == 200
        status = hub.session().get(
            machine_url(hub, "steady"), params=API, headers={"Authorization": f"Bearer {token}"}, timeout=9
        )
        assert status.json()["properties"]["status"] == "Connected"
    finally:
        agent.stop()
        hub.stop()


def test_a_cloud_profile_that_is_repaired_is_taken_up_at_once(
    connected: Agent, hub: HubProcess, tmp_path: Path
) -> None:
    """A machine that has missed the change of its hub's certificate, and one whose profile was lost."""
    other = make(tmp_path / "other")
    path = next((connected.state / "clouds").glob("*.json"))
    kept = json.loads(path.read_text())
    connected.stop()
    path.write_text(json.dumps({**kept, "ca_pem": Path(other.ca_file).read_text(encoding="ascii")}))
    connected.start()
    until(lambda: connected.show()["agentErrorCode"])
    connected.add_cloud(hub)
    until(lambda: not connected.show()["agentErrorCode"], what=lambda: connected.log)
    connected.stop()
    path.unlink()
    connected.start()
    heartbeat = connected.show()["lastHeartbeat"]
    time.sleep(1.1)  # times have whole seconds
    connected.add_cloud(hub)
    until(lambda: connected.show()["lastHeartbeat"] > heartbeat, what=lambda: connected.log)


def test_a_certificate_that_is_due_is_renewed_and_the_old_one_retired(connected: Agent, hub: HubProcess) -> None:
    """The date in the identity's file is brought forward; key, certificate and slot are new afterwards."""
    connected.stop()
    path = connected.state / "state/identity.json"
    record = json.loads(path.read_text())
    record["identity"]["certificateExpires"] = time.time() + 44 * 86400
    path.write_text(json.dumps(record))
    before = [connected.state / f"certs/identity-1.{end}" for end in ("key", "crt")]
    assert all(item.exists() for item in before)
    connected.start()

    def renewed() -> bool:
        gone = not any(item.exists() for item in before)
        return bool(json.loads(path.read_text())["identity"]["slot"] == 2 and gone)

    until(renewed, seconds=20, what=lambda: connected.log)
    assert {item.name for item in (connected.state / "certs").iterdir()} == {"identity-2.key", "identity-2.crt"}
    assert connected.token(quote("https://vault.azure.net")).status_code == 200
    until(lambda: connected.show()["status"] == "Connected" and not connected.show()["agentErrorCode"])


def test_an_expired_certificate_ends_the_identity(connected: Agent) -> None:
    connected.stop()
    path = connected.state / "state/identity.json"
    record = json.loads(path.read_text())
    record["identity"]["certificateExpires"] = time.time() - 1
    path.write_text(json.dumps(record))
    connected.start()
    shown = until(lambda: (found := connected.show())["status"] == "Expired" and found)
    assert shown["identityState"] == "expired"
    refused = connected.token(quote(ARM))
    assert (refused.status_code, refused.json()["error"]) == (400, "identity_expired")


def test_an_identity_that_expired_by_a_wrong_clock_only_goes_on(connected: Agent) -> None:
    connected.stop()
    path = connected.state / "state/identity.json"
    record = json.loads(path.read_text())
    record["state"] = "expired"
    path.write_text(json.dumps(record))
    connected.start()
    until(lambda: connected.show()["identityState"] == "connected")
    assert connected.token(quote(ARM)).status_code == 200


def test_a_report_that_the_hub_never_takes_does_not_hold_up_the_others(connected: Agent) -> None:
    outbox = connected.state / "state/outbox"
    until(lambda: not list(outbox.glob("*.json")))
    connected.stop()
    for number, kind in ((1, "nonsense"), (2, "inventory")):
        name = f"00000000-0000-4000-8000-00000000000{number}"
        report = {"id": name, "kind": kind, "createdAt": "2026-11-23T10:00:00Z", "data": {}}
        (outbox / f"{number:015d}-{name}.json").write_text(json.dumps(report))
    connected.start()
    until(lambda: not list(outbox.glob("*.json")), what=lambda: connected.log)
    assert "refused a report of kind nonsense" in connected.log


def test_a_half_written_identity_is_rebuilt(connected: Agent) -> None:
    before = connected.show()["vmId"]
    connected.stop(signal.SIGKILL)
    path = connected.state / "state/identity.json"
    path.write_bytes(path.read_bytes()[:40])
    connected.start()
    assert connected.show()["vmId"] == before
    until(lambda: connected.show()["status"] == "Connected")
    assert "AZCM0002" in connected.log


def test_no_secret_is_in_a_log(connected: Agent, token: str) -> None:
    answer = connected.token(quote(ARM)).json()
    everything = "".join(path.read_text() for path in (connected.state / "log").iterdir())
    assert answer["access_token"] not in everything
    assert token not in everything
    assert "PRIVATE KEY" not in everything

# SPDX-License-Identifier: Apache-2.0
"""himds on a machine that is not the one that was connected: what it gives nobody, what it asks, what it does with
each answer of the hub (docs/protocol.md section 14.2)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509

from agent_runtime.workers.keys import sign_assertion
from tests.integration.agent_process import Agent
from tests.integration.hub_process import HubProcess
from tests.integration.judging_relay import Relay, refused, relayed
from tests.integration.test_himds import ARM, arm
from tests.waiting import until

ONE = {
    "machine_id": "m",
    "dmi_uuid": "4c4c4544-0042-3510-8052-b4c04f4d3233",
    "cloud_instance_id": "i-0a1b2c3d4e5f60718",
    "disk_id": "wwid=5002538d40b1a2c3",
    "macs": "02:00:00:00:00:01",
}
OTHER = {**ONE, "dmi_uuid": "4c4c4544-0042-3510-8052-b4c04f4d9999"}


@pytest.fixture(scope="module")
def token(hub: HubProcess) -> str:
    return hub.token(hub.principal("parked-owner", "Owner"))


@pytest.fixture
def relay(hub: HubProcess, tmp_path: Path) -> Iterator[Relay]:
    with relayed(hub, tmp_path) as found:
        yield found


@pytest.fixture
def name() -> str:
    return f"parked-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def agent(tmp_path: Path, hub: HubProcess, relay: Relay, token: str, name: str) -> Iterator[Agent]:
    """Connected through the relay on the hardware ONE, and stopped."""
    agent = Agent(tmp_path)
    agent.hardware(**ONE)
    agent.start()
    both = hub.profile()["ca_pem"] + relay.ca_pem
    agent.add_cloud(hub, channel=[relay.url], ca_pem=both)
    done = agent.connect(hub, token, name)
    assert done.returncode == 0, done.stdout
    assert agent.stop() == 0
    yield agent
    if agent.himds is not None:
        assert agent.stop() == 0


def same(question: dict[str, Any], verdict: str = "same", **more: Any) -> tuple[int, dict[str, Any]]:
    answer = {"verdict": verdict, "epoch": question["epoch"], "slot": question["slot"], "nonce": question["nonce"]}
    return 200, {**answer, "certificate": None, "serverTime": "2026-11-23T00:00:00Z", **more}


def parked(agent: Agent, relay: Relay) -> dict[str, Any]:
    """The machine started on other hardware; what `show` says once it has asked."""
    agent.hardware(**OTHER)
    agent.start()
    until(lambda: relay.questions)
    return agent_show(agent)


def agent_show(agent: Agent) -> dict[str, Any]:
    done = agent.run("show", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    found["exit"] = done.returncode
    return found


def test_a_copied_identity_is_not_used_before_the_hub_has_decided(agent: Agent, relay: Relay) -> None:
    relay.judge = lambda _: refused(503, "ServiceUnavailable")
    shown = parked(agent, relay)
    assert (shown["identityState"], shown["status"], shown["agentErrorCode"]) == ("parked", "Disconnected", "AZCM0044")
    assert (shown["identityReason"], shown["identityDiffers"]) == ("evidence", ["dmi_uuid"])
    assert (shown["exit"], shown["identityEvent"]) == (44, 4101)
    checked = agent.run("check", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["identityState"]) == (44, "parked")
    assert "event 4101" in json.loads(checked.stdout)["error"]["message"]
    for answer in (agent.token(ARM), agent.get("/metadata/instance?api-version=2020-06-01")):
        assert answer.status_code == 503
        assert "dmi_uuid" in answer.json()["error_description"]
    assert "event 4101: AZCM0044" in agent.log
    question = relay.questions[0]
    assert "Authorization" not in question
    assert (question["reason"], question["csr"], question["imageId"]) == ("evidence", None, None)
    certificate = x509.load_pem_x509_certificate((agent.state / "certs/identity-1.crt").read_bytes())
    claims = jwt.decode(
        question["assertion"],
        certificate.public_key(),  # type: ignore[arg-type]
        algorithms=["PS256"],
        audience=f"{relay.url}/v1/identity",
    )
    assert claims["iss"] == json.loads((agent.state / "state/agentconfig.json").read_text())["clientId"]
    assert {item["name"]: item["status"] for item in question["evidence"]["items"]}["dmi_uuid"] == "ok"
    # Asking again the agent goes on where the hub's answer leads.
    relay.judge = same
    until(lambda: agent_show(agent)["identityState"] == "connected", seconds=20)


def test_a_machine_that_wakes_up_elsewhere_gives_no_token_before_it_was_looked_at(agent: Agent, relay: Relay) -> None:
    """Copied asleep, with its memory, its processes run on: only the clocks tell."""
    relay.judge = lambda _: refused(503, "ServiceUnavailable")
    agent.start()
    until(lambda: agent_show(agent)["status"] == "Connected")
    assert agent.token(ARM).status_code == 200
    agent.hardware(**OTHER)
    assert agent.token(ARM).status_code == 200, "awake all the time it has no reason to look"
    agent.asleep(3)
    answer = agent.token(ARM)
    assert answer.status_code == 503
    assert "dmi_uuid" in answer.json()["error_description"]
    until(lambda: relay.questions, "the hub is asked although a heartbeat is held")
    assert relay.questions[0]["reason"] == "evidence"


def test_told_to_look_himds_parks_at_once(agent: Agent, relay: Relay) -> None:
    """What the hook of the system's sleep starts."""
    relay.judge = lambda _: refused(503, "ServiceUnavailable")
    agent.start()
    until(lambda: agent_show(agent)["status"] == "Connected")
    assert json.loads(agent.run("specialise", "--look", "--json").stdout)["state"] == "connected"
    agent.hardware(**OTHER)
    assert json.loads(agent.run("specialise", "--look", "--json").stdout)["state"] == "parked"
    assert agent.token(ARM).status_code == 503
    until(lambda: relay.questions, "the hub is asked although a heartbeat is held")


def test_a_forged_instance_id_wipes_nothing(agent: Agent, relay: Relay) -> None:
    """Whoever answers for the cloud's metadata can say so: the machine waits for the hub, and loses nothing."""
    before = agent.files()
    relay.judge = lambda _: refused(503, "ServiceUnavailable")
    agent.hardware(**{**ONE, "cloud_instance_id": "i-forged"})
    agent.start()
    until(lambda: relay.questions)
    shown = agent_show(agent)
    assert (shown["identityState"], shown["identityDiffers"]) == ("parked", ["cloud_instance_id"])
    assert agent.token(ARM).status_code == 503
    assert before <= agent.files()
    relay.judge = same
    until(lambda: agent_show(agent)["identityState"] == "connected", seconds=20)
    assert agent.token(ARM).status_code == 200


@pytest.mark.parametrize("verdict", ["same", "moved"])
def test_what_the_hub_recognises_is_connected_and_remembered(agent: Agent, relay: Relay, verdict: str) -> None:
    relay.judge = lambda question: same(question, verdict)
    parked(agent, relay)
    until(lambda: agent_show(agent)["status"] == "Connected")
    assert agent.token(ARM).status_code == 200
    agent.stop()
    agent.start()
    assert agent_show(agent)["identityState"] == "connected"
    assert len(relay.questions) == 1


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (
            refused(409, "identity_conflict", verdict="clone", differs=["dmi_uuid"], enrolment=None),
            "parked",
            "in use elsewhere",
        ),
        (
            refused(409, "identity_conflict", verdict="undecided", differs=[], retryAfter=3000),
            "parked",
            "not decided yet",
        ),
        (
            refused(403, "quarantined", verdict="clone", differs=["dmi_uuid"], until=None, contact="ops@example.com"),
            "quarantined",
            "ops@example.com",
        ),
        (refused(404, "ResourceNotFound"), "parked", "does not know"),
        (refused(401, "InvalidAuthenticationToken"), "parked", "not the machine"),
        (refused(429, "TooManyRequests"), "parked", "not the machine"),
        (
            (409, {"error": {"code": "identity_conflict"}, "differs": [7, None], "enrolment": "x"}),
            "parked",
            "elsewhere",
        ),
        ((200, {"verdict": "same"}), "parked", "not the machine"),
        ((200, {}), "parked", "not the machine"),
    ],
)
def test_every_other_answer_keeps_the_identity_out_of_use(
    agent: Agent, relay: Relay, answer: tuple[int, dict[str, Any]], state: str, words: str
) -> None:
    relay.judge = lambda _: answer
    parked(agent, relay)
    until(lambda: words in agent_show(agent)["agentErrorDetails"], what=lambda: agent_show(agent))
    assert agent_show(agent)["identityState"] == state
    assert agent.token(ARM).status_code == 503
    agent.stop()
    agent.start()
    assert agent_show(agent)["identityState"] == state
    assert agent.token(ARM).status_code == 503


@pytest.mark.parametrize("weak", ["macs", "disk_id"])
def test_a_weak_difference_is_reported_and_accuses_nobody(agent: Agent, relay: Relay, weak: str) -> None:
    before = (agent.state / "state/evidence.json").read_text()
    agent.hardware(**{**ONE, weak: "02:00:00:00:00:99"})
    agent.start()
    until(lambda: agent_show(agent)["status"] == "Connected")
    assert agent.token(ARM).status_code == 200
    assert relay.questions == []
    # The hub has it, so it is what the next look compares with.
    until(lambda: (agent.state / "state/evidence.json").read_text() != before)
    assert "refused a report" not in agent.log


def test_readings_that_fail_accuse_nobody(agent: Agent, relay: Relay) -> None:
    agent.hardware(**{**ONE, "dmi_uuid": None, "machine_id": None})
    agent.start()
    until(lambda: agent_show(agent)["status"] == "Connected")
    assert relay.questions == []


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_ten_years_off_accuses_nobody(agent: Agent, relay: Relay, years: int) -> None:
    """Wall clocks are no evidence, and a certificate's life is judged by the hub's clock. (TLS judges by the system's,
    which a test cannot move.)"""
    before = json.loads((agent.state / "state/lease.json").read_text())["lastHeartbeat"]
    agent.clock_ahead = years * 365.0 * 86400
    agent.start()
    until(lambda: agent_show(agent)["lastHeartbeat"] != before)
    assert agent_show(agent)["identityState"] == "connected"
    assert agent.token(ARM).status_code == 200
    assert relay.questions == []


@pytest.mark.parametrize(("status", "code"), [(409, "identity_conflict"), (401, "superseded"), (403, "quarantined")])
def test_what_a_check_in_is_refused_with_is_asked_about(agent: Agent, relay: Relay, status: int, code: str) -> None:
    relay.refuse["checkin"] = refused(status, code)
    relay.judge = lambda _: refused(409, "identity_conflict", verdict="undecided", differs=[], retryAfter=3000)
    agent.start()
    until(lambda: relay.questions)
    assert relay.questions[0]["reason"] == code
    assert (relay.questions[0]["csr"] is not None) == (code == "superseded")
    assert agent.token(ARM).status_code == 503


def test_a_machine_that_was_set_back_goes_on_with_a_new_certificate(
    agent: Agent, relay: Relay, hub: HubProcess, token: str, name: str
) -> None:
    """The real hub renews the certificate behind the machine's back; the relay hands it out as the verdict's."""

    def rollback(question: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        channel = channel_token(agent, hub, question)
        answer = hub.session().post(
            f"{hub.url}/channel/v1/renew",
            json={"protocol": 1, "requestId": question["requestId"], "slot": 1, "csr": question["csr"]},
            headers={"Authorization": f"Bearer {channel}", "Hawser-Lease": question["nonce"]},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        relay.refuse.clear()
        return same(question, "rollback", slot=2, certificate=answer.json()["certificate"])

    relay.refuse["checkin"] = refused(401, "superseded")
    relay.judge = rollback
    agent.start()
    until(lambda: agent_show(agent)["status"] == "Connected" and relay.questions, seconds=20, what=lambda: agent.log)
    assert sorted(path.name for path in (agent.state / "certs").iterdir() if "-2." in path.name) == [
        "identity-2.crt",
        "identity-2.key",
    ]
    assert not (agent.state / "certs/identity-next.key").exists()
    assert arm(hub, token, "GET", name).json()["properties"]["status"] == "Connected"


def channel_token(agent: Agent, hub: HubProcess, question: dict[str, Any]) -> str:
    """A channel token for the machine's key."""
    certs = agent.state / "certs"
    config = json.loads((agent.state / "state/agentconfig.json").read_text())
    url = f"{hub.url}/{hub.tenant_id}/oauth2/v2.0/token"
    signed = sign_assertion(
        {
            "key": str(certs / "identity-1.key"),
            "certificate": str(certs / "identity-1.crt"),
            "clientId": config["clientId"],
            "audience": url,
            "now": time.time(),
            "jti": question["requestId"],
        }
    )
    form = {
        "grant_type": "client_credentials",
        "client_id": config["clientId"],
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": signed["assertion"],
        "scope": "api://hawser-channel/.default",
    }
    return str(hub.session().post(url, data=form, timeout=30).json()["access_token"])

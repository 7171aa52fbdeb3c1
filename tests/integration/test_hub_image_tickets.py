# SPDX-License-Identifier: Apache-2.0
"""Tickets of machines that join or are adopted: of one use, and of one machine (docs/protocol.md section 14.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.hub_machine import Machine, beating, make_key, vector
from tests.integration.hub_process import HubProcess

# A machine, and how it asks for an enrolment, as often as it likes.
Offered = tuple[Machine, Callable[[], dict[str, Any]]]

HERE = vector(machine_id="m1", dmi_uuid="u1", dmi_serial="s1")
THERE = vector(machine_id="m1", dmi_uuid="u2", dmi_serial="s2")
ELSEWHERE = vector(machine_id="m1", dmi_uuid="u3", dmi_serial="s3")


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> str:
    return hub.token(hub.principal("owner", "Owner"))


@pytest.fixture
def joining(hub: HubProcess, owner: str) -> Offered:
    """A machine of an image, with a token that is good for one machine."""
    Machine(hub, f"first-{uuid4().hex[:8]}").connect(owner)  # makes the group
    where = ("--subscription", hub.subscription_id, "-g", "fleet", "--location", "local")
    hub.run("profiles", "set", "web", *where)
    token = hub.json("profiles", "token", "web", "--uses", "1", "--days", "1")["token"]
    machine = Machine(hub, f"copy-{uuid4().hex[:8]}", evidence=THERE)

    def ask() -> dict[str, Any]:
        answer = machine.join(token)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    return machine, ask


@pytest.fixture
def adopted(hub: HubProcess, owner: str) -> Offered:
    """A clone that the hub offers a name."""
    hub.run("profiles", "set", "default", "--clones", "adopt")
    original = Machine(hub, f"orig-{uuid4().hex[:8]}", evidence=HERE, boot="boot-original").connect(owner)
    clone = original.copy(evidence=THERE, boot="boot-clone")

    def ask() -> dict[str, Any]:
        with beating(original):
            answer = clone.ask()
        assert answer.status_code == 409, answer.text
        return dict(answer.json()["enrolment"])

    return clone.copy(key=make_key(), vm_id=str(uuid4())), ask


@pytest.fixture(params=["joining", "adopted"])
def offered(request: pytest.FixtureRequest) -> Offered:
    found: Offered = request.getfixturevalue(request.param)
    return found


def refusal(machine: Machine, enrolment: dict[str, Any]) -> tuple[int, str]:
    answer = machine.enrol_as(enrolment)
    return answer.status_code, answer.json()["error"]["code"]


def test_a_ticket_is_good_for_the_machine_that_it_was_given_to(offered: Offered) -> None:
    machine, ask = offered
    enrolment = ask()
    thief = machine.copy(evidence=ELSEWHERE, key=make_key(), vm_id=str(uuid4()))
    assert refusal(thief, enrolment) == (403, "TicketMismatch")
    # At worst the thief has taken the name: the machine asks again, and gets another one.
    again = ask()
    assert again["resourceId"] != enrolment["resourceId"]
    assert machine.enrol_as(again).status_code == 200
    assert machine.checkin().status_code == 200


def test_a_ticket_is_good_once(offered: Offered) -> None:
    machine, ask = offered
    enrolment = ask()
    assert machine.enrol_as(enrolment).status_code == 200
    # Whoever saw it and imitates all of the machine's evidence too.
    thief = machine.copy(key=make_key(), vm_id=str(uuid4()))
    assert refusal(thief, enrolment) == (409, "Conflict"), "its name is taken already"
    # Whoever has the key and the vmId as well comes as far as the ticket, which is spent whatever evidence it shows.
    for evidence in (machine.evidence, ELSEWHERE):
        replayed = machine.copy(evidence=evidence).enrol(enrolment["ticket"])
        assert (replayed.status_code, replayed.json()["error"]["code"]) == (403, "TicketSpent")
    assert machine.checkin().status_code == 200
    assert thief.ask_token().status_code in (400, 401)

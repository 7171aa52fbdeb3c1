# SPDX-License-Identifier: Apache-2.0
"""What a profile or an operator makes of a twin instead of the default (docs/protocol.md sections 14.3 and 14.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.hub_machine import API, Machine, beating
from tests.integration.hub_process import HubProcess
from tests.integration.test_hub_twins import ELSEWHERE, HERE, refused, silent, told, twins_of


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> str:
    return hub.token(hub.principal("owner", "Owner"))


@pytest.fixture
def original(hub: HubProcess, owner: str) -> Machine:
    return Machine(hub, f"web-{uuid4().hex[:8]}", evidence=HERE, boot="boot-original").connect(owner)


def rejected(clone: Machine, original: Machine) -> None:
    """The clone is told so each time that it asks, is offered nothing, and the original goes on."""
    with beating(original) as statuses:
        for _ in range(2):
            answer = clone.ask()
            assert told(answer) == (409, "identity_conflict", "clone")
            assert (answer.json()["enrolment"], "retryAfter" in answer.json()) == (None, False)
        assert refused(clone.checkin()) == (409, "identity_conflict")
    assert set(statuses) == {200}
    assert original.checkin().status_code == 200


def test_a_profile_that_rejects_offers_no_name(hub: HubProcess, original: Machine) -> None:
    clone = original.copy(evidence=ELSEWHERE, boot="boot-clone")
    hub.run("profiles", "set", "default", "--clones", "reject")
    try:
        rejected(clone, original)
    finally:
        hub.run("profiles", "set", "default", "--clones", "quarantine")
    assert twins_of(hub, original) == [("clone", "reject", "open")]


def test_what_an_operator_rejects_is_told_so_when_it_asks_again(hub: HubProcess, original: Machine) -> None:
    clone = original.copy(evidence=ELSEWHERE, boot="boot-clone")
    with beating(original):
        assert told(clone.ask()) == (403, "quarantined", "clone")
    (twin,) = [item for item in hub.json("twins") if item["vmId"] == original.vm_id]
    hub.run("twins", "reject", str(twin["id"]))
    rejected(clone, original)
    assert twins_of(hub, original) == [("clone", "reject", "rejected")]


def test_a_profile_that_keeps_what_has_moved_asks_nobody(hub: HubProcess, original: Machine) -> None:
    hub.run("profiles", "set", "default", "--moved", "keep")
    try:
        original.evidence = ELSEWHERE
        assert told(original.ask()) == (409, "identity_conflict", "undecided"), (
            "the other one may be between heartbeats"
        )
        silent(hub, original)
        answer = original.ask()
    finally:
        hub.run("profiles", "set", "default", "--moved", "ask")
    assert (answer.status_code, answer.json()["verdict"]) == (200, "moved")
    assert original.checkin().status_code == 200
    assert original.ask().json()["verdict"] == "same", "the new hardware is the recorded one"
    assert twins_of(hub, original) == []


def twin_of(hub: HubProcess, machine: Machine) -> dict[str, Any]:
    """The only one."""
    (found,) = [item for item in hub.json("twins") if item["vmId"] == machine.vm_id]
    return dict(found)


def offered(clone: Machine, original: Machine) -> dict[str, Any]:
    """The enrolment that a clone is offered while the original goes on."""
    with beating(original) as statuses:
        answer = clone.ask(hostname="copied")
    assert set(statuses) == {200}
    assert told(answer) == (409, "identity_conflict", "clone")
    return dict(answer.json()["enrolment"])


def approved(hub: HubProcess, original: Machine) -> tuple[Machine, dict[str, Any]]:
    """A clone that an operator lets become a machine of its own, and what it is offered."""
    clone = original.copy(evidence=ELSEWHERE, boot="boot-clone")
    with beating(original):
        assert told(clone.ask(hostname="copied")) == (403, "quarantined", "clone")
    hub.run("twins", "adopt", str(twin_of(hub, original)["id"]))
    return clone, offered(clone, original)


def enrolled(clone: Machine, offer: dict[str, Any]) -> Machine:
    """The machine that a clone becomes, before its first heartbeat."""
    group, name = (offer["resourceId"].split("/")[index] for index in (4, 8))
    made = clone.copy(group=group, name=name, vm_id=str(uuid4()), channel_token="")
    for answer in (made.put(offer["ticket"]), made.enrol(offer["ticket"])):
        assert answer.status_code == 200, answer.text
    return made


@pytest.mark.parametrize("undone", [True, False], ids=["undone at the hub", "left at the hub"])
def test_an_adoption_that_breaks_before_the_first_heartbeat_goes_on(
    hub: HubProcess, original: Machine, *, undone: bool
) -> None:
    clone, offer = approved(hub, original)
    for _ in range(2):
        broken = enrolled(clone, offer)
        assert twin_of(hub, original)["state"] == "adopted"
        if undone:
            headers = {"Authorization": f"Bearer {offer['ticket']}"}
            gone = broken.http.delete(f"{hub.url}{broken.resource_id}", params=API, headers=headers, timeout=30)
            assert gone.status_code == 204
        before, offer = offer, offered(clone, original)
        assert (offer["resourceId"] == before["resourceId"]) is undone
        assert [twin_of(hub, original)[name] for name in ("state", "decision", "became")] == ["open", "adopt", None]
        assert refused(clone.checkin()) == (409, "identity_conflict")
    made = clone.copy(vm_id=str(uuid4()))
    assert made.enrol_as(offer).status_code == 200
    assert [twin_of(hub, original)[name] for name in ("state", "became")] == ["adopted", made.resource_id]
    assert original.checkin().status_code == 200


def test_a_question_from_before_the_adoption_is_none_of_a_clone_that_is_back(
    hub: HubProcess, original: Machine
) -> None:
    """The hub has waited for the original meanwhile, and another process of it may have enrolled the clone."""
    clone, offer = approved(hub, original)
    made = enrolled(clone, offer)
    hub.execute("UPDATE twins SET last = last + 1000 WHERE id = :id", id=twin_of(hub, original)["id"])
    offered(clone, original)
    assert [twin_of(hub, original)[name] for name in ("state", "became")] == ["adopted", made.resource_id]


@pytest.mark.parametrize("decision", ["adopt", "release", "reject"])
def test_a_machine_that_was_adopted_and_set_back_can_be_decided_again(
    hub: HubProcess, original: Machine, decision: str
) -> None:
    clone, offer = approved(hub, original)
    made = clone.copy(vm_id=str(uuid4()))
    assert made.enrol_as(offer).status_code == 200
    twin = str(twin_of(hub, original)["id"])
    assert "settled: it is adopted" in hub.run("twins", decision, twin, check=False).stderr
    with beating(original) as statuses:
        assert told(clone.ask(hostname="copied")) == (403, "quarantined", "clone"), "the word was about what was then"
        assert refused(clone.checkin()) == (409, "identity_conflict"), "it does not return by itself"
    assert set(statuses) == {200}
    assert [twin_of(hub, original)[name] for name in ("state", "decision", "became")] == ["open", None, None]
    assert f"became {made.resource_id}" in hub.run("twins", "show", twin).stdout
    hub.run("twins", decision, twin)
    with beating(original):
        answer = clone.ask(hostname="copied")
    assert answer.status_code == (200 if decision == "release" else 409)
    assert bool(answer.json().get("enrolment")) is (decision == "adopt")
    assert made.checkin().status_code == 200

# SPDX-License-Identifier: Apache-2.0
"""What a profile or an operator makes of a twin instead of the default (docs/protocol.md sections 14.3 and 14.4)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.integration.hub_machine import Machine, beating
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

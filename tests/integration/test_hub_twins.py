# SPDX-License-Identifier: Apache-2.0
"""Twins of a connected machine against a real hub: who is told what, and who is left alone (docs/protocol.md 14)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.integration import hub_process
from tests.integration.hub_machine import Machine, beating, make_csr, make_key, vector
from tests.integration.hub_process import HubProcess

HERE = vector(machine_id="m1", dmi_uuid="u1", dmi_serial="s1", disk_id="d1")
ELSEWHERE = vector(machine_id="m1", dmi_uuid="u2", dmi_serial="s2", disk_id="d1")
MOVED_DISK = vector(machine_id="m1", dmi_uuid="u1", dmi_serial="s1", disk_id="d2")
NEW_MACHINE_ID = vector(machine_id="m2", dmi_uuid="u1", dmi_serial="s1", disk_id="d1")


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> str:
    return hub.token(hub.principal("owner", "Owner"))


@pytest.fixture
def original(hub: HubProcess, owner: str) -> Machine:
    name = f"web-{uuid4().hex[:8]}"
    return Machine(hub, name, evidence=HERE, boot="boot-original").connect(owner)


def told(answer: requests.Response) -> tuple[int, str, Any]:
    body = answer.json()
    return answer.status_code, body["error"]["code"], body.get("verdict")


def twins_of(hub: HubProcess, machine: Machine) -> list[tuple[Any, ...]]:
    return hub.rows(
        "SELECT t.verdict, t.outcome, t.state FROM twins t JOIN machines m ON m.id = t.machine_id "
        "WHERE m.vm_id = :vm_id ORDER BY t.id",
        vm_id=machine.vm_id,
    )


def silent(hub: HubProcess, machine: Machine, seconds: int = 1000) -> None:
    """The machine was not heard for so long; the hub reads its row anew."""
    hub.stop()
    hub.execute(
        "UPDATE heartbeats SET seen = seen - :seconds WHERE machine_id = "
        "(SELECT id FROM machines WHERE vm_id = :vm_id)",
        seconds=seconds,
        vm_id=machine.vm_id,
    )
    hub.start()


def test_a_copy_elsewhere_is_quarantined_and_the_original_goes_on(hub: HubProcess, original: Machine) -> None:
    clone = original.copy(evidence=ELSEWHERE, boot="boot-clone")
    with beating(original) as statuses:
        answer = clone.ask()
    assert told(answer) == (403, "quarantined", "clone")
    assert answer.json()["differs"] == ["dmi_uuid", "dmi_serial"]
    assert set(statuses) == {200}
    assert twins_of(hub, original) == [("clone", "quarantine", "open")]
    assert told(clone.checkin()) == (409, "identity_conflict", None), "its heartbeats are refused"
    assert original.checkin().status_code == 200


def test_a_perfect_copy_is_found_by_its_heartbeats(hub: HubProcess, original: Machine) -> None:
    clone = original.copy(boot="boot-clone")
    for _ in range(3):
        assert original.checkin().status_code == 200
        answer = clone.checkin()
    for _ in range(3):
        if answer.status_code == 409:
            break
        assert original.checkin().status_code == 200
        answer = clone.checkin()
    assert told(answer) == (409, "identity_conflict", None)
    assert twins_of(hub, original) == [("undecided", "quarantine", "open")]
    with beating(original) as statuses:
        assert told(clone.ask("identity_conflict")) == (403, "quarantined", "undecided")
    assert set(statuses) == {200}


def test_a_copy_that_beats_first_loses_to_the_older_boot(hub: HubProcess, original: Machine) -> None:
    assert original.checkin().status_code == 200
    clone = original.copy(boot="boot-clone")
    loser = None
    for _ in range(12):
        for holder in (clone, original):
            answer = holder.checkin()
            if answer.status_code == 409:
                loser = holder
                break
        if loser is not None:
            break
    assert loser is clone
    assert original.checkin().status_code == 200


def test_a_copy_that_differs_is_found_by_its_heartbeats_too(hub: HubProcess, original: Machine) -> None:
    """An agent too old to compare by itself."""
    clone = original.copy(evidence=ELSEWHERE, boot="boot-clone")
    loser = None
    for _ in range(12):
        for holder in (clone, original):
            if holder.checkin().status_code == 409:
                loser = holder
                break
        if loser is not None:
            break
    assert loser is clone
    assert twins_of(hub, original) == [("clone", "quarantine", "open")]
    assert original.checkin().status_code == 200


def test_two_holders_that_are_both_strange_are_both_quarantined(hub: HubProcess, original: Machine) -> None:
    one = original.copy(evidence=ELSEWHERE, boot="one")
    two = original.copy(evidence=vector(machine_id="m1", dmi_uuid="u3"), boot="two")
    answers = [holder.checkin() for _ in range(5) for holder in (one, two)]
    assert told(answers[-1]) == (403, "quarantined", None)
    assert told(one.checkin()) == (403, "quarantined", None)
    assert twins_of(hub, original) == [("suspect", "quarantine", "open")]


def renew(machine: Machine) -> requests.Response:
    """The next certificate, taken up if it is given."""
    key = make_key()
    body = {"protocol": 1, "requestId": str(uuid4()), "slot": machine.slot, "csr": make_csr(key)}
    answer = machine.post("renew", body)
    if answer.status_code == 200:
        machine.key, machine.slot = key, answer.json()["slot"]
        machine.identity = {**machine.identity, "certificate": answer.json()["certificate"]}
        assert machine.ask_token().status_code == 200
    return answer


def refused(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def forged(machine: Machine, **changes: Any) -> Machine:
    """A holder that says of its evidence whatever it likes."""
    return machine.copy(evidence={**ELSEWHERE, "digest": uuid4().hex * 2}, **changes)


def test_the_nonce_that_a_refused_clone_has_shown_is_worth_nothing(hub: HubProcess, original: Machine) -> None:
    """The original proves itself with one heartbeat: what the clone has is the nonce before the last one then."""
    clone = original.copy(evidence=ELSEWHERE, boot="boot-clone")
    beat = threading.Timer(1, lambda: original.checkin(hold=20))
    beat.start()
    assert told(clone.ask()) == (403, "quarantined", "clone")
    beat.join()
    wish = {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "resource": "https://vault.azure.net"}
    for answer in (clone.post("tokens", wish), clone.desired("resource"), clone.report("services", {})):
        assert refused(answer) == (409, "StaleLease")
    assert original.post("tokens", {**wish, "requestId": str(uuid4())}).status_code == 200


def test_only_the_main_branch_is_certified_for_settings(hub: HubProcess, original: Machine) -> None:
    """It ends nobody's credential, so a hint at another holder is no reason to wait."""
    clone = original.copy(boot="boot-clone")
    assert original.checkin().status_code == 200
    assert original.checkin().status_code == 200
    assert clone.checkin().status_code == 200
    wish = {"protocol": 1, "slot": 1, "settingsCsr": make_csr(make_key())}
    assert refused(clone.post("renew", {**wish, "requestId": str(uuid4())})) == (409, "StaleLease")
    assert refused(renew(original)) == (409, "StaleLease"), "a new credential waits"
    answer = original.post("renew", {**wish, "requestId": str(uuid4())})
    assert "settingsCertificate" in answer.json()


def test_a_quarantined_clone_gets_nothing_more(hub: HubProcess, original: Machine) -> None:
    clone = original.copy(evidence=ELSEWHERE, boot="boot-clone")
    with beating(original):
        assert told(clone.ask()) == (403, "quarantined", "clone")
    at_authority = clone.ask_token("https://management.azure.com")
    assert (at_authority.status_code, at_authority.json()["error"]) == (400, "invalid_resource")
    wish = {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "resource": "https://vault.azure.net"}
    for answer in (renew(clone), clone.post("tokens", wish), clone.desired("resource"), clone.report("services", {})):
        assert refused(answer) == (409, "StaleLease")
    assert refused(clone.checkin()) == (409, "identity_conflict")
    thief = forged(clone, boot="thief")
    for _ in range(6):
        assert original.checkin().status_code == 200
        thief.checkin()
    assert refused(thief.checkin()) == (409, "identity_conflict")
    assert original.post("tokens", {**wish, "requestId": str(uuid4())}).status_code == 200


def test_a_copy_that_renews_first_does_not_keep_the_identity(hub: HubProcess, original: Machine) -> None:
    clone = original.copy(evidence=ELSEWHERE, boot="boot-clone")
    assert clone.checkin().status_code == 200, "it woke up first, and holds the nonce that was given last"
    assert refused(renew(clone)) == (409, "StaleLease"), "the original may be between two heartbeats"
    for _ in range(6):
        assert original.checkin().status_code == 200
        if clone.checkin().status_code == 409:
            break
    assert refused(renew(clone)) == (409, "StaleLease")
    assert original.checkin().status_code == 200


def test_another_branch_does_not_end_the_credential_of_the_main_one(hub: HubProcess, original: Machine) -> None:
    before = original.copy()
    assert renew(original).status_code == 200
    taken = original.copy(nonce="AAAAAAAAAAAAAAAA")
    assert taken.checkin().status_code == 200, "an unknown nonce alone accuses nobody"
    assert before.checkin().status_code == 200, "and retires nobody's certificate"
    assert original.copy(nonce=before.nonce).checkin().status_code == 200
    assert before.ask_token().json()["suberror"] == "superseded"


def test_who_fits_takes_the_identity_back_from_a_living_stranger(hub: HubProcess, original: Machine) -> None:
    """A thief with a copied key that took over while the machine was off: its evidence is none that was recorded."""
    thief = forged(original, boot=None)
    assert [thief.checkin().status_code for _ in range(3)] == [200, 200, 200]
    with beating(thief) as statuses:
        answer = original.ask("identity_conflict")
    assert (answer.status_code, answer.json()["verdict"]) == (200, "rollback")
    assert statuses[-1] in (200, 409)
    assert refused(thief.checkin()) == (409, "identity_conflict")
    assert original.checkin().status_code == 200
    assert twins_of(hub, original) == [("clone", "quarantine", "open")]


def test_strangers_who_fight_do_not_take_the_owner_down(hub: HubProcess, original: Machine) -> None:
    one, two = forged(original, boot="one"), forged(original, boot="two")
    answers = [holder.checkin() for _ in range(5) for holder in (one, two)]
    assert told(answers[-1]) == (403, "quarantined", None)
    assert original.checkin().status_code == 200, "its evidence is the recorded one"
    assert original.checkin().status_code == 200
    wish = {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "resource": "https://vault.azure.net"}
    assert original.post("tokens", wish).status_code == 200
    assert original.ask().json()["verdict"] == "same"


def test_what_was_released_is_released_once(hub: HubProcess, original: Machine) -> None:
    def last_twin() -> str:
        return str(max(item["id"] for item in hub.json("twins") if item["vmId"] == original.vm_id))

    moved = original.copy(evidence=ELSEWHERE, boot="b2")
    with beating(original):
        assert told(moved.ask())[0] == 403
    hub.run("twins", "release", last_twin())
    assert moved.ask().status_code == 200
    silent(hub, original)
    back = moved.copy(evidence=HERE, boot="b3")
    assert told(back.ask())[2] == "moved"
    hub.run("twins", "release", last_twin())
    assert back.ask().json()["verdict"] == "moved"
    assert back.checkin().status_code == 200
    ghost = moved.copy(evidence=ELSEWHERE, boot="b4")
    with beating(back) as statuses:
        assert told(ghost.ask()) == (403, "quarantined", "clone"), "the word was about what was then"
    assert set(statuses) == {200}
    assert back.checkin().status_code == 200


def test_a_twin_does_not_report_itself_innocent(hub: HubProcess, original: Machine) -> None:
    clone = original.copy(evidence=MOVED_DISK, boot="boot-clone")
    for _ in range(12):
        if clone.checkin().status_code == 409:
            break
        assert original.checkin().status_code == 200
    assert twins_of(hub, original) == [("clone", "quarantine", "open")]
    assert refused(clone.report("evidence", {"items": MOVED_DISK["items"]})) == (409, "StaleLease")
    assert twins_of(hub, original) == [("clone", "quarantine", "open")]
    assert refused(clone.checkin()) == (409, "identity_conflict")


def test_a_verdict_stands_where_no_name_can_be_offered(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, f"web-{uuid4().hex[:8]}", evidence=HERE, boot="boot-original").connect(owner)
    hub.run("profiles", "set", "default", "--clones", "adopt")
    clone = machine.copy(evidence=ELSEWHERE, boot="boot-clone")
    try:
        with beating(machine):
            assert told(clone.ask())[1] == "identity_conflict"
        hub.run("principal", "revoke", "hawser-hub enrolment")
        other = machine.copy(evidence=vector(machine_id="m1", dmi_uuid="u7"), boot="boot-other")
        with beating(machine):
            assert told(other.ask()) == (403, "quarantined", "clone")
    finally:
        hub.run("profiles", "set", "default", "--clones", "quarantine")
    assert twins_of(hub, machine)[-1] == ("clone", "quarantine", "open")
    assert refused(other.checkin()) == (409, "identity_conflict")


def test_a_copy_with_its_memory_does_not_stop_the_original(hub: HubProcess, original: Machine) -> None:
    """Both have one boot: what is held against the copy must not be held against the machine."""
    clone = original.copy(name="copy")
    with beating(original) as statuses:
        assert told(clone.ask()) == (403, "quarantined", "undecided")
    assert set(statuses) == {200}
    assert original.checkin().status_code == 200


@pytest.mark.parametrize("evidence", [HERE, MOVED_DISK, NEW_MACHINE_ID, vector(machine_id="m1")])
def test_the_machine_itself_goes_on(hub: HubProcess, original: Machine, evidence: dict[str, Any]) -> None:
    """Nothing that happens to one machine is held against it: another disk, another machine-id, a BIOS that cannot be
    read this time."""
    original.evidence = evidence
    answer = original.ask()
    assert (answer.status_code, answer.json()["verdict"]) == (200, "same")
    for _ in range(4):
        assert original.checkin().status_code == 200
    assert twins_of(hub, original) == []


def test_moved_to_other_hardware_is_asked_about_once_the_old_one_is_silent(hub: HubProcess, original: Machine) -> None:
    original.evidence = ELSEWHERE
    answer = original.ask()
    assert told(answer) == (409, "identity_conflict", "undecided")
    assert 800 < answer.json()["retryAfter"] <= 900
    silent(hub, original)
    assert told(original.ask()) == (403, "quarantined", "moved")
    (twin,) = [item for item in hub.json("twins") if item["vmId"] == original.vm_id]
    hub.run("twins", "release", str(twin["id"]))
    assert original.ask().json()["verdict"] == "moved"
    assert original.checkin().status_code == 200
    assert original.ask().json()["verdict"] == "same", "the new hardware is the recorded one"


def test_a_machine_set_back_gets_a_new_certificate(hub: HubProcess, original: Machine) -> None:
    """A snapshot from before a renewal, restored in its place."""
    snapshot = original.copy()
    assert renew(original).status_code == 200
    assert original.checkin().status_code == 200
    superseded = snapshot.ask_token()
    assert (superseded.status_code, superseded.json()["suberror"]) == (401, "superseded")
    key = make_key()
    assert told(snapshot.ask("superseded", csr=make_csr(key)))[2] == "undecided", "the other may be between heartbeats"
    silent(hub, original)
    answer = snapshot.ask("superseded", csr=make_csr(key))
    assert (answer.status_code, answer.json()["verdict"], answer.json()["slot"]) == (200, "rollback", 3)
    snapshot.identity = {**snapshot.identity, "certificate": answer.json()["certificate"]}
    snapshot.key, snapshot.slot = key, 3
    assert snapshot.ask_token().status_code == 200
    assert snapshot.checkin().status_code == 200
    assert twins_of(hub, original) == []


def test_a_retired_credential_steals_nothing_while_the_original_runs(hub: HubProcess, original: Machine) -> None:
    stolen = original.copy(boot="thief")
    assert renew(original).status_code == 200
    assert original.checkin().status_code == 200
    with beating(original) as statuses:
        answer = stolen.ask("superseded", csr=make_csr(make_key()))
    assert told(answer) == (403, "quarantined", "undecided")
    assert "certificate" not in answer.json()
    assert set(statuses) == {200}
    token = stolen.ask_token()
    assert (token.status_code, token.json()["suberror"]) == (401, "superseded")


def test_a_forged_instance_id_neither_wipes_nor_steals(hub: HubProcess, owner: str) -> None:
    at_home = vector(machine_id="m1", dmi_uuid="u1", cloud_instance_id="i-1")
    forged = vector(machine_id="m1", dmi_uuid="u1", cloud_instance_id="i-forged")
    machine = Machine(hub, f"cloud-{uuid4().hex[:6]}", evidence=at_home).connect(owner)
    machine.evidence = forged
    assert machine.ask().json()["verdict"] == "same"
    thief = machine.copy(evidence=vector(machine_id="m9", cloud_instance_id="i-forged"), boot="thief")
    with beating(machine) as statuses:
        assert told(thief.ask())[0] == 403
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda machine: {"assertion": machine.assertion()},
        lambda machine: {"assertion": machine.assertion(aud="https://elsewhere.example/channel/v1/identity")},
        lambda machine: {"assertion": machine.copy(key=make_key()).question()["assertion"]},
        lambda machine: {"assertion": machine.assertion(aud=f"{machine.hub.url}/channel/v1/identity", exp=1)},
        lambda machine: {"assertion": machine.assertion(aud=f"{machine.hub.url}/channel/v1/identity", sub="x")},
        lambda _: {"assertion": "a.b.c"},
    ],
)
def test_only_the_identitys_own_key_asks(
    hub: HubProcess, original: Machine, spoil: Callable[[Machine], dict[str, Any]]
) -> None:
    answer = original.ask(**spoil(original))
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")
    assert "verdict" not in answer.json()


def test_a_deleted_machine_is_told_so(hub: HubProcess, original: Machine, owner: str) -> None:
    assert original.http.delete(
        f"{hub.url}{original.resource_id}",
        params={"api-version": "2026-07-15"},
        headers={"Authorization": f"Bearer {owner}"},
        timeout=30,
    ).ok
    answer = original.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound")


@pytest.mark.parametrize(
    "changes",
    [{"slot": 0}, {"reason": "x"}, {"nonce": 7}, {"evidence": {"digest": "0" * 64, "items": []}}, {"imageId": "../x"}],
)
def test_a_bad_question_is_refused(original: Machine, changes: dict[str, Any]) -> None:
    answer = original.ask(**changes)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidRequestContent")


def test_reported_evidence_becomes_what_is_recorded(hub: HubProcess, original: Machine) -> None:
    def recorded() -> Any:
        return hub.rows("SELECT evidence FROM machines WHERE vm_id = :vm_id", vm_id=original.vm_id)[0][0]

    assert original.report("evidence", {"items": MOVED_DISK["items"]}).status_code == 200
    assert MOVED_DISK["digest"] in str(recorded())
    assert original.report("evidence", {"items": ELSEWHERE["items"]}).status_code == 200
    assert ELSEWHERE["digest"] not in str(recorded()), "a strong difference is asked about, never reported away"
    assert original.report("evidence", {"items": "x"}).status_code == 400


def test_a_killed_hub_accuses_nobody(tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data").start()
    owner = hub.token(hub.principal("owner", "Owner"))
    machines = [Machine(hub, f"k{number}", evidence=HERE, boot=f"b{number}").connect(owner) for number in range(5)]
    for _ in range(3):
        for machine in machines:
            assert machine.checkin().status_code == 200
        hub.stop(9)
        hub.start()
        for machine in machines:
            assert [machine.checkin().status_code for _ in range(4)] == [200] * 4
    assert hub.rows("SELECT count(*) FROM twins") == [(0,)]
    assert hub.stop() == 0

# SPDX-License-Identifier: Apache-2.0
"""The channel of a real hub process, against docs/protocol.md sections 4 to 9."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from jsonschema import Draft7Validator

from tests.integration import hub_process
from tests.integration.hub_machine import API, KINDS, Machine, make_csr, make_key, payload_of, ticket
from tests.integration.hub_process import REPOSITORY, HubProcess


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub()


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> str:
    return hub.token(hub.principal("owner", "Owner"))


@pytest.fixture(scope="module")
def onboarding(hub: HubProcess) -> str:
    return hub.token(hub.principal("onboarding", "Onboarding"))


def _arm(hub: HubProcess, token: str, method: str, path: str, **options: Any) -> Any:
    return hub.session().request(
        method, f"{hub.url}{path}", params=API, headers={"Authorization": f"Bearer {token}"}, timeout=30, **options
    )


def _code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_connect_with_a_ticket_from_an_onboarding_role(hub: HubProcess, onboarding: str, owner: str) -> None:
    machine = Machine(hub, "Web01", group="Made-Here")
    made = ticket(hub, onboarding, ("connect", machine.resource_id))
    assert made.status_code == 201
    token = made.json()["accessToken"]
    assert machine.put(token, create_group=False).status_code == 404
    machine.connect(token, tags={"env": "demo"})
    shown = _arm(hub, owner, "GET", machine.resource_id.lower()).json()
    assert shown["name"] == "Web01"
    assert shown["properties"]["status"] == "Connected"
    assert shown["tags"] == {"env": "demo"}
    assert shown["identity"]["principalId"] == machine.identity["principalId"]
    assert _code(machine.enrol(token)) == (403, "TicketSpent")
    fleet = hub.session().get(
        f"{hub.url}/hawser/v1/machines",
        params={"subscriptionId": hub.subscription_id, "name": "WEB01"},
        headers={"Authorization": f"Bearer {owner}"},
        timeout=30,
    )
    (row,) = fleet.json()["value"]
    assert (row["status"], row["address"], row["agentVersion"]) == ("Connected", "127.0.0.1", "1.0.0.1")


def test_a_ticket_is_good_for_its_resource_and_operation_alone(hub: HubProcess, onboarding: str, owner: str) -> None:
    mine, other = Machine(hub, "mine"), Machine(hub, "other")
    token = ticket(hub, onboarding, ("connect", mine.resource_id)).json()["accessToken"]
    assert _code(other.put(token)) == (403, "AuthorizationFailed")
    assert mine.put(token).status_code == 200
    assert _code(_arm(hub, token, "PATCH", mine.resource_id, json={"tags": {}})) == (403, "AuthorizationFailed")
    assert _code(_arm(hub, token, "GET", f"/subscriptions/{hub.subscription_id}")) == (403, "AuthorizationFailed")
    assert _code(ticket(hub, onboarding, ("delete", mine.resource_id))) == (403, "AuthorizationFailed")
    assert _code(ticket(hub, token, ("connect", mine.resource_id))) == (401, "InvalidAuthenticationToken")
    assert _arm(hub, token, "DELETE", mine.resource_id).status_code == 204
    update = ticket(hub, owner, ("update", other.resource_id), ("delete", other.resource_id)).json()["accessToken"]
    other.connect(owner)
    assert _arm(hub, update, "PATCH", other.resource_id, json={"tags": {"a": "b"}}).status_code == 200
    refused = _arm(hub, update, "PATCH", other.resource_id, json={"kind": "AWS"})
    assert _code(refused) == (403, "AuthorizationFailed")
    assert _arm(hub, update, "DELETE", other.resource_id).status_code == 204


def test_a_failed_connect_is_undone_with_the_same_ticket(hub: HubProcess, onboarding: str, owner: str) -> None:
    machine = Machine(hub, "halfway", group="only-for-this")
    token = ticket(hub, onboarding, ("connect", machine.resource_id)).json()["accessToken"]
    assert machine.put(token).status_code == 200
    assert machine.enrol(token).status_code == 200
    assert _arm(hub, token, "DELETE", machine.resource_id).status_code == 204
    group = f"/subscriptions/{hub.subscription_id}/resourceGroups/only-for-this"
    assert _code(_arm(hub, owner, "GET", group)) == (404, "ResourceGroupNotFound")


def test_what_has_connected_is_not_undone(hub: HubProcess, onboarding: str) -> None:
    machine = Machine(hub, "connected")
    token = ticket(hub, onboarding, ("connect", machine.resource_id)).json()["accessToken"]
    machine.connect(token)
    assert _code(_arm(hub, token, "DELETE", machine.resource_id)) == (403, "AuthorizationFailed")
    assert machine.checkin().status_code == 200


def test_a_machine_that_was_made_for_it_is_connected_and_stays(hub: HubProcess, owner: str, onboarding: str) -> None:
    """Also when the connect was cut off after it had enrolled, and goes on with another ticket."""
    machine = Machine(hub, "pre-created")
    group = f"/subscriptions/{hub.subscription_id}/resourceGroups/fleet"
    assert _arm(hub, owner, "PUT", group, json={"location": "local"}).status_code in (200, 201)
    body = {"location": "local", "tags": {"owner": "dba"}}
    assert _arm(hub, owner, "PUT", machine.resource_id, json=body).status_code == 200
    wish = ("connect", machine.resource_id)
    for token in [ticket(hub, onboarding, wish).json()["accessToken"] for _ in range(2)]:
        assert machine.put(token).json()["tags"] == {"owner": "dba"}
        assert machine.enrol(token).status_code == 200
        assert _code(_arm(hub, token, "DELETE", machine.resource_id)) == (403, "AuthorizationFailed")
    machine.ask_token()
    assert machine.checkin().status_code == 200
    assert _arm(hub, owner, "GET", machine.resource_id).json()["properties"]["status"] == "Connected"


def test_another_key_or_vm_id_is_a_conflict(hub: HubProcess, owner: str, onboarding: str) -> None:
    machine = Machine(hub, "taken").connect(owner)
    assert machine.put(owner).status_code == 200
    for other in (Machine(hub, "taken", key=make_key()), Machine(hub, "TAKEN", vm_id=machine.vm_id)):
        for token in (owner, onboarding):
            assert _code(other.put(token)) == (409, "Conflict")
        assert _code(other.enrol(owner)) == (409, "Conflict")
    assert machine.checkin().status_code == 200


def test_enrol_is_idempotent_by_request_id_and_checks_the_key(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "again")
    assert machine.put(owner).status_code == 200
    foreign = machine.enrol(owner, csr=make_csr(make_key()))
    assert _code(foreign) == (400, "InvalidRequestContent")
    request_id = str(uuid4())
    first = machine.enrol(owner, request_id).json()
    second = machine.enrol(owner, request_id).json()
    assert {**first, "serverTime": ""} == {**second, "serverTime": ""}
    assert _code(machine.enrol(owner, evidence={"digest": "0" * 64, "items": []})) == (400, "InvalidRequestContent")
    assert _code(machine.enrol(owner, protocol=2)) == (400, "ProtocolUnsupported")


def test_lost_answers_and_unknown_nonces_accuse_nobody(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "lossy").connect(owner)
    request_id = str(uuid4())
    first, second = (machine.checkin(requestId=request_id).json() for _ in range(2))
    assert first["nonce"] == second["nonce"]
    before = machine.nonce
    assert machine.checkin().json()["nonce"] != before
    lost = machine.nonce
    for _ in range(3):
        machine.nonce = before
        assert machine.checkin().json()["nonce"] not in (before, lost), "a branch of its own"
    for _ in range(3):
        assert machine.checkin().status_code == 200
    machine.nonce = "something-else"
    for _ in range(4):
        assert machine.checkin().status_code == 200
    assert hub.rows("SELECT count(*) FROM twins") == [(0,)]


def test_a_held_checkin_is_woken_by_a_patch_of_tags(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "held").connect(owner)
    woken: list[tuple[float, dict[str, Any]]] = []

    def hold() -> None:
        answer = machine.checkin(hold=60)
        woken.append((time.monotonic(), answer.json()))

    before = dict(machine.generations)
    thread = threading.Thread(target=hold)
    thread.start()
    time.sleep(0.5)
    assert not woken
    assert _arm(hub, owner, "PATCH", machine.resource_id, json={"tags": {"env": "prod"}}).status_code == 200
    thread.join(20)
    assert woken, "the hold was not answered"
    assert woken[0][1]["generations"] == {**before, "resource": before["resource"] + 1}
    document = machine.desired("resource").json()
    assert document["generation"] == before["resource"] + 1
    assert payload_of(document["document"])["content"]["tags"] == {"env": "prod"}


def test_the_head_and_a_blank_come_before_the_hold(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "early").connect(owner)
    body = {
        "protocol": 1,
        "requestId": str(uuid4()),
        "slot": machine.slot,
        "epoch": machine.epoch,
        "nonce": machine.nonce,
        "evidenceDigest": "0" * 64,
        "agentVersion": "1.0.0.1",
        "holdSeconds": 30,
        "generations": machine.generations,
    }
    with machine.http.post(
        f"{hub.url}/channel/v1/checkin",
        json=body,
        headers={"Authorization": f"Bearer {machine.channel_token}"},
        stream=True,
        timeout=10,
    ) as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert next(answer.iter_content(1)) == b" "
        shown = _arm(hub, owner, "GET", machine.resource_id).json()
        assert shown["properties"]["status"] == "Connected"


def test_desired_documents_are_signed_for_this_machine(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "signed").connect(owner)
    profile = hub.run("cloud-profile").stdout
    (jwk,) = json.loads(profile)["desired_state_keys"]
    key = jwt.PyJWK({**jwk, "alg": "EdDSA"}).key
    schema = json.loads((REPOSITORY / "docs/schemas/desired-document.schema.json").read_text())
    for kind in KINDS:
        answer = machine.desired(kind)
        if machine.generations[kind] == 0:
            assert _code(answer) == (404, "DesiredStateNotFound")
            continue
        told = answer.json()
        header = jwt.get_unverified_header(told["document"])
        assert (header["alg"], header["kid"], header["typ"]) == ("EdDSA", jwk["kid"], "hawser-desired")
        payload = jwt.decode(told["document"], key, algorithms=["EdDSA"])
        Draft7Validator(schema).validate(payload)
        assert (payload["machine"], payload["kind"]) == (machine.vm_id, kind)
        assert payload["exp"] - payload["iat"] == 14 * 86400
    wish = {"properties": {"agentUpgrade": {"enableAutomaticUpgrade": True}}}
    assert _arm(hub, owner, "PATCH", machine.resource_id, json=wish).status_code == 200
    assert machine.checkin(hold=60).json()["generations"]["agent"] == 1
    content = payload_of(machine.desired("agent").json()["document"])["content"]
    nothing = {"desiredVersion": None, "correlationId": None}
    assert content == {**nothing, "enableAutomaticUpgrade": True, "deadlineSeconds": 600}


def test_renewal_retires_the_old_slot_at_first_use_of_the_new(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "renewing").connect(owner)
    old_token, old_key, old_certificate = machine.channel_token, machine.key, machine.identity["certificate"]
    new_key = make_key()
    request = {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "csr": make_csr(new_key)}
    answer = machine.post("renew", request)
    assert (answer.status_code, answer.json()["slot"]) == (200, 2)
    assert machine.post("renew", request).json()["certificate"] == answer.json()["certificate"]
    assert machine.checkin().status_code == 200, "the old slot serves until the new one is used"
    reused = machine.post("renew", {**request, "requestId": str(uuid4()), "csr": make_csr(old_key)})
    assert _code(reused) == (400, "InvalidRequestContent")
    machine.key, machine.slot = new_key, 2
    machine.identity["certificate"] = answer.json()["certificate"]
    assert machine.ask_token().status_code == 200
    nonce = machine.nonce
    assert machine.checkin().status_code == 200
    assert machine.nonce != nonce
    machine.channel_token, machine.slot = old_token, 1
    assert _code(machine.checkin()) == (401, "superseded")
    machine.key, machine.identity["certificate"] = old_key, old_certificate
    refused = machine.ask_token()
    assert (refused.status_code, refused.json()["error"], refused.json()["suberror"]) == (
        401,
        "invalid_client",
        "superseded",
    )


def test_application_tokens_of_a_machine(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "tokens").connect(owner)
    request = {"protocol": 1, "requestId": str(uuid4()), "slot": machine.slot, "resource": "https://vault.azure.net/"}
    told = machine.post("tokens", request).json()
    keys = jwt.PyJWKSet(hub.session().get(f"{hub.url}/{hub.tenant_id}/discovery/v2.0/keys", timeout=30).json()["keys"])
    claims = jwt.decode(
        told["access_token"],
        keys[jwt.get_unverified_header(told["access_token"])["kid"]].key,
        algorithms=["RS256"],
        audience="https://vault.azure.net/",
        issuer=f"{hub.url}/{hub.tenant_id}/",
    )
    assert claims["xms_mirid"] == machine.resource_id.replace("resourceGroups", "resourcegroups")
    assert (claims["idtyp"], claims["oid"], claims["ver"]) == ("app", machine.identity["principalId"], "1.0")
    assert claims["exp"] - claims["nbf"] == told["expires_in"] == 86400
    assert _code(machine.post("tokens", {**request, "resource": "https://unknown.example"})) == (400, "InvalidResource")
    arm = machine.post("tokens", {**request, "resource": hub.url}).json()["access_token"]
    assert _code(_arm(hub, arm, "GET", machine.resource_id)) == (403, "AuthorizationFailed")


def test_reports_fill_the_resource_and_survive_a_put_of_the_whole(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "reporting").connect(owner)
    inventory = {
        "osType": "linux",
        "osName": "debian",
        "osVersion": "12",
        "computerName": "reporting",
        "domainName": None,
        "manufacturer": "ACME",
        "detectedProperties": {"logicalCoreCount": "2"},
        "networkProfile": {
            "networkInterfaces": [
                {
                    "name": "eth0",
                    "ipAddresses": [{"address": "10.0.0.5"}, {"address": "x"}],
                },
                {"name": "lo", "ipAddresses": None},
            ]
        },
    }
    assert machine.report("inventory", inventory).status_code == 200
    configuration = {"incomingConnectionsPorts": ["22"], "configMode": "full"}
    assert machine.report("configuration", configuration).status_code == 200
    before = _arm(hub, owner, "GET", machine.resource_id).json()
    shown = before["properties"]
    assert shown["detectedProperties"] == {"manufacturer": "ACME", "logicalCoreCount": "2"}
    assert [len(item["ipAddresses"]) for item in shown["networkProfile"]["networkInterfaces"]] == [1, 0]
    assert shown["agentConfiguration"]["configMode"] == "full"
    again = _arm(hub, owner, "PUT", machine.resource_id, json={**before, "tags": {"x": "y"}})
    assert again.status_code == 200
    after = again.json()
    assert after["properties"] | {"lastStatusChange": ""} == shown | {"lastStatusChange": ""}
    assert after["tags"] == {"x": "y"}
    assert _code(machine.report("inventory", {"osName": 7})) == (400, "InvalidRequestContent")


def test_a_deleted_machine_is_told_so(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "gone").connect(owner)
    assert _arm(hub, owner, "DELETE", machine.resource_id).status_code == 204
    assert _code(machine.checkin()) == (404, "ResourceNotFound")
    assert machine.ask_token().json()["error_codes"] == [700016]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "InvalidRequestContent"),
        (b"[]", 400, "InvalidRequestContent"),
        (b"[" * 100_000, 413, "RequestEntityTooLarge"),
        (b"[" * 50_000, 400, "InvalidRequestContent"),
        (b'{"protocol": 2}', 400, "ProtocolUnsupported"),
        (b'{"protocol": 1, "requestId": "no"}', 400, "InvalidRequestContent"),
        (b'{"protocol": true}', 400, "InvalidRequestContent"),
        (b'{"protocol": 1e400}', 400, "InvalidRequestContent"),
        (b"\xff\xfe", 400, "InvalidRequestContent"),
    ],
)
@pytest.mark.parametrize("path", ["checkin", "enrol", "tokens", "renew"])
def test_bad_bodies(hub: HubProcess, owner: str, path: str, body: bytes, status: int, code: str) -> None:
    answer = hub.session().post(
        f"{hub.url}/channel/v1/{path}", data=body, headers={"Authorization": f"Bearer {owner}"}, timeout=30
    )
    assert _code(answer) == (status, code)


def test_kill_raises_the_epoch_and_accuses_nobody(tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data").start()
    try:
        owner = hub.token(hub.principal("owner", "Owner"))
        machine = Machine(hub, "survivor").connect(owner)
        first = machine.epoch
        assert machine.checkin().status_code == 200
        hub.stop(signal.SIGKILL)
        hub.start()
        machine.http.close()
        assert machine.checkin().status_code == 200
        assert machine.epoch == first + 1
        held: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: held.append(machine.checkin(hold=60).json()))
        thread.start()
        time.sleep(0.5)
        assert hub.stop() == 0
        thread.join(20)
        assert held, "a held check-in is answered when the hub stops"
        hub.start()
        assert machine.checkin().json()["epoch"] == first + 1, "a clean stop does not raise the epoch"
    finally:
        hub.stop()


def test_two_holders_do_not_chase_each_other_and_holds_are_few(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "twins").connect(owner)
    answered: list[int] = []

    def hold(number: int) -> None:
        copy = Machine(hub, "twins", key=machine.key, vm_id=machine.vm_id, identity=machine.identity)
        copy.slot, copy.epoch, copy.nonce = machine.slot, machine.epoch, machine.nonce
        copy.channel_token, copy.generations = machine.channel_token, dict(machine.generations)
        if copy.checkin(hold=60).status_code == 200:
            answered.append(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    assert len(answered) == 1, "the oldest of five is answered, four are held"
    assert _arm(hub, owner, "PATCH", machine.resource_id, json={"tags": {"a": "b"}}).status_code == 200
    for thread in threads:
        thread.join(20)
    assert len(answered) == 5


def test_writes_and_refusals_are_audited(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "audited").connect(owner)
    reader = hub.principal("audit-reader", "Reader")
    token = hub.token(reader)
    assert _arm(hub, token, "DELETE", machine.resource_id).status_code == 403
    assert ticket(hub, token, ("delete", machine.resource_id)).status_code == 403
    assert _code(machine.enrol(token)) == (403, "AuthorizationFailed")
    rows = hub.rows(
        "SELECT actor, outcome, code FROM audit WHERE target = :target ORDER BY id", target=machine.resource_id
    )
    refused = (reader["clientId"], "Refused", "AuthorizationFailed")
    assert rows[-3:] == [refused] * 3
    assert [row[1] for row in rows[:-3]] == ["Succeeded"] * 2


def test_the_page_and_odd_requests(hub: HubProcess) -> None:
    http = hub.session()
    assert "hawser hub" in http.get(hub.url, timeout=30).text
    for method, path in (
        ("OPTIONS", "/subscriptions"),
        ("BREW", "/"),
        ("GET", "/channel/v1/checkin"),
        ("GET", "/channel/v1/nothing"),
        ("GET", "/%0a/x"),
    ):
        answer = http.request(method, f"{hub.url}{path}", timeout=30)
        assert answer.status_code < 500
    assert _code(http.get(f"{hub.url}/hawser/v1/nothing", timeout=30)) == (404, "NotFound")

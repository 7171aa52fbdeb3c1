# SPDX-License-Identifier: Apache-2.0
"""Profiles, enrolment tokens, images and decisions about twins, by the API and the command line of a real hub
(docs/protocol.md section 14.4)."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
import requests

from tests.integration.hub_machine import Machine, beating, vector
from tests.integration.hub_process import REPOSITORY, HubProcess

SCHEMAS = REPOSITORY / "docs" / "schemas"
HERE = vector(machine_id="m1", dmi_uuid="u1", dmi_serial="s1")
Ask = Callable[..., requests.Response]


def elsewhere(number: int) -> dict[str, Any]:
    return vector(machine_id="m1", dmi_uuid=f"copy-{number}", dmi_serial=f"copy-{number}")


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> str:
    return hub.token(hub.principal("owner", "Owner"))


@pytest.fixture(scope="module")
def ask(hub: HubProcess, owner: str) -> Ask:
    session = hub.session()
    session.headers["Authorization"] = f"Bearer {owner}"

    def call(method: str, path: str, body: Any = None, schema: str | None = None) -> requests.Response:
        answer = session.request(method, f"{hub.url}/hawser/v1{path}", json=body, timeout=30)
        if schema is not None and answer.status_code < 300:
            jsonschema.validate(answer.json(), json.loads((SCHEMAS / f"{schema}.schema.json").read_text()))
        return answer

    return call


@pytest.fixture
def profile(hub: HubProcess, owner: str, ask: Ask) -> str:
    """A profile of its own whose machines join group `fleet`."""
    Machine(hub, f"first-{uuid4().hex[:8]}").connect(owner)  # makes the group
    name = f"p-{uuid4().hex[:8]}"
    body = {"subscriptionId": hub.subscription_id, "resourceGroup": "fleet", "location": "local", "tags": {"by": name}}
    assert ask("PUT", f"/profiles/{name}", body, "profile-shown").status_code == 201
    return name


def made_token(ask: Ask, profile: str, **wish: Any) -> dict[str, Any]:
    answer = ask("POST", f"/profiles/{profile}/tokens", {"uses": 10, "days": 1, **wish}, "enrolment-token-made")
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def joined(hub: HubProcess, name: str, token: str, number: int, **changes: Any) -> Machine:
    machine = Machine(hub, name, evidence=elsewhere(number))
    answer = machine.join(token, **changes)
    assert answer.status_code == 200, answer.text
    assert machine.enrol_as(answer.json(), imageId=changes.get("imageId", "web-1")).status_code == 200
    return machine


def code(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_profile_is_made_changed_and_taken_away(ask: Ask, profile: str) -> None:
    shown = ask("GET", f"/profiles/{profile}", schema="profile-shown").json()
    assert (shown["clones"], shown["moved"], shown["nameTemplate"]) == (None, "ask", "{hostname}")
    changed = ask("PUT", f"/profiles/{profile}", {"clones": "reject"}, "profile-shown")
    assert (changed.status_code, changed.json()["clones"]) == (200, "reject")
    assert changed.json()["resourceGroup"] is None, "a PUT sets everything"
    names = [item["name"] for item in ask("GET", "/profiles", schema="profiles").json()["value"]]
    assert "default" in names
    assert profile in names
    assert ask("DELETE", f"/profiles/{profile}", schema="profile-shown").status_code == 200
    assert ask("DELETE", f"/profiles/{profile}").status_code == 204
    assert code(ask("GET", f"/profiles/{profile}")) == (404, "ResourceNotFound")


@pytest.mark.parametrize(
    "body",
    [
        {"clones": "perhaps"},
        {"moved": 1},
        {"nameTemplate": "{host}"},
        {"nameTemplate": "no-field"},
        {"resourceGroup": "fleet"},
        {"tags": {"a": 1}},
        {"contact": "two\nlines"},
        {"surprise": 1},
    ],
)
def test_a_profile_that_cannot_be_is_refused(ask: Ask, body: dict[str, Any]) -> None:
    assert ask("PUT", "/profiles/never", body).status_code == 400
    assert ask("GET", "/profiles/never").status_code == 404


def test_a_token_lets_as_many_in_as_it_says(hub: HubProcess, ask: Ask, profile: str) -> None:
    made = made_token(ask, profile, uses=2)
    machine = joined(hub, "web", made["token"], 1)
    assert machine.name == "web"
    again = Machine(hub, "web", vm_id=machine.vm_id, evidence=elsewhere(1))
    assert again.join(made["token"]).status_code == 200, "the same machine once more is counted once"
    second = joined(hub, "web", made["token"], 2)
    assert second.name.startswith("web-")
    assert code(Machine(hub, "web", evidence=elsewhere(3)).join(made["token"])) == (403, "EnrolmentTokenSpent")
    (row,) = ask("GET", f"/profiles/{profile}/tokens", schema="enrolment-tokens").json()["value"]
    assert (row["used"], row["uses"], "token" in row) == (2, 2, False)
    tags = hub.rows("SELECT tags FROM machines WHERE vm_id = :vm_id", vm_id=machine.vm_id)
    assert profile in str(tags)


def test_a_token_of_many_uses_is_not_spent_beyond_them_by_a_crowd(hub: HubProcess, ask: Ask, profile: str) -> None:
    made = made_token(ask, profile, uses=3)

    def come(number: int) -> int:
        machine = Machine(hub, "crowd", evidence=elsewhere(number))
        answer = machine.join(made["token"])
        return machine.enrol_as(answer.json(), imageId="web-1").status_code if answer.ok else answer.status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(come, range(8)))
    assert statuses[:3] == [200] * 3
    assert set(statuses[3:]) <= {403, 429}, "spent, or kept for those who are joining"
    assert come(9) == 403


def test_a_token_is_for_its_image_and_ends_when_revoked(hub: HubProcess, ask: Ask, profile: str) -> None:
    made = made_token(ask, profile, imageId="web-2")
    wrong = Machine(hub, "db", evidence=elsewhere(1))
    assert code(wrong.join(made["token"], imageId="web-1")) == (403, "EnrolmentTokenSpent")
    assert code(wrong.join(made["token"], imageId=None)) == (403, "EnrolmentTokenSpent")
    joined(hub, "db", made["token"], 1, imageId="web-2")
    path = f"/profiles/{profile}/tokens/{made['id']}"
    revoked = ask("DELETE", path, schema="enrolment-token")
    assert (revoked.status_code, revoked.json()["revoked"] is None) == (200, False)
    assert ask("DELETE", f"{path[:-1]}{'0' if path[-1] != '0' else '1'}").status_code == 204
    assert code(wrong.join(made["token"], imageId="web-2")) == (401, "InvalidEnrolmentToken")
    assert code(wrong.join("hwe_nonsense")) == (401, "InvalidEnrolmentToken")


@pytest.mark.parametrize("wish", [{"uses": 0}, {"uses": 100_001}, {"days": 91}, {"uses": True}, {"imageId": ""}])
def test_a_token_that_cannot_be_is_refused(ask: Ask, profile: str, wish: dict[str, Any]) -> None:
    answer = ask("POST", f"/profiles/{profile}/tokens", {"uses": 1, "days": 1, **wish})
    assert answer.status_code == 400, answer.text
    assert ask("GET", f"/profiles/{profile}/tokens").json()["value"] == []


def test_images_say_what_came_from_them(hub: HubProcess, ask: Ask, profile: str) -> None:
    image = f"img-{uuid4().hex[:8]}"
    made = made_token(ask, profile, imageId=image)
    machines = [joined(hub, "lineage", made["token"], number, imageId=image) for number in range(3)]
    (row,) = [item for item in ask("GET", "/images", schema="images").json()["value"] if item["imageId"] == image]
    assert (row["machines"], row["joined"], row["adopted"]) == (3, 3, 0)
    found = ask("GET", f"/images/{image}", schema="image").json()["machines"]
    assert [item["vmId"] for item in found] == [machine.vm_id for machine in machines]
    assert code(ask("GET", "/images/no-such-image")) == (404, "ResourceNotFound")
    (listed,) = [item for item in hub.json("images") if item["imageId"] == image]
    assert listed == row
    assert hub.json("images", "show", image) == found
    assert image in hub.run("images").stdout


def test_a_machine_of_an_image_that_somebody_connected_is_known_and_its_clone_is_adopted(
    hub: HubProcess, owner: str, ask: Ask
) -> None:
    image = f"img-{uuid4().hex[:8]}"
    original = Machine(hub, f"by-hand-{uuid4().hex[:8]}", evidence=HERE, boot="boot-original")
    assert original.put(owner).status_code == 200
    for answer in (original.enrol(owner, imageId=image), original.ask_token(), original.checkin()):
        assert answer.status_code == 200, answer.text
    (found,) = ask("GET", f"/images/{image}", schema="image").json()["machines"]
    assert (found["vmId"], found["how"], found["profile"]) == (original.vm_id, "connected", "default")
    twin = original.copy(evidence=elsewhere(8), boot="boot-twin")
    with beating(original):
        answer = twin.ask(hostname="copied")
    assert code(answer) == (409, "identity_conflict")
    twin.vm_id = str(uuid4())
    assert twin.enrol_as(answer.json()["enrolment"]).status_code == 200
    (row,) = [item for item in ask("GET", "/images", schema="images").json()["value"] if item["imageId"] == image]
    assert (row["machines"], row["joined"], row["connected"], row["adopted"]) == (2, 0, 1, 1)


def test_an_operator_lets_a_twin_become_a_machine_of_its_own(hub: HubProcess, owner: str, ask: Ask) -> None:
    original = Machine(hub, f"orig-{uuid4().hex[:8]}", evidence=HERE, boot="boot-original").connect(owner)
    twin = original.copy(evidence=elsewhere(7), boot="boot-twin")
    with beating(original):
        assert code(twin.ask(hostname="copied")) == (403, "quarantined")
    listed = ask("GET", "/twins?state=open", schema="twins-page").json()["value"]
    (row,) = [item for item in listed if item["vmId"] == original.vm_id]
    assert (row["verdict"], row["outcome"], row["hostname"], row["differs"]) == (
        "clone",
        "quarantine",
        "copied",
        ["dmi_uuid", "dmi_serial"],
    )
    assert "copy-7" not in json.dumps(row), "names of evidence are shown, values never"
    decided = ask("POST", f"/twins/{row['id']}/decide", {"decision": "adopt"}, "twin")
    assert (decided.status_code, decided.json()["decision"]) == (200, "adopt")
    with beating(original):
        answer = twin.ask(hostname="copied")
    assert code(answer) == (409, "identity_conflict")
    before = original.vm_id
    twin.vm_id = str(uuid4())
    assert twin.enrol_as(answer.json()["enrolment"]).status_code == 200
    shown = ask("GET", f"/twins/{row['id']}", schema="twin").json()
    assert (shown["state"], shown["vmId"]) == ("adopted", before)
    assert shown["became"].endswith(f"/{twin.name}")
    assert code(ask("POST", f"/twins/{row['id']}/decide", {"decision": "release"})) == (409, "Conflict")
    assert original.checkin().status_code == 200
    assert "adopted" in hub.run("twins", "show", str(row["id"])).stdout


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/twins/999999/decide", {"decision": "release"}),
        ("/twins/x/decide", {"decision": "release"}),
        ("/twins/999999999999999999/decide", {"decision": "release"}),
    ],
)
def test_a_twin_that_is_not_there_cannot_be_decided(ask: Ask, path: str, body: dict[str, Any]) -> None:
    assert ask("POST", path, body).status_code in (400, 404)


def test_who_may_not_see_the_machine_does_not_see_its_twins(hub: HubProcess, owner: str, ask: Ask) -> None:
    original = Machine(hub, f"hidden-{uuid4().hex[:8]}", evidence=HERE, boot="b").connect(owner)
    with beating(original):
        original.copy(evidence=elsewhere(1), boot="c").ask()
    (row,) = [item for item in ask("GET", "/twins").json()["value"] if item["vmId"] == original.vm_id]
    scope = f"/subscriptions/{hub.subscription_id}/resourceGroups/elsewhere"
    other = hub.json("principal", "create", f"other-{uuid4().hex[:6]}", "--role", "Contributor", "--scope", scope)
    session = hub.session()
    session.headers["Authorization"] = f"Bearer {hub.token(other)}"
    url = f"{hub.url}/hawser/v1/twins"
    assert session.get(url, timeout=30).json()["value"] == []
    assert session.get(f"{url}/{row['id']}", timeout=30).status_code == 404
    decided = session.post(f"{url}/{row['id']}/decide", json={"decision": "release"}, timeout=30)
    assert decided.status_code == 404
    assert ask("GET", f"/twins/{row['id']}").json()["decision"] is None


def test_the_command_line_makes_profiles_and_tokens(hub: HubProcess, ask: Ask, profile: str, tmp_path: Path) -> None:
    done = hub.run("profiles", "set", profile, "--clones", "adopt", "--tag", "a=b", "--contact", "ops@example.com")
    assert "was changed" in done.stdout
    shown = hub.json("profiles", "show", profile)
    assert (shown["clones"], shown["tags"], shown["resourceGroup"]) == ("adopt", {"a": "b"}, "fleet")
    assert hub.json("profiles", "set", profile, "--clones", "by-image")["clones"] is None
    file = tmp_path / "token"
    made = hub.run("profiles", "token", profile, "--uses", "5", "--days", "2", "--image", "web-1", "--token-file", file)
    text = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert text.startswith("hwe_")
    assert text not in made.stdout
    joined(hub, "cli", text, 1)
    (row,) = hub.json("profiles", "show", profile)["tokens"]
    assert (row["used"], row["imageId"]) == (1, "web-1")
    assert "was revoked" in hub.run("profiles", "revoke", profile, row["id"]).stdout
    unknown = hub.run("profiles", "revoke", profile, "no-such", check=False)
    assert (unknown.returncode, "has no token 'no-such'" in unknown.stderr) == (1, True)
    refused = hub.run("profiles", "token", "no-such", "--uses", "1", "--days", "1", check=False)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "There is no enrolment profile 'no-such'." in refused.stderr
    assert "was removed" in hub.run("profiles", "remove", profile).stdout
    assert profile not in hub.run("profiles").stdout
    actions = [item["action"] for item in ask("GET", "/audit?$top=20").json()["value"]]
    assert actions.count("Hawser.Hub/profiles/write") >= 4
    assert text not in ask("GET", "/audit?$top=100").text

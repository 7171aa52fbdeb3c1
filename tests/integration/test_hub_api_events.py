# SPDX-License-Identifier: Apache-2.0
"""Events of a real hub: what machines and callers do becomes events, in lists, streams and history."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft7Validator
from sqlalchemy import text
from sqlalchemy.orm import Session

from control_plane.hub import open_database
from tests.integration import hub_process
from tests.integration.hub_machine import API, Machine
from tests.integration.hub_process import HubProcess
from tests.waiting import until

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local")


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> str:
    return hub.token(hub.principal("events-owner", "Owner"))


def get(hub: HubProcess, token: str, path: str, **params: Any) -> requests.Response:
    return hub.session().get(
        f"{hub.url}/hawser/v1/{path}", params=params, headers={"Authorization": f"Bearer {token}"}, timeout=30
    )


def listed(hub: HubProcess, token: str, **params: Any) -> list[dict[str, Any]]:
    answer = get(hub, token, "events", **params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["value"]
    return found


class Stream:
    """An open event stream."""

    def __init__(self, hub: HubProcess, token: str, last: str | None = None, **params: Any) -> None:
        headers = {"Authorization": f"Bearer {token}", **({"Last-Event-ID": last} if last else {})}
        self.answer = hub.session().get(
            f"{hub.url}/hawser/v1/events/stream", params=params, headers=headers, stream=True, timeout=60
        )
        self.lines = self.answer.iter_lines(chunk_size=1)

    def next(self) -> dict[str, Any]:
        """The next event; its id and kind are those of the data."""
        fields: dict[str, str] = {}
        for line in self.lines:
            if not line and "data" in fields:
                data: dict[str, Any] = json.loads(fields["data"])
                assert (fields["id"], fields["event"]) == (str(data["id"]), data["kind"])
                return data
            name, _, value = line.decode().partition(": ")
            fields[name] = value
        raise AssertionError("the stream ended")

    def close(self) -> None:
        self.answer.close()


def test_the_life_of_a_machine_is_told(hub: HubProcess, owner: str) -> None:
    stream = Stream(hub, owner)
    assert stream.answer.headers["content-type"].startswith("text/event-stream")
    machine = Machine(hub, "Life01", group="Events").connect(owner, tags={"env": "demo"})
    seen = [stream.next()]
    while seen[-1]["kind"] != "machine.status":
        seen.append(stream.next())
    assert seen[0]["kind"] == "machine.created"
    assert seen[-1]["data"] == {"from": "AwaitingConnection", "to": "Connected"}
    assert seen[-1]["resourceId"] == machine.resource_id
    assert machine.checkin(agentVersion="1.1.0.0").status_code == 200
    version = stream.next()
    assert (version["kind"], version["data"]) == ("machine.version", {"from": "1.0.0.1", "to": "1.1.0.0"})
    assert machine.report("inventory", {"computerName": "old", "osType": "linux"}).status_code == 200
    assert machine.report("inventory", {"computerName": "new", "osType": "linux"}).status_code == 200
    renamed = stream.next()
    assert (renamed["kind"], renamed["data"]) == ("machine.renamed", {"from": "old", "to": "new"})
    assert machine.checkin(nonce="stolen", agentVersion="1.1.0.0").status_code == 200
    conflict = stream.next()
    assert (conflict["kind"], conflict["data"]) == ("machine.conflict", {"count": 1})
    url = f"{hub.url}{machine.resource_id}"
    hub.session().delete(url, params=API, headers={"Authorization": f"Bearer {owner}"}, timeout=30)
    assert stream.next()["kind"] == "machine.deleted"
    stream.close()
    found = listed(hub, owner, machine=machine.resource_id.lower())
    for item in found:
        Draft7Validator(json.loads((SCHEMAS / "event.schema.json").read_text())).validate(item)
    assert [item["id"] for item in found] == sorted((item["id"] for item in found), reverse=True)
    assert listed(hub, owner, machine=machine.vm_id) == found
    assert {item["kind"] for item in listed(hub, owner, machine=machine.vm_id, kind="machine.deleted")} == {
        "machine.deleted"
    }


def test_a_stream_goes_on_where_it_was(hub: HubProcess, owner: str) -> None:
    machine = Machine(hub, "resume01", group="events")
    assert machine.put(owner).status_code == 200
    last = until(lambda: listed(hub, owner, machine=machine.resource_id), seconds=120)[0]["id"]
    for value in ("1", "2", "3"):
        answer = machine.http.patch(
            f"{hub.url}{machine.resource_id}",
            params=API,
            json={"tags": {"turn": value}},
            headers={"Authorization": f"Bearer {owner}"},
            timeout=30,
        )
        assert answer.status_code == 200
    for stream in (Stream(hub, owner, last=str(last), machine=machine.vm_id), Stream(hub, owner, after=last)):
        found = [stream.next() for _ in range(3)]
        assert {item["name"] for item in found} == {"resume01"}
        assert [item["id"] for item in found] == sorted(item["id"] for item in found)
        assert found[0]["id"] > last
        stream.close()


def test_pages_of_events(hub: HubProcess, owner: str) -> None:
    everything = listed(hub, owner)
    answer = get(hub, owner, "events", **{"$top": 2})
    found = answer.json()["value"]
    while answer.json()["nextLink"]:
        answer = hub.session().get(answer.json()["nextLink"], headers={"Authorization": f"Bearer {owner}"}, timeout=30)
        found += answer.json()["value"]
    assert found == everything


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("events", "kind", "machine.exploded"),
        ("events", "machine", "web01"),
        ("events", "from", "now"),
        ("events", "subscriptionId", "x"),
        ("events", "$skiptoken", "x"),
        ("events/stream", "after", "-1"),
        ("events/stream", "kind", "x"),
        ("history", "resolution", "7"),
        ("history", "from", "2030-01-01"),
        ("history", "to", "x"),
    ],
)
def test_bad_parameters_are_named(hub: HubProcess, owner: str, path: str, name: str, value: str) -> None:
    answer = get(hub, owner, path, **{name: value})
    assert answer.status_code == 400, answer.text
    assert name.lower() in answer.json()["error"]["message"].lower()


def test_who_may_not_read_events(hub: HubProcess) -> None:
    onboarding = hub.token(hub.principal("events-onboarding", "Onboarding"))
    for path in ("events", "events/stream", "history"):
        answer = get(hub, onboarding, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "AuthorizationFailed")
        assert hub.session().get(f"{hub.url}/hawser/v1/{path}", timeout=30).status_code == 401


def test_a_group_reader_hears_of_the_group_alone(hub: HubProcess, owner: str) -> None:
    scope = f"/subscriptions/{hub.subscription_id}/resourceGroups/mine"
    Machine(hub, "mine01", group="mine").put(owner)
    narrow = hub.token(hub.json("principal", "create", "events-narrow", "--role", "Reader", "--scope", scope))
    stream = Stream(hub, narrow)
    Machine(hub, "other01", group="other").put(owner)
    Machine(hub, "mine02", group="mine").put(owner)
    heard = stream.next()["name"]
    while heard == "mine01":  # what happened just before the stream was opened may come late
        heard = stream.next()["name"]
    assert heard == "mine02"
    stream.close()
    assert {item["name"] for item in listed(hub, narrow)} == {"mine01", "mine02"}
    assert get(hub, narrow, "history").status_code == 403


def test_history_has_a_point_for_now(hub: HubProcess, owner: str) -> None:
    found = until(lambda: get(hub, owner, "history").json()["value"], seconds=120)
    answer = get(hub, owner, "history").json()
    Draft7Validator(json.loads((SCHEMAS / "fleet-history.schema.json").read_text())).validate(answer)
    assert answer["resolution"] == 300
    assert found[-1]["seconds"] == 300


def test_streams_end_when_the_hub_stops_and_silence_is_told_once(tmp_path: Path) -> None:
    """A machine that falls silent is announced once its time is over, and not while the hub was deaf to it."""
    hub = hub_process.make(tmp_path / "data", "--location", "local").start()
    owner = hub.token(hub.principal("owner", "Owner"))
    machine = Machine(hub, "silent01").connect(owner)
    until(lambda: listed(hub, owner, kind="machine.status"), seconds=120)
    stream = Stream(hub, owner)
    assert hub.stop() == 0
    assert list(stream.lines)[-1:] == [b""]
    _age(hub, 2000)  # as if the hub had stopped 2000 seconds ago
    hub.start()
    assert get(hub, owner, "machines", name="silent01").json()["value"][0]["status"] == "Disconnected"
    time.sleep(3)
    assert [item["data"]["to"] for item in listed(hub, owner, kind="machine.status")] == ["Connected"]
    assert hub.stop() == 0
    with _rows(hub) as session:  # as if the hub had listened all the time since
        session.execute(text("UPDATE listening SET since = since - 5000, deaf_from = 0"))
    hub.start()
    found = until(lambda: listed(hub, owner, kind="machine.status")[:-1], seconds=120)
    assert found[0]["data"] == {"from": "Connected", "to": "Disconnected"}
    assert machine.checkin().status_code == 200
    back = until(lambda: listed(hub, owner, kind="machine.status")[:-2], seconds=120)
    assert back[0]["data"] == {"from": "Disconnected", "to": "Connected"}
    assert hub.stop() == 0


@contextmanager
def _rows(hub: HubProcess) -> Iterator[Session]:
    """The database of a stopped hub."""
    database = open_database(hub.data)
    with database.write() as session:
        yield session
    database.close()


def _age(hub: HubProcess, seconds: int) -> None:
    """Move everything that the database of a stopped hub holds of time into the past."""
    with _rows(hub) as session:
        for table, columns in {
            "heartbeats": ("seen", "connected_since"),
            "listening": ("since", "alive"),
            "machine_states": ("since",),
        }.items():
            for column in columns:
                session.execute(text(f"UPDATE {table} SET {column} = {column} - :s"), {"s": seconds})  # noqa: S608

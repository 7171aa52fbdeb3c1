# SPDX-License-Identifier: Apache-2.0
"""The fleet query of a real hub over ten thousand machines: filters, order, pages, rights, bad parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from jsonschema import Draft7Validator

from tests.integration import fleet_rows
from tests.integration.hub_machine import Machine
from tests.integration.hub_process import HubProcess

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
COUNT = 10_000


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return []


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Iterator[HubProcess]:
    made, filled = fleet_rows.filled(tmp_path_factory.mktemp("hub") / "data", COUNT)
    rows += filled
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> str:
    return hub.token(hub.principal("fleet-owner", "Owner"))


class Fleet:
    """GET requests of one principal."""

    def __init__(self, hub: HubProcess, token: str) -> None:
        self.hub, self.http = hub, hub.session()
        self.http.headers["Authorization"] = f"Bearer {token}"

    def __call__(self, path: str, *pairs: tuple[str, str]) -> requests.Response:
        return self.http.get(f"{self.hub.url}/hawser/v1/{path}", params=pairs, timeout=30)

    def all(self, *pairs: tuple[str, str]) -> list[dict[str, Any]]:
        """Every page."""
        answer, found = self("machines", *pairs), []
        while True:
            assert answer.status_code == 200, answer.text
            found += answer.json()["value"]
            link = answer.json()["nextLink"]
            if link is None:
                return found
            answer = self.http.get(link, timeout=30)


@pytest.fixture(scope="module")
def fleet(hub: HubProcess, owner: str) -> Fleet:
    return Fleet(hub, owner)


def _valid(name: str, body: Any) -> None:
    Draft7Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text())).validate(body)


def _names(rows: list[dict[str, Any]]) -> set[str]:
    return {row["name"] for row in rows}


def test_every_page_together_is_the_fleet_once(fleet: Fleet, rows: list[dict[str, Any]]) -> None:
    found = fleet.all(("$top", "1000"))
    assert [row["name"] for row in found] == sorted(row["name"] for row in rows)
    first = fleet("machines", ("$top", "2"), ("$count", "true")).json()
    assert first["count"] == COUNT
    assert len(first["value"]) == 2
    _valid("fleet-page", first)


@pytest.mark.parametrize(
    ("pairs", "holds"),
    [
        ([("tag", "ENV=prod")], lambda row: row["tags"]["env"] == "prod"),
        ([("tag", "env=prod"), ("tag", "owner=team 3")], lambda row: row["tags"] == {"env": "prod", "Owner": "team 3"}),
        ([("tag", "env=PROD")], None),
        ([("tag", "owner")], bool),
        ([("tag", "own")], None),
        ([("osType", "Windows")], lambda row: row["os_type"] == "windows"),
        ([("location", "Ber1,muc1")], lambda row: row["location"] in ("ber1", "muc1")),
        ([("agentVersion", "1.0.0.1")], lambda row: row["agent_version"] == "1.0.0.1"),
        ([("support", "ended")], lambda row: row["agent_version"] == "1.0.0.1"),
        ([("support", "supported")], lambda row: row["agent_version"] == "1.2.0.4"),
        ([("support", "unknown,ended")], lambda row: row["agent_version"] != "1.2.0.4"),
        ([("search", "SRV-0001")], lambda row: row["name"].startswith("Srv-0001")),
        ([("search", "host-000042.example")], lambda row: row["name"] == "Srv-000042"),
        ([("search", "env=prod")], lambda row: row["tags"]["env"] == "prod"),
        ([("search", "%")], None),
        ([("search", "_")], None),
        ([("search", "' or 1=1 --")], None),
        ([("name", "srv-000007")], lambda row: row["name"] == "Srv-000007"),
    ],
)
def test_filters(fleet: Fleet, rows: list[dict[str, Any]], pairs: list[tuple[str, str]], holds: Any) -> None:
    assert _names(fleet.all(("$top", "1000"), *pairs)) == _names([row for row in rows if holds and holds(row)])


def test_status_filters_divide_the_fleet(fleet: Fleet, rows: list[dict[str, Any]]) -> None:
    never = {row["name"] for row in rows if "seen" not in row}
    assert _names(fleet.all(("status", "awaitingconnection"), ("$top", "1000"))) == never
    parts = [fleet.all(("status", word), ("$top", "1000")) for word in ("Connected", "Disconnected", "Expired")]
    assert all({row["status"] for row in part} == {part[0]["status"]} for part in parts)
    assert len(never) + sum(map(len, parts)) == COUNT
    two = fleet("machines", ("status", "Connected,Expired"), ("$count", "true"), ("$top", "1")).json()["count"]
    assert two == len(parts[0]) + len(parts[2])


@pytest.mark.parametrize("by", ["name", "status", "lastHeartbeat", "agentVersion", "location"])
def test_orders_go_both_ways_without_loss(fleet: Fleet, by: str) -> None:
    wanted = (("resourceGroup", "group-1-03,GROUP-1-04"), ("$top", "300"))
    up = [row["id"] for row in fleet.all(*wanted, ("$orderby", by))]
    down = [row["id"] for row in fleet.all(*wanted, ("$orderby", f"{by} desc"))]
    assert up == down[::-1]
    assert len(set(up)) == 1000


def test_versions_are_ordered_as_versions(fleet: Fleet) -> None:
    found = fleet.all(("$orderby", "agentVersion desc"), ("resourceGroup", "group-1-03,group-1-02"), ("$top", "1000"))
    versions = [row["agentVersion"] for row in found]
    assert list(dict.fromkeys(versions)) == ["1.10.0.2", None]
    first = fleet("machines", ("$orderby", "agentVersion desc"), ("$top", "1")).json()["value"][0]
    assert first["agentVersion"] == "1.10.0.2"


def test_pages_are_stable_while_machines_come_and_go(fleet: Fleet, hub: HubProcess, owner: str) -> None:
    wanted = (("resourceGroup", "group-1-07"), ("$top", "100"))
    answer = fleet("machines", *wanted).json()
    seen = [row["name"] for row in answer["value"]]
    before = Machine(hub, "Srv-000000x", group="Group-1-07")
    assert before.put(owner).status_code == 200
    url = f"{hub.url}{before.resource_id}"
    while answer["nextLink"]:
        answer = fleet.http.get(answer["nextLink"], timeout=30).json()
        seen += [row["name"] for row in answer["value"]]
    assert fleet.http.delete(url, params={"api-version": "2026-07-15"}, timeout=30).status_code == 204
    assert len(seen) == len(set(seen)) == COUNT // 20


def test_a_token_is_of_its_list_alone(fleet: Fleet) -> None:
    link = fleet("machines", ("$top", "5"), ("osType", "linux")).json()["nextLink"]
    assert fleet.http.get(link, timeout=30).status_code == 200
    forged = fleet.http.get(link.replace("osType=linux", "osType=windows").replace("ostype=linux", "ostype=windows"))
    assert (forged.status_code, forged.json()["error"]["code"]) == (400, "InvalidParameter")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "Online"),
        ("osType", "macos"),
        ("support", "maybe"),
        ("seenBefore", "yesterday"),
        ("seenAfter", "2026-11-23T10:00:00"),
        ("$orderby", "secret"),
        ("$orderby", "name sideways"),
        ("$top", "0"),
        ("$top", "-1"),
        ("$count", "maybe"),
        ("$skiptoken", "AAAA"),
        ("$skiptoken", "ä"),
        ("subscriptionId", "all"),
        ("name", ""),
        ("search", "a" * 257),
        ("search", "\x00"),
        ("tag", "=x"),
        ("unknown", "1"),
        ("resourceGroup", ","),
    ],
)
def test_bad_parameters_are_named(fleet: Fleet, name: str, value: str) -> None:
    answer = fleet("machines", (name, value))
    assert answer.status_code == 400, answer.text
    assert name.lower() in answer.json()["error"]["message"].lower()


def test_summary_adds_up(fleet: Fleet, rows: list[dict[str, Any]]) -> None:
    body = fleet("machines/summary").json()
    _valid("fleet-summary", body)
    assert body["total"] == COUNT
    for name in ("status", "osType", "agentVersion", "resourceGroup", "location"):
        assert sum(item["count"] for item in body[name]["values"]) + body[name]["others"] == COUNT
    part = fleet("machines/summary", ("tag", "env=prod"), ("osType", "linux")).json()
    assert part["total"] == len([row for row in rows if row["tags"]["env"] == "prod" and row["os_type"] == "linux"])


def test_one_machine_by_either_name(fleet: Fleet, hub: HubProcess, rows: list[dict[str, Any]]) -> None:
    row = rows[123]
    resource = (
        f"/subscriptions/{hub.subscription_id}/resourceGroups/Group-1-03/providers/Microsoft.HybridCompute"
        f"/machines/{row['name'].upper()}"
    )
    for path in (row["vm_id"].upper(), quote(resource, safe=""), resource.lstrip("/")):
        answer = fleet(f"machines/{path}")
        assert answer.status_code == 200, answer.text
        _valid("fleet-machine", answer.json())
        assert answer.json()["inventory"]["computerName"] == "host-000123"
    assert fleet("machines/00000000-0000-4000-8000-000000000000").status_code == 404
    assert fleet("machines/web01").status_code == 400
    assert fleet(f"machines/{quote(resource + 'x', safe='')}").status_code == 404


def test_scopes_decide_what_is_seen(hub: HubProcess, fleet: Fleet) -> None:
    """A principal with the role at one group sees that group, in lists, counts and alone."""
    made = hub.json(
        "principal", "create", "narrow", "--role", "Reader", "--scope",
        f"/subscriptions/{hub.subscription_id}/resourceGroups/Group-1-02",
    )  # fmt: skip
    narrow = Fleet(hub, hub.token(made))
    assert {row["resourceGroup"] for row in narrow.all(("$top", "1000"))} == {"Group-1-02"}
    assert narrow("machines/summary").json()["total"] == COUNT // 20
    other = fleet("machines", ("resourceGroup", "group-1-03"), ("$top", "1")).json()["value"][0]
    assert narrow("machines", ("search", other["name"])).json()["value"] == []
    assert narrow(f"machines/{other['vmId']}").status_code == 404
    assert narrow(f"machines/{quote(other['id'], safe='')}").status_code == 403


def test_a_heartbeat_counts_before_it_is_written(hub: HubProcess, fleet: Fleet, owner: str) -> None:
    machine = Machine(hub, "fresh01", group="fresh")
    machine.connect(owner, tags={"näme=1": 'quoted "value"\nenv=prod'})
    assert fleet("machines", ("status", "Connected"), ("name", "FRESH01")).json()["value"][0]["status"] == "Connected"
    assert fleet("machines", ("status", "AwaitingConnection"), ("name", "fresh01")).json()["value"] == []
    assert fleet("machines", ("tag", "env=prod"), ("name", "fresh01")).json()["value"] == []
    assert fleet("machines", ("name", "fresh01"), ("support", "unknown")).json()["value"]
    day = datetime.now(UTC).date().isoformat()
    machine.report("inventory", {"osType": "linux", "agentVersion": "1.1.0.0", "agentReleased": day})
    assert fleet("machines", ("name", "fresh01"), ("support", "supported")).json()["value"] == []
    assert machine.checkin(agentVersion="1.1.0.0").status_code == 200
    assert fleet("machines", ("name", "fresh01"), ("support", "supported")).json()["value"]
    assert [row["name"] for row in fleet.all(("search", 'NÄME=1=quoted "value"'))] == ["fresh01"]

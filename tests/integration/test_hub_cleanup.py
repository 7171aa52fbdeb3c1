# SPDX-License-Identifier: Apache-2.0
"""Clean-up rules: whom they find, what they refuse, what an outage of the hub does not count, by command and API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from control_plane.fleet import cleanup
from control_plane.hub import open_database
from control_plane.storage.fleet_models import CleanupRule, Listening, MachineState, Outage
from control_plane.storage.models import AuditEntry, Heartbeat, Machine, ResourceGroup
from control_plane.storage.resource_models import Lock
from tests.integration import hub_process
from tests.integration.fleet_rows import fill
from tests.integration.hub_process import HubProcess

DAY = 86400
COUNT = 60


@contextmanager
def rows(hub: HubProcess) -> Iterator[Session]:
    database = open_database(hub.data)
    with database.write() as session:
        yield session
    database.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """Sixty machines: number n was last heard n days ago; those from 1 on are announced as silent. Not started."""
    made = hub_process.make(tmp_path / "data", "--location", "local")
    at = int(time.time())
    with rows(made) as session:
        for number, row in enumerate(fill(session, COUNT, at, made.subscription_id)):
            if "seen" not in row:
                values = dict.fromkeys(("nonce", "previous_nonce", "request_id", "evidence_digest", "address"), "x")
                session.add(Heartbeat(machine_id=row["id"], seen=0, connected_since=0, epoch=1, conflicts=0, **values))
                session.flush()
            seen = at - number * DAY - 100
            session.execute(update(Heartbeat).where(Heartbeat.machine_id == row["id"]).values(seen=seen))
            word = "Connected" if number == 0 else "Disconnected" if number <= 45 else "Expired"
            session.add(MachineState(machine_id=row["id"], status=word, since=seen + 900, conflicts=0))
        session.add(Listening(id=1, since=at - 400 * DAY, alive=at, deaf_from=0))
    yield made
    made.stop()


def count(hub: HubProcess) -> int:
    with rows(hub) as session:
        return len(session.scalars(select(Machine.id)).all())


@given(
    seen=st.integers(0, 1000),
    at=st.integers(0, 1000),
    outages=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=5),
)
def test_silence_never_counts_what_the_hub_did_not_hear(seen: int, at: int, outages: list[tuple[int, int]]) -> None:
    apart, last = [], 0
    for began, ended in sorted((min(pair), max(pair)) for pair in outages):
        apart.append((max(began, last), max(ended, last)))
        last = max(ended, last)
    deaf = {second for began, ended in apart for second in range(began, ended)}
    assert cleanup.silence(seen, at, apart) == len([second for second in range(seen, at) if second not in deaf])


def test_a_rule_finds_the_long_silent_and_refuses_too_many(hub: HubProcess) -> None:
    made = hub.json("cleanup", "add", "old", "--older-than", "50", "--action", "delete")
    assert made["enabled"] is False
    dry = hub.json("cleanup", "run", "old", "--dry-run")
    assert (dry["matched"], dry["limit"], dry["done"], dry["refused"]) == (10, 6, 0, True)
    refused = hub.run("cleanup", "run", "old", check=False)
    assert refused.returncode == 2
    assert "nothing is done without --force" in refused.stderr
    assert count(hub) == COUNT
    with rows(hub) as session:
        (entry,) = session.scalars(select(AuditEntry).where(AuditEntry.actor == "old"))
        assert (entry.actor_type, entry.outcome, entry.code) == ("rule", "Refused", "TooManyMachines")
    done = hub.json("cleanup", "run", "old", "--force")
    assert (done["done"], count(hub)) == (10, COUNT - 10)
    with rows(hub) as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.actor == "old", AuditEntry.outcome == "Succeeded")
        )
        assert {entry.action for entry in entries} == {"Microsoft.HybridCompute/machines/delete"}
    assert len(hub.json("events", "--kind", "machine.deleted")) == 10
    assert hub.json("cleanup", "list")[0]["lastResult"]["done"] == 10
    assert "was removed" in hub.run("cleanup", "remove", "old").stdout


def test_filters_tags_and_locks(hub: HubProcess) -> None:
    options = ("--status", "Disconnected", "--older-than", "30", "--max-percent", "100")
    hub.run("cleanup", "add", "mark", *options, "--action", "tag", "--set-tag", "stale=yes", "--tag", "env=prod")
    with rows(hub) as session:
        prod = [item for item in session.scalars(select(Machine)) if item.tags["env"] == "prod"]
        wanted = {item.id for item in prod if session.get_one(Heartbeat, item.id).seen < time.time() - 30 * DAY}
        locked = session.get_one(Machine, max(wanted))
        group = session.get_one(ResourceGroup, locked.group_id).name_key
        session.add(lock_at(f"/subscriptions/{hub.subscription_id}/resourcegroups/{group}", "ReadOnly"))
        behind = {item.id for item in prod if item.group_id == locked.group_id} & wanted
    done = hub.json("cleanup", "run", "mark")
    assert (done["done"], done["locked"]) == (len(wanted - behind), len(behind))
    with rows(hub) as session:
        marked = {item.id for item in session.scalars(select(Machine)) if item.tags.get("stale") == "yes"}
    assert marked == wanted - behind
    assert hub.json("cleanup", "run", "mark")["done"] == 0


def lock_at(scope: str, level: str) -> Lock:
    return Lock(
        key=f"{scope}/l", scope=scope, scope_key=scope, name="l", level=level, notes=None, created=1, created_by="x"
    )


def test_an_outage_makes_nobody_older(hub: HubProcess) -> None:
    """The hub was away for fifty days: nobody has been silent for long that it could have heard."""
    hub.run("cleanup", "add", "old", "--older-than", "9", "--action", "delete", "--max-percent", "100")
    at = int(time.time())
    with rows(hub) as session:
        session.execute(update(Listening).values(since=at - 7200, alive=at))
        session.add(Outage(began=at - 50 * DAY, ended=at - 7200))
    assert hub.json("cleanup", "run", "old", "--dry-run")["matched"] == COUNT - 59
    with rows(hub) as session:
        session.execute(update(Listening).values(since=at - 600, alive=at))
    early = hub.run("cleanup", "run", "old", check=False)
    assert early.returncode == 1
    assert "less than 60 minutes" in early.stderr
    with rows(hub) as session:  # the hub is not running now, and has not been for fifty days
        session.execute(update(Listening).values(since=at - 400 * DAY, alive=at - 50 * DAY))
    found = hub.json("cleanup", "run", "old", "--dry-run")["machines"]
    assert [name.rpartition("/")[2] for name in found] == ["Srv-000059"]  # it had been silent for nine days before


def test_enabled_rules_run_once_a_day(hub: HubProcess) -> None:
    hub.run("cleanup", "add", "off", "--older-than", "58", "--action", "delete")
    hub.run("cleanup", "add", "on", "--older-than", "56", "--action", "delete", "--enable")
    deleted: list[int] = []
    database = open_database(hub.data)
    cleaner = cleanup.Cleaner(database, lambda _machine, _generations: None, deleted.append)
    at = int(time.time())
    cleaner.turn(at)
    assert len(deleted) == 4
    with database.write() as session:
        session.execute(update(Heartbeat).values(seen=at - 57 * DAY))
        session.execute(update(MachineState).values(status="Expired"))
        before = session.get_one(CleanupRule, "off").last_run
    cleaner.turn(at + 3600)
    assert len(deleted) == 4
    assert before is None
    database.close()


def test_the_api_has_rules(hub: HubProcess) -> None:
    owner, reader = (hub.principal(role.lower(), role) for role in ("Owner", "Reader"))
    hub.start()
    http = hub.session()
    root = f"{hub.url}/hawser/v1/cleanupRules"
    body = {"status": "Expired", "olderThanDays": 57, "action": "delete"}
    mine = {"Authorization": f"Bearer {hub.token(owner)}"}
    first = http.put(f"{root}/old", json=body, headers=mine, timeout=30)
    if first.status_code == 403:  # a principal's role is at the subscription; rules belong to the hub
        hub.run("role", "assign", "Owner", "--to", "owner", "--scope", "/")
        first = http.put(f"{root}/old", json=body, headers=mine, timeout=30)
    assert first.status_code == 201, first.text
    assert http.put(f"{root}/old", json={**body, "maxPercent": 50}, headers=mine, timeout=30).status_code == 200
    for wrong, name in (
        ({**body, "olderThanDays": 0}, "olderThanDays"),
        ({**body, "action": "format"}, "action"),
        ({**body, "setTag": "a=b"}, "setTag"),
        ({**body, "action": "tag", "setTag": "a"}, "setTag"),
        ({**body, "tag": "=x"}, "tag"),
        ({**body, "sql": "1"}, "sql"),
        ({**body, "maxPercent": 101}, "maxPercent"),
    ):
        refused = http.put(f"{root}/old", json=wrong, headers=mine, timeout=30)
        assert refused.status_code == 400
        assert name in refused.json()["error"]["message"]
    assert http.put(f"{root}/Old%20Rule", json=body, headers=mine, timeout=30).status_code == 400
    dry = http.post(f"{root}/old/run", json={"dryRun": True}, headers=mine, timeout=30).json()
    assert (dry["matched"], dry["done"]) == (3, 0)
    assert http.post(f"{root}/old/run", json={}, headers=mine, timeout=30).json()["done"] == 3
    theirs = {"Authorization": f"Bearer {hub.token(reader)}"}
    assert http.put(f"{root}/old", json=body, headers=theirs, timeout=30).status_code == 403
    assert http.post(f"{root}/old/run", json={}, headers=theirs, timeout=30).status_code == 403
    assert http.delete(f"{root}/old", headers=mine, timeout=30).status_code == 200
    assert http.delete(f"{root}/old", headers=mine, timeout=30).status_code == 204
    assert http.get(f"{root}/old", headers=mine, timeout=30).status_code == 404
    assert hub.stop() == 0

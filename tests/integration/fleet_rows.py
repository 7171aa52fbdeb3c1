# SPDX-License-Identifier: Apache-2.0
"""A fleet of rows for tests and measurements of queries: machines with heartbeats and inventories that nobody sent."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from control_plane.hub import open_database
from control_plane.storage import derived
from control_plane.storage.models import Heartbeat, Machine, Report, ResourceGroup, Subscription
from tests.integration import hub_process
from tests.integration.hub_process import HubProcess

GROUPS = 20
LOCATIONS = ("local", "ber1", "ham1", "muc1")
VERSIONS = ("1.0.0.1", "1.2.0.4", "1.10.0.2", None)
RELEASED = ("2020-01-01", (datetime.now(UTC) - timedelta(days=30)).date().isoformat(), "2999-01-01", None)
SYSTEMS = (("linux", "debian", "Debian GNU/Linux 12"), ("windows", "windows", "Windows Server 2022 Datacenter"))


def _guid(source: random.Random) -> str:
    return str(UUID(int=source.getrandbits(128), version=4))


def inventory(number: int, system: tuple[str, str, str]) -> dict[str, Any]:
    """A report of about two KiB."""
    interfaces = [
        {"name": f"eth{index}", "ipAddresses": [{"address": address, "ipAddressVersion": "IPv4"}]}
        for index, address in enumerate((f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "192.168.0.2"))
    ]
    return {
        "osType": system[0],
        "osName": system[1],
        "osSku": system[2],
        "osVersion": "12",
        "agentVersion": VERSIONS[number % 4],
        "agentReleased": RELEASED[number % 4],
        "computerName": f"host-{number:06}",
        "machineFqdn": f"host-{number:06}.example.org",
        "networkProfile": {"networkInterfaces": interfaces},
        "detectedProperties": {f"property{index}": "value " * 4 for index in range(40)},
    }


def _numbered(session: Session, subscription: str, at: int, names: Iterable[str]) -> list[ResourceGroup]:
    groups = [
        ResourceGroup(
            subscription_id=subscription, name=name, name_key=name.lower(), location="local", tags={}, created=at
        )
        for name in names
    ]
    session.add_all(groups)
    session.flush()
    return groups


def fill(session: Session, count: int, at: int, subscription: str | None = None, seed: int = 1) -> list[dict[str, Any]]:
    """`count` machines: seven of ten seen within the last quarter of an hour, two silent for hours or days, one of
    twenty expired, one of twenty never seen. Returns the rows of `machines`."""
    source = random.Random(seed)
    if subscription is None:
        subscription = _guid(source)
        session.add(Subscription(id=subscription, name="rows", created=at))
        session.flush()
    groups = _numbered(session, subscription, at, [f"Group-{seed}-{number:02}" for number in range(GROUPS)])
    machines, beats, reports = [], [], []
    for number in range(count):
        system, version = SYSTEMS[number % 5 == 0], VERSIONS[number % 4]
        data = inventory(number, system)
        tags = {"env": ("prod", "test", "dev")[number % 3], "Owner": f"team {number % 17}"}
        name = f"Srv-{number:06}"
        machines.append(
            {
                "subscription_id": subscription,
                "group_id": groups[number % GROUPS].id,
                "name": name,
                "name_key": name.lower(),
                "location": LOCATIONS[number % 4],
                "tags": tags,
                "identity_type": "SystemAssigned",
                "vm_id": _guid(source),
                "vm_id_given": True,
                "properties": {"osType": system[0]},
                "client_id": _guid(source),
                "principal_id": _guid(source),
                "enrolled": at,
                "generations": {},
                "agent_version": version,
                "created": at - 86400,
                "created_by": _guid(source),
                "created_by_type": "Application",
                "created_by_object": _guid(source),
                "modified": at,
                "modified_by": _guid(source),
                "modified_by_type": "Application",
                "version_key": derived.version_key(version),
                "released": derived.released(version, data),
                "os_type": system[0],
                "tags_key": derived.tags_key(tags),
                "facts_key": derived.with_tags(derived.facts_key(data), tags),
            }
        )
        reports.append({"kind": "inventory", "digest": "0" * 64, "created": at, "received": at, "data": data})
    ids = []
    for start in range(0, count, 1000):
        made = session.scalars(
            insert(Machine).returning(Machine.id, sort_by_parameter_order=True), machines[start : start + 1000]
        )
        ids += list(made)
    for number, machine_id in enumerate(ids):
        machines[number]["id"] = machine_id
        kind = source.random()
        silence = (
            source.randrange(800) if kind < 0.7 else source.randrange(1000, 40 * 86400) if kind < 0.9 else 50 * 86400
        )
        if kind < 0.95:
            beats.append(
                {
                    "machine_id": machine_id,
                    "seen": at - silence,
                    "connected_since": at - silence - 60,
                    "epoch": 1,
                    "nonce": "n" * 16,
                    "previous_nonce": "p" * 16,
                    "request_id": machines[number]["vm_id"],
                    "evidence_digest": "0" * 64,
                    "address": f"172.16.{number >> 8 & 255}.{number & 255}",
                    "conflicts": 0,
                }
            )
            machines[number]["seen"] = at - silence
        reports[number]["machine_id"] = machine_id
    for start in range(0, count, 1000):
        session.execute(insert(Report), reports[start : start + 1000])
        if beats[start : start + 1000]:
            session.execute(insert(Heartbeat), beats[start : start + 1000])
    return machines


def filled(data: Path, count: int) -> tuple[HubProcess, list[dict[str, Any]]]:
    """A running hub over `data` with `count` machines of `fill` in the location `local`, and their rows."""
    made = hub_process.make(data, "--location", "local")
    database = open_database(made.data)
    with database.write() as session:
        rows = fill(session, count, int(time.time()), made.subscription_id)
    database.close()
    return made.start(), rows

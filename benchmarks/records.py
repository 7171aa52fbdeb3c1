# SPDX-License-Identifier: Apache-2.0
"""Many machine records in a hub's database, and simulated machines that own the first of them.

The rows are those that the protocol would have left, written in bulk: 100,000 enrolments take most of an hour, and what
is measured afterwards does not know the difference. Every certificate is issued by the hub's machine CA and every token
signed by its authority, so that nothing on the way of a check-in is left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update

from benchmarks.simulator import Fleet, Machine, Pace
from benchmarks.simulator.keys import Pool
from benchmarks.simulator.machine import AGENT_VERSION, State
from benchmarks.site import Site
from control_plane import pki
from control_plane.arm.machines import FIRST_GENERATIONS
from control_plane.authority import claims as rules
from control_plane.hub import Hub, open_hub
from control_plane.storage import derived, models
from tests.integration.fleet_rows import fill
from tests.integration.hub_process import HubProcess

CHANNEL = "api://hawser-channel"
KEYS = 8
_SLICE = 1000


@dataclass
class Owned:
    """Machines of the simulator and the keys that they share."""

    states: list[State]
    keys: Pool

    def fleet(self, site: Site, pace: Pace | None = None, count: int | None = None) -> Fleet:
        """The first `count` of them (all) as a fleet of the running hub."""
        fleet = site.fleet("rows", 0, pace)
        fleet.site.keys = self.keys
        fleet.machines = [Machine(fleet.site, state, number) for number, state in enumerate(self.states[:count])]
        return fleet


def write(made: HubProcess, count: int, owned: int, *, tokens: bool) -> Owned:
    """`count` records in the subscription of a hub that does not run. The first `owned` get a certificate and, if
    asked, a channel token each, and count as never seen."""
    hub, found = open_hub(made.data), Owned([], Pool())
    try:
        hub.database.migrate()
        at = int(time.time())
        with hub.database.write() as session:
            rows = fill(session, count, at, subscription=made.subscription_id)[:owned]
            groups = {group.id: group.name for group in session.scalars(select(models.ResourceGroup))}
        for start in range(0, owned, _SLICE):
            part = rows[start : start + _SLICE]
            states = [_state(row, groups[row["group_id"]], number % KEYS) for number, row in enumerate(part)]
            credentials = [
                _credential(hub, row, state, found.keys, at) for row, state in zip(part, states, strict=True)
            ]
            ids = [row["id"] for row in part]
            with hub.database.write() as session:
                session.execute(insert(models.Credential), credentials)
                session.execute(delete(models.Heartbeat).where(models.Heartbeat.machine_id.in_(ids)))
                changed = update(models.Machine).where(models.Machine.id.in_(ids))
                session.execute(
                    changed.values(
                        generations=dict(FIRST_GENERATIONS),
                        agent_version=AGENT_VERSION,  # as enrolment wrote it
                        version_key=derived.version_key(AGENT_VERSION),
                    )
                )
            if tokens:
                for row, state in zip(part, states, strict=True):
                    _give_token(hub, row, state, at)
            found.states += states
    finally:
        hub.database.close()
    return found


def _state(row: dict[str, Any], group: str, key: int) -> State:
    place = f"/subscriptions/{row['subscription_id']}/resourceGroups/{group}"
    resource_id = f"{place}/providers/Microsoft.HybridCompute/machines/{row['name']}"
    known = {**FIRST_GENERATIONS, "trust": 1}
    return State(row["name"], row["vm_id"], resource_id, key, state="connected", slot=1, generations=known)


def _credential(hub: Hub, row: dict[str, Any], state: State, keys: Pool, at: int) -> dict[str, Any]:
    public = keys[state.key].private.public_key()
    certificate = pki.issue_machine(hub.keys.machine_ca, public, row["client_id"], row["vm_id"])
    pem = pki.certificate_pem(certificate).decode()
    state.identity = {
        "clientId": row["client_id"],
        "principalId": row["principal_id"],
        "tenantId": hub.settings.tenant_id,
        "certificate": pem,
    }
    return {
        "machine_id": row["id"],
        "slot": 1,
        "thumbprint": pki.thumbprint(certificate),
        "certificate": pem,
        "expires": int(certificate.not_valid_after_utc.timestamp()),
        "state": "current",
        "created": at,
    }


def _give_token(hub: Hub, row: dict[str, Any], state: State, at: int) -> None:
    subject = rules.Subject(row["client_id"], row["principal_id"], state.resource_id, 1)
    state.token = hub.tokens.issue(subject, CHANNEL, rules.CERTIFICATE, at, rules.CHANNEL_SECONDS)
    state.token_ends = at + 0.8 * rules.CHANNEL_SECONDS

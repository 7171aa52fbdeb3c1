# SPDX-License-Identifier: Apache-2.0
"""Rotation of the hub's CA and of its desired-state key over the whole fleet (control_plane/trust.py)."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from control_plane import keyring, pki, trust
from control_plane.arm.paths import MachineId
from control_plane.arm.status import EXPIRED_AFTER
from control_plane.clock import now
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.settings import Settings
from control_plane.setup import operator
from control_plane.storage import audit
from control_plane.storage.models import Heartbeat, HubState, Machine, Report, ResourceGroup

_ROOTS_KINDS = ("extensions", "policy", "runcommands", "agent")


def _machines(session: Session, at: int) -> list[tuple[str, dict[str, Any] | None]]:
    """(resource id, report of kind trust) of every machine that can still come back."""
    rows = session.execute(
        select(Machine, ResourceGroup.name, Report.data, Heartbeat.seen)
        .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
        .outerjoin(Report, and_(Report.machine_id == Machine.id, Report.kind == "trust"))
        .outerjoin(Heartbeat, Heartbeat.machine_id == Machine.id)
        .where(Machine.enrolled.is_not(None))
    )
    return [
        (str(MachineId(machine.subscription_id, group, machine.name)), report)
        for machine, group, report, seen in rows
        if seen is None or seen > at - EXPIRED_AFTER
    ]


def status(data: Path) -> dict[str, Any]:
    """How far the fleet has come."""
    anchors = trust.read(data, keyring.load(data))
    with opened(data) as (database, _), database.read() as session:
        machines = _machines(session, now())
        generation = session.get_one(HubState, 1).trust_generation
    behind = trust.lagging(machines, anchors)
    return {
        "generation": generation,
        "underWay": [subject for subject in trust.SUBJECTS if anchors.under_way(subject)],
        "caSha256": sorted(anchors.cas),
        "caSha256Staying": sorted(anchors.cas_staying),
        "kids": sorted(anchors.kids),
        "kidsStaying": sorted(anchors.kids_staying),
        "machines": len(machines),
        "behind": behind,
    }


def announce(data: Path, reason: str) -> int:
    """Have every machine fetch the anchors again; the new generation."""
    with opened(data) as (database, _), database.write() as session:
        state = session.get_one(HubState, 1)
        state.trust_generation += 1
        audit.record(session, operator(), f"trust/{reason}", "hub", detail={"generation": state.trust_generation})
        return state.trust_generation


def rotate(data: Path, subject: str) -> bool:
    """Begin a rotation. False: one was under way; it is announced once more.

    Errors: OperatorError.
    """
    with opened(data) as (_, settings):
        fresh = trust.begin_ca(data, settings) if subject == trust.CA else trust.begin_desired(data)
    announce(data, f"rotate/{subject}")
    return fresh


def finish(data: Path, subject: str, *, force: bool) -> list[str]:
    """End a rotation; the machines that are cut off by it, which is nobody without `force`.

    Errors: OperatorError: none is under way, or machines would be cut off.
    """
    anchors = trust.read(data, keyring.load(data))
    if not anchors.under_way(subject):
        raise OperatorError(
            f"No rotation of the {subject} is under way.", f"Begin one: hawser-hub trust rotate {subject}"
        )
    with opened(data) as (database, settings), database.read() as session:
        behind = trust.lagging(_machines(session, now()), anchors)
    if behind and not force:
        more = f" and {len(behind) - 3} more" if len(behind) > 3 else ""
        raise OperatorError(
            f"{len(behind)} machines do not know the successor yet: {', '.join(behind[:3])}{more}.",
            "Wait for them (hawser-hub trust status), delete those that are gone, or use --force: whoever is left "
            "behind gets the new cloud profile from the next run of the playbook.",
        )
    if subject == trust.CA:
        if not force and _shows_the_old_one(data, settings):
            raise OperatorError(
                f"The hub at {settings.url} still shows its former certificate.",
                "Wait a minute, or have it read its files again: systemctl reload hawser-hub.",
            )
        trust.finish_ca(data, settings)
    else:
        trust.finish_desired(data)
        _sign_again(data)
    announce(data, f"finish/{subject}")
    return behind


def _shows_the_old_one(data: Path, settings: Settings) -> bool:
    """True when a hub answers and whoever believes the successor alone would turn away from it."""
    context = ssl.create_default_context(cadata=pki.certificate_pem(keyring.authority(data, "ca").certificate).decode())
    try:
        with socket.create_connection((settings.host, settings.port), timeout=5) as plain:
            context.wrap_socket(plain, server_hostname=settings.host).close()
    except ssl.SSLCertVerificationError:
        return True
    except OSError:
        return False
    return False


def _sign_again(data: Path) -> None:
    """Documents for root's services carry the old key's signature: machines fetch them anew when generations rise."""
    with opened(data) as (database, _), database.write() as session:
        for machine in session.scalars(select(Machine).where(Machine.enrolled.is_not(None))):
            raised = {
                kind: number + 1 if kind in _ROOTS_KINDS and number else number
                for kind, number in machine.generations.items()
            }
            if raised != machine.generations:
                machine.generations = raised

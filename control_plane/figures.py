# SPDX-License-Identifier: Apache-2.0
"""How the hub itself is: what `/metrics` and `/hawser/v1/hub` tell of its state."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from cryptography import x509
from sqlalchemy import func, select

from control_plane import keyring
from control_plane.artefacts import place as artefacts
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.fleet.filters import STATUSES
from control_plane.hub import Hub
from control_plane.metrics import Reading
from control_plane.storage import fleet
from control_plane.storage.models import Heartbeat, Machine

STARTED = int(time.time())
VERSION = version("hawser-hub")
Values = dict[tuple[tuple[str, str], ...], float]


def by_status(hub: Hub) -> dict[str, int]:
    """Machines of the whole hub by their status; a word nobody has is 0."""
    with hub.database.read() as session:
        rank = fleet.status_rank(fleet.Moment(now()))
        found = session.execute(fleet.joined(select(rank, func.count(Machine.id))).group_by(rank)).all()
    counts = {STATUSES[number]: count for number, count in found}
    return {word: counts.get(word, 0) for word in STATUSES}


def conflicts(hub: Hub) -> int:
    """How often a nonce was unknown within one epoch, over all machines."""
    with hub.database.read() as session:
        return int(session.scalar(select(func.coalesce(func.sum(Heartbeat.conflicts), 0))) or 0)


def certificates(hub: Hub) -> dict[str, datetime]:
    """When each certificate of the hub ends."""
    folder = keyring.folder(hub.data)
    files = {"tls": "tls.crt", "ca": "ca.crt", "machine-ca": "machine-ca.crt"}
    return {
        name: min(item.not_valid_after_utc for item in x509.load_pem_x509_certificates((folder / file).read_bytes()))
        for name, file in files.items()
    }


def roles(hub: Hub) -> dict[str, tuple[int, datetime]]:
    """Version and end of each role of the repository of packages; none where there is no repository, or one that cannot
    be read, of which the log speaks."""
    try:
        found = artefacts.published(artefacts.of(hub.data))
    except OperatorError:
        return {}
    return {} if found is None else {item.type: (item.version, item.expires) for item in found.roles}


def readings(hub: Hub) -> list[Reading]:
    """States for `/metrics`."""

    def single(value: Callable[[], float]) -> Callable[[], Values]:
        return lambda: {(): float(value())}

    def labelled(label: str, values: Callable[[], dict[str, float]]) -> Callable[[], Values]:
        return lambda: {((label, name),): value for name, value in values().items()}

    return [
        (
            "gauge",
            "hawser_machines",
            "Machines by status.",
            labelled("status", lambda: {word: float(number) for word, number in by_status(hub).items()}),
        ),
        ("gauge", "hawser_held_checkins", "Check-ins held open by this process.", single(lambda: hub.live.held)),
        ("counter", "hawser_checkins", "Check-ins taken by this process.", single(lambda: hub.live.beats)),
        ("counter", "hawser_nonce_conflicts", "Unknown nonces within one epoch.", single(lambda: conflicts(hub))),
        ("gauge", "hawser_unwritten_heartbeats", "Heartbeats not written yet.", single(lambda: hub.live.backlog)),
        ("gauge", "hawser_epoch", "Epoch of the hub; every unclean end raises it.", single(lambda: hub.epoch)),
        (
            "gauge",
            "hawser_certificate_not_after_seconds",
            "End of a certificate, Unix seconds.",
            labelled("certificate", lambda: {name: at.timestamp() for name, at in certificates(hub).items()}),
        ),
        (
            "gauge",
            "hawser_artefacts_not_after_seconds",
            "End of a role of the repository of packages, Unix seconds.",
            labelled("role", lambda: {name: end.timestamp() for name, (_, end) in roles(hub).items()}),
        ),
        ("gauge", "hawser_start_time_seconds", "Start of this process, Unix seconds.", single(lambda: STARTED)),
        (
            "gauge",
            "hawser_build_info",
            "Version of the hub.",
            labelled("version", lambda: {VERSION: 1.0}),
        ),
    ]


def health(hub: Hub) -> dict[str, Any]:
    """The body of GET /hawser/v1/hub."""
    at = datetime.now(UTC)
    return {
        "version": VERSION,
        "startedAt": rfc3339(STARTED),
        "epoch": hub.epoch,
        "database": "postgresql" if hub.database.url is not None else "sqlite",
        "machines": by_status(hub),
        "nonceConflicts": conflicts(hub),
        "heldCheckins": hub.live.held,
        "unwrittenHeartbeats": hub.live.backlog,
        "certificates": [
            {"name": name, "expires": rfc3339(end.timestamp()), "daysLeft": (end - at).days}
            for name, end in certificates(hub).items()
        ],
        "artefacts": [
            {"role": name, "version": version, "expires": rfc3339(end.timestamp()), "daysLeft": (end - at).days}
            for name, (version, end) in roles(hub).items()
        ],
    }

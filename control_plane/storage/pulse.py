# SPDX-License-Identifier: Apache-2.0
"""The hot row as plain data, and its batch writer's statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from control_plane.storage.models import Heartbeat


@dataclass(frozen=True, slots=True)
class Pulse:
    """`seen`, `connected_since`: Unix seconds. `address`: the peer of the last check-in. `conflicts`: how often an
    unknown nonce came within one epoch (material for the verdicts of clone-specialization.md 5.1)."""

    seen: int
    connected_since: int
    epoch: int
    nonce: str
    previous_nonce: str
    request_id: str
    evidence_digest: str
    address: str
    conflicts: int


_COLUMNS = tuple(Pulse.__dataclass_fields__)
COLUMNS: tuple[Any, ...] = tuple(getattr(Heartbeat, name) for name in _COLUMNS)
"""What from_row() needs of a row, for statements that read it with others."""
# A machine may have been deleted since: its heartbeat is dropped, not an error for the whole batch. So is one whose row
# another process has rewritten since this one last did: that process speaks for the machine now.
_UPSERT = text(
    f"INSERT INTO heartbeats (machine_id, {', '.join(_COLUMNS)}) "  # noqa: S608 - names from the class above
    f"SELECT id, {', '.join(':' + name for name in _COLUMNS)} FROM machines WHERE id = :machine_id "
    f"ON CONFLICT (machine_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS)} "
    "WHERE :take_over OR heartbeats.nonce = :stored"
)


def from_row(row: Heartbeat | Row[*tuple[Any, ...]]) -> Pulse:
    """The plain form of a row that has COLUMNS."""
    return Pulse(**{name: getattr(row, name) for name in _COLUMNS})


def save(session: Session, rows: Mapping[int, tuple[Pulse, str | None]]) -> None:
    """Write the hot rows of many machines in one statement, each with the nonce that it replaces (None: any)."""
    session.execute(
        _UPSERT,
        [
            {"machine_id": key, **asdict(pulse), "stored": stored or "", "take_over": stored is None}
            for key, (pulse, stored) in sorted(rows.items())
        ],
    )

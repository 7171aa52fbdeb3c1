# SPDX-License-Identifier: Apache-2.0
"""The roles that the hub signs by itself: a snapshot of the targets in force (30 days), and a timestamp (7 days)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from control_plane.artefacts import place as places
from control_plane.artefacts.place import Place

T = TypeVar("T", Snapshot, Timestamp)
LIVES = {"snapshot": timedelta(days=30), "timestamp": timedelta(days=7)}


def moment(at: int) -> datetime:
    """Unix seconds as metadata has them."""
    return datetime.fromtimestamp(at, tz=UTC)


def due(role: str, expires: datetime, at: int) -> bool:
    """Whether half of a role's time is over. Pure."""
    return expires - moment(at) <= LIVES[role] / 2


def after(version: int, at: int) -> int:
    """The next version of targets, snapshot or timestamp. Pure.

    By the clock, so that a repository that came out of an old backup or bundle goes on ahead of what machines have seen
    at once, however much of it was lost. A clock that was far ahead locks nothing: from there on it is one more.
    """
    return max(version + 1, at)


def snapshot(
    targets: bytes, version: int, before: int, at: int, signers: Sequence[CryptoSigner], life: timedelta | None = None
) -> Metadata[Snapshot]:
    """A signed snapshot of a targets.json of a version. `before`: the version of the last snapshot."""
    meta = {"targets.json": MetaFile.from_data(version, targets, ["sha256"])}
    expires = moment(at) + (life or LIVES["snapshot"])
    return _signed(Metadata(Snapshot(version=after(before, at), expires=expires, meta=meta)), signers)


def timestamp(
    snapshot_text: bytes,
    version: int,
    before: int,
    at: int,
    signers: Sequence[CryptoSigner],
    life: timedelta | None = None,
) -> Metadata[Timestamp]:
    """A signed timestamp over a snapshot of a version. `before`: the version of the last timestamp."""
    meta = MetaFile.from_data(version, snapshot_text, ["sha256"])
    expires = moment(at) + (life or LIVES["timestamp"])
    return _signed(Metadata(Timestamp(version=after(before, at), expires=expires, snapshot_meta=meta)), signers)


def _signed(made: Metadata[T], signers: Sequence[CryptoSigner]) -> Metadata[T]:
    for signer in signers:
        made.sign(signer, append=True)
    return made


def put(place: Place, name: str, content: bytes) -> None:
    """A file of the metadata, unless it is there as it is."""
    path = place.metadata / name
    if not path.exists() or path.read_bytes() != content:
        places.write(path, content)

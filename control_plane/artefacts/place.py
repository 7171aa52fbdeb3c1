# SPDX-License-Identifier: Apache-2.0
"""Where the files of the repository are, and which of them are in force.

DATA/artefacts/metadata/   N.root.json, N.targets.json, N.snapshot.json, timestamp.json: what clients see
DATA/artefacts/targets/    packages; a file's name begins with its SHA-256 (consistent snapshots)
DATA/artefacts/staged/     root.json, targets.json: to be signed and published; targets/: their packages
DATA/artefacts/lock        held by whoever changes something here

What is in force hangs on two names: the highest N.root.json, and timestamp.json, which names the snapshot, which names
the targets. Any other file may be there or not, so that a change that was interrupted changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from control_plane.errors import OperatorError
from control_plane.settings import write_file

LOCK_SECONDS = 30.0
METADATA_NAME = re.compile(r"(?:[1-9]\d{0,11}\.(?:root|targets|snapshot)|timestamp)\.json")
"""Names in `metadata/`."""
TARGET_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._+-]{0,300}/){1,8}[0-9a-f]{64}\.[A-Za-z0-9][A-Za-z0-9._+-]{0,100}")
"""Paths below `targets/`."""
_NUMBERED = re.compile(r"([1-9]\d{0,11})\.root\.json")
S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True)
class Place:
    """`top`: DATA/artefacts."""

    top: Path

    @property
    def metadata(self) -> Path:
        """Signed files that clients see."""
        return self.top / "metadata"

    @property
    def targets(self) -> Path:
        """Published packages."""
        return self.top / "targets"

    @property
    def staged(self) -> Path:
        """What waits for signatures."""
        return self.top / "staged"

    @property
    def staged_targets(self) -> Path:
        """Packages that wait with it."""
        return self.staged / "targets"


def of(data: Path) -> Place:
    """The repository of a hub."""
    return Place(data / "artefacts")


@contextmanager
def locked(place: Place, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """The only one who writes here; makes the folders, and removes what a killed command left half written.

    Errors: OperatorError when another one goes on for longer than `seconds`, or nothing can be written.
    """
    try:
        for folder in (place.top, place.metadata, place.targets, place.staged, place.staged_targets):
            folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(place.top / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unwritable(place.top, error) from error
    try:
        ends = time.monotonic() + seconds
        while not _try(descriptor):
            if time.monotonic() > ends:
                raise OperatorError(
                    f"Another command has been changing {place.top} for a while.", "Wait for its end, then try again."
                )
            time.sleep(0.05)
        for folder in (place.metadata, place.staged):
            for left in folder.glob(".*"):
                left.unlink()
        for left in (*place.targets.rglob(".*"), *place.staged_targets.rglob(".*")):
            if left.is_file():
                left.unlink()
        yield
    except OSError as error:
        raise unwritable(Path(error.filename or place.top), error) from error
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unwritable(path: Path, error: OSError) -> OperatorError:
    """What is told when a file cannot be made or read."""
    return OperatorError(
        f"{path} cannot be written or read ({error.strerror}).",
        "Run the command as the hub's user, and see that the file system has free space.",
    )


def parse(content: bytes, kind: type[S], name: str) -> Metadata[S]:
    """Metadata of a role.

    Errors: OperatorError naming `name` when it is no metadata of that role.
    """
    damaged = OperatorError(
        f"{name} is no TUF metadata of the role {kind.type}.",
        "Use the file that 'artefacts' made; a damaged repository comes back with 'artefacts import-bundle'.",
    )
    try:
        found: Metadata[Any] = Metadata.from_bytes(content)
    except (DeserializationError, RepositoryError, ValueError, RecursionError) as error:
        raise damaged from error
    if found.signed.type != kind.type:
        raise damaged
    return found


def text_of(metadata: Metadata[S]) -> bytes:
    """The file's content, for people too."""
    return metadata.to_bytes(JSONSerializer(compact=False)) + b"\n"


def write(path: Path, content: bytes) -> None:
    """Whole or absent, whatever happens."""
    write_file(path, content, 0o644)


def newest_root(folder: Path) -> int:
    """The number of the root that is in force in a folder of metadata; 0: there is none."""
    names = (path.name for path in folder.glob("*.root.json"))
    return max((int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))), default=0)


@dataclass(frozen=True)
class Published:
    """What clients see."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]

    @property
    def roles(self) -> tuple[Signed, Signed, Signed, Signed]:
        """The four roles, those of the operator first."""
        return self.root.signed, self.targets.signed, self.snapshot.signed, self.timestamp.signed


def published(place: Place) -> Published | None:
    """What is in force; None before the first publication.

    Errors: OperatorError when a file of it is missing or damaged.
    """
    return in_force(place.metadata)


def in_force(folder: Path) -> Published | None:
    """The same of a folder of metadata."""
    number = newest_root(folder)
    if not number or not (folder / "timestamp.json").exists():
        return None
    timestamp = _read(folder / "timestamp.json", Timestamp)
    snapshot = _read(folder / f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
    targets = _read(folder / f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
    return Published(_read(folder / f"{number}.root.json", Root), timestamp, snapshot, targets)


def root_text(place: Place) -> str | None:
    """The text of the root in force, for cloud profiles; None before the first publication.

    Errors: OperatorError when it cannot be read.
    """
    number = newest_root(place.metadata)
    if not number or not (place.metadata / "timestamp.json").exists():
        return None
    try:
        return (place.metadata / f"{number}.root.json").read_text("utf-8")
    except OSError as error:
        raise unwritable(place.metadata, error) from error


def _read(path: Path, kind: type[S]) -> Metadata[S]:
    try:
        return parse(path.read_bytes(), kind, str(path))
    except FileNotFoundError as error:
        raise OperatorError(
            f"{path} is missing.", "Bring the repository back with 'hawser-hub artefacts import-bundle FILE'."
        ) from error
    except OSError as error:
        raise unwritable(path, error) from error


def staged(place: Place, kind: type[S]) -> Metadata[S] | None:
    """What waits for signatures of that role."""
    path = place.staged / f"{kind.type}.json"
    return _read(path, kind) if path.exists() else None

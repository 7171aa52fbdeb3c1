# SPDX-License-Identifier: Apache-2.0
"""Root and targets on their way to the operator's signature: DATA/artefacts/staged. Nothing here is seen by clients.

Whoever calls holds the lock of place.py.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from control_plane.artefacts import place as places
from control_plane.artefacts.online import after, moment
from control_plane.artefacts.place import Place, Published
from control_plane.errors import OperatorError
from control_plane.settings import sync

LIVES = {"root": timedelta(days=730), "targets": timedelta(days=365)}
BLOCK = 1 << 20


@dataclass(frozen=True)
class Holders:
    """Who signs a role: its public keys, and how many of them must."""

    keys: Sequence[SSlibKey]
    threshold: int = 1

    def check(self, role: str) -> None:
        """Errors: OperatorError when there are fewer keys than must sign."""
        if not 1 <= self.threshold <= len({key.keyid for key in self.keys}):
            raise OperatorError(
                f"{self.threshold} of {len(self.keys)} keys cannot be the threshold of {role}.",
                "Name as many different keys as must sign, or more.",
            )


def begin(place: Place, holders: dict[str, Holders], at: int) -> None:
    """Stage the first root and an empty list of targets. `holders`: of all four roles.

    Errors: OperatorError when there is a repository, or it was begun.
    """
    if places.newest_root(place.metadata) or (place.staged / "root.json").exists():
        raise OperatorError(
            f"There is a repository in {place.top} already.",
            "Go on with 'artefacts sign' and 'artefacts publish'; other keys come with 'artefacts rotate-root'.",
        )
    root = Root(version=1, expires=moment(at) + LIVES["root"], consistent_snapshot=True)
    for role, who in holders.items():
        hold(root, role, who)
    _stage(place, Metadata(Targets(version=1, expires=moment(at) + LIVES["targets"])))
    _stage(place, Metadata(root))


def hold(root: Root, role: str, who: Holders) -> None:
    """Let these keys sign a role, and no other."""
    who.check(role)
    for keyid in list(root.roles[role].keyids):
        root.revoke_key(keyid, role)
    for key in who.keys:
        root.add_key(key, role)
    root.roles[role].threshold = who.threshold


def _stage(place: Place, made: Metadata[Any]) -> None:
    places.write(place.staged / f"{made.signed.type}.json", places.text_of(made))


def published(place: Place) -> Published:
    """What clients see.

    Errors: OperatorError when nothing was published.
    """
    found = places.published(place)
    if found is None:
        raise OperatorError(
            f"Nothing was published in {place.top} yet.",
            "Finish 'artefacts init' first: artefacts sign --keys DIR, then artefacts publish.",
        )
    return found


def stage_root(place: Place, at: int, change: Callable[[Root], None]) -> int:
    """Stage a successor of the root, or change the one that is staged. Returns its version."""
    current = published(place).root.signed
    waiting = places.staged(place, Root)
    root = waiting.signed if waiting is not None and waiting.signed.version > current.version else deepcopy(current)
    root.version = current.version + 1
    root.expires = moment(at) + LIVES["root"]
    change(root)
    _stage(place, Metadata(root))
    return root.version


def targets(place: Place) -> Targets:
    """The list that is staged, else the one in force.

    Errors: OperatorError when there is no repository.
    """
    current, waiting = places.published(place), places.staged(place, Targets)
    if waiting is not None and (current is None or waiting.signed.version > current.targets.signed.version):
        return waiting.signed
    if current is None:
        raise OperatorError(
            f"There is no repository in {place.top}.",
            "Make one: hawser-hub artefacts init --root-key root.pub --targets-key targets.pub",
        )
    return current.targets.signed


def stage_targets(place: Place, at: int, change: Callable[[Targets], None]) -> int:
    """Stage a successor of the list, or change the one that is staged; signatures of that are void. Returns its
    version."""
    made, current = deepcopy(targets(place)), places.published(place)
    made.version = 1 if current is None else after(current.targets.signed.version, at)
    made.expires = moment(at) + LIVES["targets"]
    change(made)
    _stage(place, Metadata(made))
    return made.version


class Offered(Protocol):
    """A package that was looked at: an extension's, or the agent's."""

    @property
    def target(self) -> str: ...
    @property
    def custom(self) -> dict[str, Any]: ...
    @property
    def length(self) -> int: ...
    @property
    def sha256(self) -> str: ...


def add(place: Place, source: Path, package: Offered, at: int) -> bool:
    """Stage a package. False: it is there already, and nothing was changed.

    Errors: OperatorError: another one has its place, or the file changed meanwhile.
    """
    path = package.target
    for known, other in targets(place).targets.items():
        if known.lower() == path.lower():
            if known == path and other.hashes.get("sha256") == package.sha256 and _whole(place, other):
                return False
            if known != path or other.hashes.get("sha256") != package.sha256:
                raise OperatorError(
                    f"There is another package at {known}.",
                    "Raise its version: what machines may have installed never changes. A mistake goes with 'artefacts "
                    "remove'.",
                )
    target = TargetFile(package.length, {"sha256": package.sha256}, path, {"custom": package.custom})
    if not _whole(place, target):
        _copy(source, place.staged_targets / stored(target), package.sha256)

    def change(made: Targets) -> None:
        made.targets[path] = target

    stage_targets(place, at, change)
    return True


def remove(place: Place, path: str, at: int) -> None:
    """Stage the list without a package.

    Errors: OperatorError when it is not in there.
    """
    if path not in targets(place).targets:
        raise OperatorError(f"There is no package {path}.", "See 'hawser-hub artefacts list'.")

    def change(made: Targets) -> None:
        del made.targets[path]

    stage_targets(place, at, change)


def stored(target: TargetFile) -> str:
    """Where a package is below `targets/`: its name begins with its hash."""
    folder, _, name = target.path.rpartition("/")
    return f"{folder}/{target.hashes['sha256']}.{name}"


def _whole(place: Place, target: TargetFile) -> bool:
    """Whether its file is there, published or staged; what is in it was hashed when it came."""
    for folder in (place.targets, place.staged_targets):
        path = folder / stored(target)
        if path.is_file() and path.stat().st_size == target.length:
            return True
    return False


def _copy(source: Path, path: Path, sha256: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    digest = hashlib.sha256()
    with source.open("rb") as reader, part.open("wb") as writer:
        while block := reader.read(BLOCK):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    if digest.hexdigest() != sha256:
        part.unlink()
        raise OperatorError(f"{source} changed while it was read.", "Wait until it is written, then add it again.")
    os.replace(part, path)
    settle_folders(path.parent, place_top(path))


def place_top(path: Path) -> Path:
    """The folder `targets` that a package's file is below."""
    return next(parent for parent in path.parents if parent.name == "targets")


def settle_folders(folder: Path, top: Path) -> None:
    """Make names durable, of new folders too."""
    while True:
        sync(folder)
        if folder == top:
            return
        folder = folder.parent


def sign(path: Path, signers: Mapping[str, Sequence[CryptoSigner]]) -> tuple[Metadata[Any], int]:
    """Add the signatures of the keys of its role to a file; the metadata, and how many signed.

    Errors: OperatorError: the file is neither root nor targets, or there is no key for it.
    """
    made = read(path)
    role = made.signed.type
    if not signers[role]:
        raise OperatorError(f"There is no {role}*.key to sign {path} with.", "Name the folder of the operator's keys.")
    for signer in signers[role]:
        made.sign(signer, append=True)
    try:
        places.write(path, places.text_of(made))
    except OSError as error:
        raise places.unwritable(path, error) from error
    return made, len(signers[role])


def read(path: Path) -> Metadata[Any]:
    """A file that the operator signs.

    Errors: OperatorError when it is of another role, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be read ({error.strerror}).", "Name a staged root.json or targets.json."
        ) from error
    if _type(content) == Root.type:
        return places.parse(content, Root, str(path))
    return places.parse(content, Targets, str(path))


def _type(content: bytes) -> str:
    try:
        return str(json.loads(content)["signed"]["_type"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""

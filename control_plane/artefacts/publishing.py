# SPDX-License-Identifier: Apache-2.0
"""From staged to published: what clients see changes at once, with the rename of one file.

Packages come first, then targets and snapshot, which nobody asks for before the timestamp names them, then the
timestamp. A new root comes after all these where they are valid under the former one too, as they are when whoever held
a role before has signed along; else before them, and clients are turned away for the moment until the timestamp.
Killed anywhere, what is staged is still there, and `publish` does it again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from control_plane.artefacts import keys, online, staging
from control_plane.artefacts import place as places
from control_plane.artefacts.place import Place, Published
from control_plane.errors import OperatorError

KEPT_SECONDS = 86400
"""How long superseded files stay, for clients that are half way through."""


@dataclass(frozen=True)
class Outcome:
    """Versions in force, and paths of packages that came and went. `gap`: clients were turned away for a moment."""

    root: int
    targets: int
    added: list[str]
    removed: list[str]
    gap: bool


def take(place: Place, given: Sequence[Path]) -> None:
    """Bring files that were signed elsewhere to the staged ones; signatures of one and the same content are joined.

    Errors: OperatorError when a file is of something else than what is staged.
    """
    for path in given:
        found = staging.read(path)
        role = found.signed.type
        waiting: Metadata[Any] | None = places.staged(place, Root if role == Root.type else Targets)
        if waiting is None:
            current = places.published(place)
            if current is not None and _same(current.root if role == Root.type else current.targets, found):
                continue
            raise OperatorError(
                f"No {role} is staged that {path} could be.", "Sign what 'artefacts add' and 'artefacts init' staged."
            )
        if not _same(waiting, found):
            raise OperatorError(
                f"{path} is another {role} than the one that is staged.", "Sign the staged one, as it is now."
            )
        waiting.signatures.update(found.signatures)
        places.write(place.staged / f"{role}.json", places.text_of(waiting))


def _same(one: Metadata[Any], other: Metadata[Any]) -> bool:
    return one.signed_bytes == other.signed_bytes


def publish(place: Place, data: Path, at: int) -> Outcome:
    """Put what is staged in force. The lock is held.

    Errors: OperatorError: nothing is staged, signatures are missing, files are missing, something has expired.
    """
    current = places.published(place)
    root, targets = _waiting(place, current)
    _check_signed(current, root, targets, at)
    moves = _moves(place, targets.signed)
    roots = [root.signed] if current is None else [root.signed, current.root.signed]
    targets_text = _text(place, current, targets)
    before = (0, 0) if current is None else (current.snapshot.signed.version, current.timestamp.signed.version)
    snapshot = online.snapshot(
        targets_text, targets.signed.version, before[0], at, keys.online_signers(data, "snapshot", *roots)
    )
    text = places.text_of(snapshot)
    timestamp = online.timestamp(
        text, snapshot.signed.version, before[1], at, keys.online_signers(data, "timestamp", *roots)
    )
    for made in (snapshot, timestamp):
        if not valid(root.signed, made):
            raise OperatorError(
                f"This hub does not hold the {made.signed.type} key that the root names.",
                "Restore DATA/keys from a backup, or run 'artefacts rotate-online' and sign the new root.",
            )
    smooth = current is None or all(valid(current.root.signed, made) for made in (targets, snapshot, timestamp))

    for source, path in moves:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.replace(source, path)
        staging.settle_folders(path.parent, place.targets)
    root_name = f"{root.signed.version}.root.json"
    if not smooth:
        online.put(place, root_name, places.text_of(root))
    online.put(place, f"{targets.signed.version}.targets.json", targets_text)
    online.put(place, f"{snapshot.signed.version}.snapshot.json", text)
    places.write(place.metadata / "timestamp.json", places.text_of(timestamp))
    online.put(place, root_name, places.text_of(root))

    keys.settle_online(data, root.signed)
    for name in ("targets.json", "root.json"):
        (place.staged / name).unlink(missing_ok=True)
    if current is not None:
        retire(place, current)
    prune(place, at)
    old = set() if current is None else set(current.targets.signed.targets)
    new = set(targets.signed.targets)
    return Outcome(root.signed.version, targets.signed.version, sorted(new - old), sorted(old - new), not smooth)


def _waiting(place: Place, current: Published | None) -> tuple[Metadata[Root], Metadata[Targets]]:
    """Root and targets as they shall be: staged, else in force.

    Errors: OperatorError when neither is new, or one was staged over something older.
    """
    root, targets = places.staged(place, Root), places.staged(place, Targets)
    if current is None:
        if root is None or targets is None:
            raise OperatorError(f"There is no repository in {place.top}.", "Make one with 'hawser-hub artefacts init'.")
        return root, targets
    if root is None and targets is None:
        raise OperatorError("Nothing is staged.", "Stage something: artefacts add, remove, renew, rotate-root.")
    for waiting, standing in ((root, current.root), (targets, current.targets)):
        if waiting is None or _same(waiting, standing):
            continue  # an interrupted publication came as far as this
        ahead = waiting.signed.version - standing.signed.version
        if ahead < 1 or (ahead > 1 and waiting is root):  # clients take one root after the other
            role = waiting.signed.type
            raise OperatorError(
                f"The staged {role} has version {waiting.signed.version}, and {standing.signed.version} is in force.",
                f"Remove {place.staged / role}.json and stage the change again.",
            )
    return root or current.root, targets or current.targets


def _text(place: Place, current: Published | None, targets: Metadata[Targets]) -> bytes:
    """The bytes of targets.json; of one that is in force those that clients know the hash of."""
    if current is not None and targets is current.targets:
        return (place.metadata / f"{targets.signed.version}.targets.json").read_bytes()
    return places.text_of(targets)


def valid(root: Root, made: Metadata[Any]) -> bool:
    """Whether a root vouches for the metadata of another role."""
    return bool(root.get_verification_result(made.signed.type, made.signed_bytes, made.signatures))


def _check_signed(current: Published | None, root: Metadata[Root], targets: Metadata[Targets], at: int) -> None:
    """Errors: OperatorError unless root and targets are signed by who must, and are not expired."""
    whose = {"root": [root.signed], "targets": [root.signed]}
    if current is not None and not _same(current.root, root):
        whose["root"].insert(0, current.root.signed)
    for made in (root, targets):
        role = made.signed.type
        for number, judge in enumerate(whose[role]):
            found = judge.get_verification_result(role, made.signed_bytes, made.signatures)
            if not found:
                former = " former" if len(whose[role]) > 1 and number == 0 else ""
                strangers = set(made.signatures) - set(judge.roles[role].keyids)
                others = f"; of keys that the{former} root does not name: {len(strangers)}" if strangers else ""
                of = f" of the{former} root" if former else ""
                raise OperatorError(
                    f"The {role} has {len(found.signed)} of {found.threshold} signatures{of} that it needs{others}.",
                    "Sign it with the keys that the root names: hawser-hub artefacts sign --keys DIR, or, where they "
                    f"are elsewhere, with the path of the {role}.json that you have carried there.",
                )
        if made.signed.expires <= online.moment(at):
            raise OperatorError(
                f"The {role} has expired.", "Stage it anew with 'hawser-hub artefacts renew', sign and publish it."
            )


def _moves(place: Place, targets: Targets) -> list[tuple[Path, Path]]:
    """Which packages go from where to where.

    Errors: OperatorError when one is missing or is not what the targets say.
    """
    found = []
    for target in targets.targets.values():
        path = place.targets / staging.stored(target)
        if path.is_file() and path.stat().st_size == target.length:
            continue
        source = place.staged_targets / staging.stored(target)
        if not source.is_file() or not is_target(source, target):
            raise OperatorError(
                f"The package {target.path} is not here, or damaged.",
                "Add its file again: hawser-hub artefacts add FILE",
            )
        found.append((source, path))
    return found


def is_target(path: Path, target: TargetFile) -> bool:
    """Whether a file has the length and the hash of a target."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return path.stat().st_size == target.length and digest == target.hashes["sha256"]


def retire(place: Place, former: Published) -> None:
    """Note when files were superseded: in the time of their last change."""
    for name in (f"{former.snapshot.signed.version}.snapshot.json", f"{former.targets.signed.version}.targets.json"):
        if (place.metadata / name).exists():
            os.utime(place.metadata / name)


def prune(place: Place, at: int) -> None:
    """Remove what nobody can be on the way to any more, and packages that no list names. Roots stay for ever."""
    current, waiting = places.published(place), places.staged(place, Targets)
    if current is None:
        return
    in_force = {
        f"{current.snapshot.signed.version}.snapshot.json",
        f"{current.targets.signed.version}.targets.json",
    }
    before = min(at, int(time.time())) - KEPT_SECONDS
    needed: set[str] = set()
    for path in [*place.metadata.glob("*.snapshot.json"), *place.metadata.glob("*.targets.json")]:
        if path.name not in in_force and path.stat().st_mtime < before:
            path.unlink()
        elif path.name.endswith(".targets.json"):
            listed = places.parse(path.read_bytes(), Targets, str(path)).signed
            needed |= {staging.stored(target) for target in listed.targets.values()}
    _sweep(place.targets, needed)
    _sweep(
        place.staged_targets,
        {staging.stored(target) for target in waiting.signed.targets.values()} if waiting is not None else set(),
    )


def _sweep(top: Path, needed: set[str]) -> None:
    for folder, folders, files in os.walk(top, topdown=False):
        for name in files:
            path = Path(folder, name)
            if path.relative_to(top).as_posix() not in needed:
                path.unlink()
        for name in folders:
            if not any(Path(folder, name).iterdir()):
                Path(folder, name).rmdir()


def refresh(place: Place, data: Path, at: int, *, force: bool = False) -> list[str]:
    """Renew snapshot and timestamp when half of their time is over; which were. The lock is held. Nothing is done where
    nothing is published; a hub that only serves a copy removes what its imports have superseded."""
    current = places.published(place)
    if current is None:
        return []
    root = current.root.signed
    signers = {role: keys.online_signers(data, role, root) for role in keys.ONLINE}
    if not all(signers.values()):
        prune(place, at)
        return []
    old = {"snapshot": current.snapshot.signed, "timestamp": current.timestamp.signed}
    wanted = [role for role, signed in old.items() if force or online.due(role, signed.expires, at)]
    if not wanted:
        return []
    version, listed = current.snapshot.signed.version, current.targets.signed.version
    text = (place.metadata / f"{version}.snapshot.json").read_bytes()
    if "snapshot" in wanted:
        targets = (place.metadata / f"{listed}.targets.json").read_bytes()
        made = online.snapshot(targets, listed, version, at, signers["snapshot"])
        text, version = places.text_of(made), made.signed.version
        online.put(place, f"{version}.snapshot.json", text)
    timestamp = online.timestamp(text, version, current.timestamp.signed.version, at, signers["timestamp"])
    places.write(place.metadata / "timestamp.json", places.text_of(timestamp))
    if "snapshot" in wanted:
        retire(place, current)
    prune(place, at)
    return wanted if "timestamp" in wanted else [*wanted, "timestamp"]

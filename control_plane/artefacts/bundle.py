# SPDX-License-Identifier: Apache-2.0
"""The repository in one file, for a site without the internet: a tar of `metadata/` and `targets/` as clients see them.

Whoever imports it verifies it as a machine does, with python-tuf's own client, from a root it trusts already.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from control_plane.artefacts import keys, online, publishing, staging
from control_plane.artefacts import place as places
from control_plane.artefacts.package import SIZE_LIMIT
from control_plane.artefacts.place import Place, Published
from control_plane.clock import now
from control_plane.errors import OperatorError
from control_plane.settings import sync

_BASE = "bundle:/"
_METADATA_LIMIT = 64 << 20


def write(place: Place, data: Path, target: Path, at: int, days: int | None) -> int:
    """Write the repository in force to `target`, which must not exist; how many packages are in it. The lock is held.

    `days`: sign a snapshot and a timestamp for the bundle that are valid for so long; None: those in force, renewed.
    Errors: OperatorError.
    """
    if target.exists():
        raise OperatorError(f"{target} exists.", "Name a file that does not.")
    publishing.refresh(place, data, at, force=True)
    current = staging.published(place)
    names = [f"{number}.root.json" for number in range(1, current.root.signed.version + 1)]
    files = {name: (place.metadata / name).read_bytes() for name in names if (place.metadata / name).exists()}
    files.update(_signed_for(place, data, current, at, days))
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for name, content in files.items():
                    member = tarfile.TarInfo(f"metadata/{name}")
                    member.size, member.mtime, member.mode = len(content), at, 0o644
                    tar.addfile(member, io.BytesIO(content))
                for item in current.targets.signed.targets.values():
                    path = place.targets / staging.stored(item)
                    member = tarfile.TarInfo(f"targets/{staging.stored(item)}")
                    member.size, member.mtime, member.mode = item.length, at, 0o644
                    with path.open("rb") as package:
                        tar.addfile(member, package)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
        sync(target.absolute().parent)
    except OSError as error:
        raise OperatorError(
            f"The bundle cannot be written ({error.strerror}).", "Free some space, or name another place."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return len(current.targets.signed.targets)


def _signed_for(place: Place, data: Path, current: Published, at: int, days: int | None) -> dict[str, bytes]:
    listed = current.targets.signed.version
    targets = (place.metadata / f"{listed}.targets.json").read_bytes()
    version = current.snapshot.signed.version
    text = (place.metadata / f"{version}.snapshot.json").read_bytes()
    timestamp = (place.metadata / "timestamp.json").read_bytes()
    if days is not None:
        root, life = current.root.signed, timedelta(days=days)
        signers = {role: keys.online_signers(data, role, root) for role in keys.ONLINE}
        if not all(signers.values()):
            raise OperatorError(
                "This hub does not hold the snapshot and timestamp keys that the root names.",
                "Export from the hub that publishes, or leave --valid-days out.",
            )
        made = online.snapshot(targets, listed, version, at, signers["snapshot"], life)
        version, text = made.signed.version, places.text_of(made)
        last = current.timestamp.signed.version
        timestamp = places.text_of(online.timestamp(text, version, last, at, signers["timestamp"], life))
    return {f"{listed}.targets.json": targets, f"{version}.snapshot.json": text, "timestamp.json": timestamp}


class _Unpacked(FetcherInterface):
    """Reads metadata from the unpacked bundle."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / url.removeprefix(_BASE).lstrip("/")
        if not path.exists():
            raise DownloadHTTPError(f"{path.name} is not in the bundle", 404)
        return iter([path.read_bytes()])


def read(place: Place, source: Path, root: Path | None) -> tuple[int, int]:
    """Verify a bundle and put it in force; the version of its targets and the number of packages. The lock is held.

    `root`: a root.json that is trusted; None: the one in force here.
    Errors: OperatorError; nothing was changed then.
    """
    current = places.published(place)
    if root is not None:
        anchor = places.parse(_content(root), Root, str(root))
        bootstrap = _content(root)
    elif current is not None:
        anchor, bootstrap = current.root, (place.metadata / f"{current.root.signed.version}.root.json").read_bytes()
    else:
        raise OperatorError(
            "There is no root here that the bundle could be verified with.",
            "Name one that you trust: --root root.json, as the cloud profile of the other hub has it.",
        )
    room = place.top / "import"
    shutil.rmtree(room, ignore_errors=True)
    try:
        _unpack(source, room)
        seen = room / "seen"
        seen.mkdir()
        if current is not None:
            for name, version in (
                ("snapshot", current.snapshot.signed.version),
                ("targets", current.targets.signed.version),
            ):
                shutil.copyfile(place.metadata / f"{version}.{name}.json", seen / f"{name}.json")
            shutil.copyfile(place.metadata / "timestamp.json", seen / "timestamp.json")
        found = _verified(source, room, seen, bootstrap, anchor.signed.version)
        if current is not None:
            _check_same(place, room, current)
            _check_staged(place, found, current)
        _settle(place, room, found, current)
        publishing.prune(place, now())
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return found.targets.signed.version, len(found.targets.signed.targets)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", "Name a root.json.") from error


def _unpack(source: Path, room: Path) -> None:
    """Errors: OperatorError unless it holds nothing but what a repository has."""
    damaged = OperatorError(
        f"{source} is damaged or no bundle.", "Export it again: hawser-hub artefacts export-bundle."
    )
    (room / "metadata").mkdir(parents=True, mode=0o700)
    try:
        with tarfile.open(source, mode="r:") as tar:
            for member in tar:
                top, _, name = member.name.partition("/")
                known = {"metadata": places.METADATA_NAME, "targets": places.TARGET_NAME}.get(top)
                limit = _METADATA_LIMIT if top == "metadata" else SIZE_LIMIT
                stream = tar.extractfile(member) if member.isreg() else None
                if known is None or not known.fullmatch(name) or stream is None or member.size > limit:
                    raise damaged
                path = room / top / name
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with path.open("xb") as writer:
                    shutil.copyfileobj(stream, writer, staging.BLOCK)
                    writer.flush()
                    os.fsync(writer.fileno())
    except FileNotFoundError as error:
        raise OperatorError(f"There is no file {source}.", "Name a bundle.") from error
    except (tarfile.TarError, FileExistsError, EOFError, ValueError) as error:
        raise damaged from error


def _verified(source: Path, room: Path, seen: Path, bootstrap: bytes, first: int) -> Published:
    """The bundle's metadata, once a client with that root would take it and every package is what it says.

    Errors: OperatorError.
    """
    folder = room / "metadata"
    try:
        updater = Updater(str(seen), _BASE, fetcher=_Unpacked(folder), bootstrap=bootstrap)
        updater.refresh()
    except ExpiredMetadataError as error:
        raise OperatorError(f"{source} has expired ({error}).", "Export a new bundle.") from error
    except (RepositoryError, DownloadError, ValueError) as error:
        raise OperatorError(
            f"{source} is not what the trusted root vouches for ({error}).",
            "Use a bundle that is not older than what is in force, of the repository that the root belongs to.",
        ) from error
    number = first
    while (seen / "root_history" / f"{number + 1}.root.json").exists():
        number += 1
    # What the client has verified is what is put in force; nothing else of the bundle is.
    verified = room / "verified"
    verified.mkdir()
    for version in range(first, number + 1):
        shutil.copyfile(seen / "root_history" / f"{version}.root.json", verified / f"{version}.root.json")
    shutil.copyfile(seen / "timestamp.json", verified / "timestamp.json")
    timestamp = places.parse((seen / "timestamp.json").read_bytes(), Timestamp, "timestamp.json")
    shutil.copyfile(seen / "snapshot.json", verified / f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
    snapshot = places.parse((seen / "snapshot.json").read_bytes(), Snapshot, "snapshot.json")
    shutil.copyfile(seen / "targets.json", verified / f"{snapshot.signed.meta['targets.json'].version}.targets.json")
    found = places.in_force(verified)
    if found is None:
        raise OperatorError(f"{source} is damaged or no bundle.", "Export it again.")
    for target in found.targets.signed.targets.values():
        path = room / "targets" / staging.stored(target)
        if not path.is_file() or not publishing.is_target(path, target):
            raise OperatorError(f"The package {target.path} is missing in {source}, or damaged.", "Export it again.")
    return found


def _check_same(place: Place, room: Path, current: Published) -> None:
    """Errors: OperatorError when the bundle is of another repository than the one that is here."""
    name = f"{current.root.signed.version}.root.json"
    theirs = room / "verified" / name
    if not theirs.exists() or theirs.read_bytes() != (place.metadata / name).read_bytes():
        raise OperatorError(
            "The bundle is of another repository than the one that is served here.",
            f"Leave --root out to stay with that; else move {place.top} away first.",
        )


def _check_staged(place: Place, found: Published, current: Published) -> None:
    """Errors: OperatorError when a list is staged that the bundle's would come in between: published after it, it would
    take back what the bundle brings, and its version, which is of the clock, does not tell."""
    waiting = places.staged(place, Targets)
    if waiting is not None and current.targets.signed.version < found.targets.signed.version < waiting.signed.version:
        raise OperatorError(
            "A list is staged here that knows nothing of what the bundle brings.",
            f"Remove {place.staged / 'targets.json'}, import the bundle, and stage the change again.",
        )


def _settle(place: Place, room: Path, found: Published, current: Published | None) -> None:
    for target in found.targets.signed.targets.values():
        path = place.targets / staging.stored(target)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.replace(room / "targets" / staging.stored(target), path)
        staging.settle_folders(path.parent, place.targets)
    roots = sorted((room / "verified").glob("*.root.json"), key=lambda path: int(path.name.partition(".")[0]))
    smooth = current is not None and all(
        publishing.valid(current.root.signed, made) for made in (found.targets, found.snapshot, found.timestamp)
    )
    if not smooth:
        for path in roots:
            online.put(place, path.name, path.read_bytes())
    for name in (f"{found.targets.signed.version}.targets.json", f"{found.snapshot.signed.version}.snapshot.json"):
        online.put(place, name, (room / "verified" / name).read_bytes())
    places.write(place.metadata / "timestamp.json", (room / "verified" / "timestamp.json").read_bytes())
    for path in roots:
        online.put(place, path.name, path.read_bytes())
    if current is not None:
        publishing.retire(place, current)

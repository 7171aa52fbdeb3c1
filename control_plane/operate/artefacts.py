# SPDX-License-Identifier: Apache-2.0
"""The repository of packages from the command line: files, the lock, the audit (control_plane/artefacts/)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuf.api.metadata import Root, Targets

from control_plane.artefacts import bundle, catalogue, keys, publishing, staging
from control_plane.artefacts import place as places
from control_plane.artefacts.online import moment
from control_plane.artefacts.staging import Holders
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.setup import operator
from control_plane.storage import audit

Asked = Callable[[Path], bytes]
"""Gives the passphrase of a key's file."""


def _audited(data: Path, action: str, target: str, detail: dict[str, Any] | None = None) -> None:
    with opened(data) as (database, _), database.write() as session:
        audit.record(session, operator(), f"artefacts/{action}", target, detail=detail)


def _check_hub(data: Path) -> None:
    """Errors: OperatorError when there is no hub in `data`: nothing must be made in a folder that was misspelt."""
    with opened(data):
        pass


def holders(files: Sequence[Path], threshold: int) -> Holders:
    """Who signs a role.

    Errors: OperatorError: a file holds no public key, or there are fewer than must sign.
    """
    return Holders([keys.public(path) for path in files], threshold)


def init(data: Path, root: Holders, targets: Holders) -> dict[str, list[str]]:
    """Stage the first root and targets; key ids by role.

    Errors: OperatorError.
    """
    _check_hub(data)
    place = places.of(data)
    for role, who in (("root", root), ("targets", targets)):
        who.check(role)
    with places.locked(place):
        online = {role: Holders([key]) for role, key in keys.make_online(data).items()}
        every = {"root": root, "targets": targets, **online}
        staging.begin(place, every, now())
    found = {role: [key.keyid for key in who.keys] for role, who in every.items()}
    _audited(data, "init", "hub", {"keys": found})
    return found


def add(data: Path, source: Path, found: staging.Offered) -> bool:
    """Stage a package. False: it was there.

    Errors: OperatorError.
    """
    _check_hub(data)
    place = places.of(data)
    with places.locked(place):
        fresh = staging.add(place, source, found, now())
    if fresh:
        _audited(data, "add", found.target, {"sha256": found.sha256, "length": found.length})
    return fresh


def remove(data: Path, path: str) -> None:
    """Stage the list without a package.

    Errors: OperatorError.
    """
    _check_hub(data)
    place = places.of(data)
    with places.locked(place):
        staging.remove(place, path, now())
    _audited(data, "remove", path)


def renew(data: Path) -> dict[str, int]:
    """Stage root and targets with a new date of expiry; their versions.

    Errors: OperatorError.
    """
    place = places.of(data)
    with places.locked(place):
        at = now()
        found = {
            "root": staging.stage_root(place, at, lambda _: None),
            "targets": staging.stage_targets(place, at, lambda _: None),
        }
    _audited(data, "renew", "hub", found)
    return found


def rotate(data: Path, role: str, who: Holders | None) -> int:
    """Stage a root with other keys for a role; its version. `who` None, with role `online`: successors that the hub
    makes itself.

    Errors: OperatorError.
    """
    place = places.of(data)
    with places.locked(place):
        staging.published(place)
        at = now()
        if who is None:
            fresh = {name: Holders([key]) for name, key in keys.make_online(data, "-next").items()}
        else:
            who.check(role)
            fresh = {role: who}

        def change(root: Root) -> None:
            for name, holding in fresh.items():
                staging.hold(root, name, holding)

        version = staging.stage_root(place, at, change)
        if role == "targets":
            staging.stage_targets(place, at, lambda _: None)
    detail = {name: [key.keyid for key in holding.keys] for name, holding in fresh.items()}
    _audited(data, f"rotate/{role}", "hub", detail)
    return version


def staged_files(data: Path) -> list[Path]:
    """What waits for signatures.

    Errors: OperatorError when nothing does.
    """
    folder = places.of(data).staged
    found = [folder / f"{role}.json" for role in keys.OFFLINE if (folder / f"{role}.json").exists()]
    if not found:
        raise OperatorError(f"Nothing is staged in {folder}.", "Name files, or stage something: artefacts add.")
    return found


def sign(folder: Path, files: Sequence[Path], passphrase: Asked) -> list[dict[str, Any]]:
    """Sign files where the operator's keys are; what was signed, for the eyes of who signs.

    Errors: OperatorError.
    """
    wanted = {staging.read(path).signed.type for path in files}
    signers = {role: keys.signers(folder, role, passphrase) for role in sorted(wanted)}
    found = []
    for path in files:
        made, count = staging.sign(path, signers)
        signed = made.signed
        about: dict[str, Any] = {
            "file": str(path),
            "role": signed.type,
            "version": signed.version,
            "expires": rfc3339(signed.expires.timestamp()),
            "signatures": len(made.signatures),
            "by": count,
        }
        if isinstance(signed, Targets):
            about["packages"] = {name: item.hashes["sha256"] for name, item in sorted(signed.targets.items())}
        else:
            about["keys"] = {name: list(role.keyids) for name, role in signed.roles.items()}
        found.append(about)
    return found


def publish(data: Path, files: Sequence[Path]) -> publishing.Outcome:
    """Put what is staged in force, and tell the database which packages there are.

    Errors: OperatorError.
    """
    _check_hub(data)
    place = places.of(data)
    with places.locked(place):
        publishing.take(place, files)
        done = publishing.publish(place, data, now())
        _note(
            data, "publish", {"root": done.root, "targets": done.targets, "added": done.added, "removed": done.removed}
        )
    return done


def _note(data: Path, action: str, detail: dict[str, Any]) -> None:
    """The audit's row and the catalogue, in one transaction."""
    current = staging.published(places.of(data))
    with opened(data) as (database, _), database.write() as session:
        catalogue.replace(session, current.targets.to_dict())
        audit.record(session, operator(), f"artefacts/{action}", "hub", detail=detail)


def every(data: Path) -> dict[str, Any]:
    """Roles in force, packages published and staged.

    Errors: OperatorError when there is no repository.
    """
    place, at = places.of(data), moment(now())
    current, waiting = places.published(place), staging.targets(place)
    known = {} if current is None else current.targets.signed.targets
    packages = []
    for path in sorted(known.keys() | waiting.targets.keys()):
        item = waiting.targets.get(path) or known[path]
        state = "published" if path in known and path in waiting.targets else "staged"
        if path not in waiting.targets:
            state = "to be removed"
        packages.append({"path": path, "length": item.length, "sha256": item.hashes["sha256"], "state": state})
    roles = [] if current is None else current.roles
    return {
        "roles": [
            {
                "role": signed.type,
                "version": signed.version,
                "expires": rfc3339(signed.expires.timestamp()),
                "daysLeft": (signed.expires - at).days,
            }
            for signed in roles
        ],
        "staged": [role for role in keys.OFFLINE if (place.staged / f"{role}.json").exists()],
        "packages": packages,
    }


def refresh(data: Path, *, force: bool) -> list[str]:
    """Renew snapshot and timestamp where half of their time is over, or all; which were.

    Errors: OperatorError.
    """
    place = places.of(data)
    with places.locked(place):
        staging.published(place)
        return publishing.refresh(place, data, now(), force=force)


def export_bundle(data: Path, target: Path, days: int | None) -> int:
    """Write the repository into one file; how many packages are in it.

    Errors: OperatorError.
    """
    _check_hub(data)
    place = places.of(data)
    with places.locked(place):
        count = bundle.write(place, data, target, now(), days)
    _audited(data, "export-bundle", "hub", {"packages": count})
    return count


def import_bundle(data: Path, source: Path, root: Path | None) -> tuple[int, int]:
    """Verify a bundle and put it in force; version of its targets, number of packages.

    Errors: OperatorError.
    """
    _check_hub(data)
    place = places.of(data)
    with places.locked(place):
        version, count = bundle.read(place, source, root)
        _note(data, "import-bundle", {"targets": version, "packages": count})
    return version, count

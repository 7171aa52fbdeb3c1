# SPDX-License-Identifier: Apache-2.0
"""The catalogue of extension packages: what the signed metadata of the artefacts name (docs/protocol.md section 15.3).

Whoever publishes metadata calls `replace`, in the transaction in which they come into force. The running hub sees by
itself that the catalogue is another one (extensions/keeper.py), whichever process has written it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.clock import now
from control_plane.extensions import versions
from control_plane.extensions.wish import handler_key
from control_plane.storage.extension_models import ExtensionPackage

log = logging.getLogger("hawser.hub.extensions")
_ARCHES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Package:
    """One target. `path`: of the target; `length`: bytes; `sha256`: hex; `os`: linux, windows; `arch`: any, x86_64,
    aarch64."""

    publisher: str
    type: str
    version: str
    os: str
    arch: str
    path: str
    length: int
    sha256: str
    supports_multiple: bool

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What there is one package of: handler, version, system, architecture."""
        return handler_key(self.publisher, self.type), self.version, self.os, self.arch


def _package(row: ExtensionPackage) -> Package:
    return Package(
        row.publisher,
        row.type,
        row.version,
        row.os,
        row.arch,
        row.path,
        row.length,
        row.sha256,
        row.supports_multiple,
    )


def _read(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str, str], Package]:
    """Packages by key; what cannot be one is left out, for the signed metadata stand whatever they name."""
    found: dict[tuple[str, str, str, str], Package] = {}
    for row in rows:
        if not versions.is_version(row["version"]):
            log.warning(
                "The target %s has the version '%s', which is none; it is left out.", row["path"], row["version"]
            )
            continue
        package = Package(
            row["publisher"],
            row["type"],
            row["version"],
            row["os"],
            row["arch"],
            row["path"],
            row["length"],
            row["sha256"],
            bool(row["supportsMultipleExtensions"]),
        )
        found[package.key] = package
    return found


def replace(session: Session, rows: Iterable[Mapping[str, Any]]) -> None:
    """Make the catalogue hold exactly these; what is the same stays as it is. A row: `{"publisher", "type", "version",
    "os", "arch", "path", "length", "sha256", "supportsMultipleExtensions"}`, as the targets' `custom` has them."""
    wanted = _read(rows)
    for row in session.scalars(select(ExtensionPackage)).all():
        if wanted.get(_package(row).key) == _package(row):
            del wanted[_package(row).key]
        else:
            session.delete(row)
    session.flush()
    at = now()
    session.add_all(
        ExtensionPackage(
            handler_key=item.key[0],
            publisher=item.publisher,
            type=item.type,
            version=item.version,
            os=item.os,
            arch=item.arch,
            path=item.path,
            length=item.length,
            sha256=item.sha256,
            supports_multiple=item.supports_multiple,
            created=at,
        )
        for item in wanted.values()
    )
    session.flush()


def stamp(session: Session) -> tuple[int, int]:
    """Another one after every change of the catalogue."""
    found = session.execute(select(func.count(), func.coalesce(func.max(ExtensionPackage.id), 0))).one()
    return int(found[0]), int(found[1])


def packages(session: Session) -> list[Package]:
    """Every package, in the order in which they came."""
    return [_package(row) for row in session.scalars(select(ExtensionPackage).order_by(ExtensionPackage.id))]


def of_handlers(session: Session, keys: Iterable[str]) -> dict[str, list[Package]]:
    """The packages of these handlers, by handler."""
    found: dict[str, list[Package]] = {}
    for row in session.scalars(select(ExtensionPackage).where(ExtensionPackage.handler_key.in_(set(keys)))):
        found.setdefault(row.handler_key, []).append(_package(row))
    return found


def since(session: Session, key: str, version: str) -> int | None:
    """When the packages of a handler's version came (Unix seconds), the last of them; None: there are none."""
    rows = session.scalars(select(ExtensionPackage).where(ExtensionPackage.handler_key == key))
    return max((row.created for row in rows if versions.same(row.version, version)), default=None)


def fitting(known: Sequence[Package], os_type: str, arch: str) -> list[Package]:
    """Those for a machine. Pure. `os_type`, `arch`: as its inventory tells; empty: not known, and then any will do."""
    folded = _ARCHES.get(arch.lower(), arch.lower())
    return [
        item for item in known if os_type.lower() in ("", item.os) and (item.arch == "any" or folded in ("", item.arch))
    ]


def chosen(known: Sequence[Package], version: str, os_type: str, arch: str) -> Package | None:
    """The package of a version for a machine: the one of its architecture before one for any. Pure."""
    found = [item for item in fitting(known, os_type, arch) if versions.same(item.version, version)]
    return min(found, key=lambda item: item.arch == "any", default=None)

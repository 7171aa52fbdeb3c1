# SPDX-License-Identifier: Apache-2.0
"""The catalogue of extension packages: what the signed metadata of the artefacts name (docs/protocol.md section 15.3).

Whoever publishes metadata calls `replace`, in the transaction in which they come into force. The running hub sees by
itself that the catalogue is another one (extensions/keeper.py), whichever process has written it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.extensions import versions
from control_plane.extensions.wish import handler_key
from control_plane.storage.extension_models import ExtensionPackage

_ARCHES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Package:
    """One target. `path`: of the target; `length`: bytes; `sha256`: hex; `os`: linux, windows; `arch`: any, x86_64,
    aarch64; `created`: Unix seconds."""

    publisher: str
    type: str
    version: str
    os: str
    arch: str
    path: str
    length: int
    sha256: str
    supports_multiple: bool
    created: int

    @property
    def handler_key(self) -> str:
        """`publisher.type` as it is compared."""
        return handler_key(self.publisher, self.type)


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
        row.created,
    )


def replace(session: Session, rows: Iterable[Package]) -> None:
    """Make the catalogue hold exactly these; what is the same stays as it is.

    Errors: ValueError for a version that is none, and for two packages of one handler, version, system and
    architecture.
    """
    wanted: dict[tuple[str, str, str, str], Package] = {}
    for item in rows:
        key = (item.handler_key, item.version, item.os, item.arch)
        if not versions.is_version(item.version):
            raise ValueError(f"'{item.version}' of {item.publisher}.{item.type} is no version.")
        if key in wanted:
            raise ValueError(f"{item.path} and {wanted[key].path} are packages of one handler and version.")
        wanted[key] = item
    for row in session.scalars(select(ExtensionPackage)).all():
        found = wanted.pop((row.handler_key, row.version, row.os, row.arch), None)
        if found is None:
            session.delete(row)
        elif found != _package(row):
            session.delete(row)
            wanted[found.handler_key, found.version, found.os, found.arch] = found
    session.flush()
    session.add_all(
        ExtensionPackage(
            handler_key=item.handler_key,
            publisher=item.publisher,
            type=item.type,
            version=item.version,
            os=item.os,
            arch=item.arch,
            path=item.path,
            length=item.length,
            sha256=item.sha256,
            supports_multiple=item.supports_multiple,
            created=item.created,
        )
        for item in wanted.values()
    )
    session.flush()


def stamp(session: Session) -> tuple[int, int]:
    """Another one after every change of the catalogue."""
    found = session.execute(select(func.count(), func.coalesce(func.max(ExtensionPackage.id), 0))).one()
    return int(found[0]), int(found[1])


def packages(session: Session) -> list[Package]:
    """Every package, by handler and version."""
    rows = session.scalars(select(ExtensionPackage).order_by(ExtensionPackage.handler_key, ExtensionPackage.id))
    return sorted(map(_package, rows), key=lambda item: (item.handler_key, versions.parts(item.version)))


def of_handlers(session: Session, keys: Iterable[str]) -> dict[str, list[Package]]:
    """The packages of these handlers, by handler."""
    found: dict[str, list[Package]] = {}
    for row in session.scalars(select(ExtensionPackage).where(ExtensionPackage.handler_key.in_(set(keys)))):
        found.setdefault(row.handler_key, []).append(_package(row))
    return found


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

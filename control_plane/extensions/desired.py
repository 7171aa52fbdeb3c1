# SPDX-License-Identifier: Apache-2.0
"""Content of the desired document of kind `extensions` (docs/protocol.md section 15.1)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from control_plane.errors import ApiError
from control_plane.extensions import envelope, order
from control_plane.storage import catalogue, extensions
from control_plane.storage.catalogue import Package
from control_plane.storage.extensions import Kept
from control_plane.storage.models import Machine
from control_plane.storage.resource_models import Resource

KIND = "extensions"
MAX_EXTENSIONS = 256
MAX_DOCUMENT = 1024 * 1024 - 4096
"""Bytes of the signed text: a machine takes 1 MiB, together with what a frame has around it (section 10)."""
_AROUND = 1024  # header, signature and the members of the payload beside `content`


def incarnation(resource: Resource) -> str:
    """Tells what is made anew from what had its name before, also from what a restored hub has forgotten, whose id may
    be given again. Its sequence numbers are none of another's."""
    return f"{resource.id}-{resource.created}"


def _told(package: Package | None) -> dict[str, Any] | None:
    return {"path": package.path, "length": package.length, "sha256": package.sha256} if package else None


def _item(kept: Kept, package: Package | None, former: Package | None, level: int) -> dict[str, Any]:
    row, properties = kept.row, kept.resource.properties
    return {
        "name": kept.resource.name,
        "publisher": package.publisher if package else properties["publisher"],
        "type": package.type if package else properties["type"],
        "version": package.version if package else row.version,
        "incarnation": incarnation(kept.resource),
        "sequence": row.sequence,
        "publicSettings": properties.get("settings"),
        "protectedSettings": row.protected,
        "protectedSettingsCertThumbprint": envelope.thumbprint(row.certificate) if row.certificate else None,
        "dependencyLevel": level,
        "rollbackTo": row.rollback_to,
        "package": _told(package),
        "rollbackPackage": _told(former),
    }


def after(wanted: Iterable[Kept]) -> dict[str, list[str]]:
    """Of each extension, by name in lower case, the names of those that it comes after."""
    return {
        kept.resource.name.lower(): [name.lower() for name in kept.resource.properties.get(order.MEMBER) or ()]
        for kept in wanted
    }


def content(session: Session, machine: Machine) -> dict[str, Any]:
    """Everything that shall be on a machine."""
    wanted = [kept for kept in extensions.of_machine(session, machine.id) if kept.row.removed is None]
    known = catalogue.of_handlers(session, (kept.row.handler_key for kept in wanted))
    host = extensions.host_of(session, machine)
    levels = order.levels(after(wanted))
    items = []
    for kept in wanted:
        found = known.get(kept.row.handler_key, [])
        package, former = (
            catalogue.chosen(found, version, host.os_type, host.arch) if version else None
            for version in (kept.row.version, kept.row.rollback_to)
        )
        items.append(_item(kept, package, former, levels[kept.resource.name.lower()]))
    certificates = {kept.row.certificate for kept in wanted if kept.row.certificate}
    return {"extensions": items, "certificates": {envelope.thumbprint(item): item for item in sorted(certificates)}}


def check_size(wanted: Mapping[str, Any], machine: Machine) -> None:
    """Before a wish is committed. `wanted`: the content of a document.

    Errors: ApiError 400 when the machine's document would be larger than machines take.
    """
    plain = len(json.dumps(wanted, separators=(",", ":")).encode()) + _AROUND
    signed = (plain + 2) // 3 * 4
    if signed > MAX_DOCUMENT:
        raise ApiError(
            400,
            "DesiredStateTooLarge",
            f"With this all that is wished of machine '{machine.name}' would be {signed} bytes, signed; a machine "
            f"takes {MAX_DOCUMENT}. Shorten it, or put large parts where the machine can fetch them.",
        )

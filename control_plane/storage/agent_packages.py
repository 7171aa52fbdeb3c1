# SPDX-License-Identifier: Apache-2.0
"""Published packages of the agent itself, as the signed metadata of the artefacts name them (docs/protocol.md section
15.6). `replace` is called by whoever publishes; a running hub sees by `stamp` that they are others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.clock import now
from control_plane.extensions.versions import is_version, parts
from control_plane.storage.extension_models import AgentPackage


def replace(session: Session, rows: Iterable[Mapping[str, Any]]) -> None:
    """Make the table hold exactly these `{"version", "os", "format", "path"}`; what is the same stays as it is."""
    wanted = {str(row["path"]): row for row in rows if is_version(str(row["version"]))}
    for row in session.scalars(select(AgentPackage)).all():
        same = wanted.get(row.path)
        if same and (same["version"], same["os"], same["format"]) == (row.version, row.os, row.format):
            del wanted[row.path]
        else:
            session.delete(row)
    session.flush()
    at = now()
    session.add_all(
        AgentPackage(path=path, version=row["version"], os=row["os"], format=row["format"], created=at)
        for path, row in wanted.items()
    )
    session.flush()


def stamp(session: Session) -> tuple[int, int]:
    """Another one after every change."""
    found = session.execute(select(func.count(), func.coalesce(func.max(AgentPackage.id), 0))).one()
    return int(found[0]), int(found[1])


def versions(session: Session) -> list[str]:
    """Versions that machines may be brought to, the oldest first."""
    return sorted(set(session.scalars(select(AgentPackage.version))), key=parts)

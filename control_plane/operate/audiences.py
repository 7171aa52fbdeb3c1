# SPDX-License-Identifier: Apache-2.0
"""Resource URIs of own applications."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import select

from control_plane.authority import audiences as rules
from control_plane.clock import now
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.setup import operator
from control_plane.storage import audit
from control_plane.storage.models import Audience


def add(data: Path, uri: str) -> bool:
    """Allow a resource URI. False when it was allowed before.

    Errors: OperatorError when it is no absolute URI without a fragment, or one of the hub's own.
    """
    parts = urlsplit(uri)
    if not parts.scheme or not (parts.netloc or parts.path) or parts.fragment or len(uri) > 512 or " " in uri:
        raise OperatorError(f"'{uri}' is not a resource URI.", "Use a form like api://name or https://app.example.org.")
    if rules.folded(uri) in (rules.CHANNEL, rules.TICKET):
        raise OperatorError(f"'{uri}' is the hub's own.", "Choose another URI.")
    with opened(data) as (database, _config), database.write() as session:
        known = {rules.folded(item) for item in session.scalars(select(Audience.uri))}
        if rules.folded(uri) in known:
            return False
        session.add(Audience(uri=uri, created=now()))
        audit.record(session, operator(), "audience/add", uri)
        return True


def every(data: Path) -> tuple[list[str], list[str]]:
    """(added, well-known)."""
    with opened(data) as (database, config), database.read() as session:
        added = list(session.scalars(select(Audience.uri).order_by(Audience.uri)))
    return added, [config.url, *rules.ARM_PUBLIC, *rules.WELL_KNOWN]


def remove(data: Path, uri: str) -> bool:
    """Take a resource URI back. False when it was not there."""
    with opened(data) as (database, _config), database.write() as session:
        found = [item for item in session.scalars(select(Audience)) if rules.folded(item.uri) == rules.folded(uri)]
        for item in found:
            session.delete(item)
        if found:
            audit.record(session, operator(), "audience/remove", uri)
        return bool(found)

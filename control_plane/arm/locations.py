# SPDX-License-Identifier: Apache-2.0
"""Which location a caller means."""

from __future__ import annotations

from sqlalchemy.orm import Session

from control_plane.arm import paths
from control_plane.errors import ApiError
from control_plane.storage import machines


def known_location(session: Session, given: str, resource_type: str, code: str, status: int = 400) -> str:
    """The location's name as the hub knows it.

    Errors: ApiError with `status` and `code`, naming the known ones.
    """
    wanted = paths.folded_location(given)
    known = machines.locations(session)
    for item in known:
        if wanted in (paths.folded_location(item.name), paths.folded_location(item.display_name)):
            return item.name
    names = ", ".join(item.name for item in known)
    raise ApiError(
        status,
        code,
        f"The provided location '{given}' is not available for resource type '{resource_type}'. "
        f"List of available regions for the resource type is '{names}'.",
        target="location",
    )

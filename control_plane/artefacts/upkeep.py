# SPDX-License-Identifier: Apache-2.0
"""A running hub keeps its snapshot and timestamp young. Of several processes on one folder one does it: the lock."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from control_plane.artefacts import catalogue, publishing
from control_plane.artefacts import place as places
from control_plane.clock import now
from control_plane.errors import OperatorError
from control_plane.hub import Hub
from control_plane.storage.database import Database

EVERY_SECONDS = 600.0
log = logging.getLogger("hawser.hub")


def renew(data: Path, at: int) -> list[str]:
    """Renew what is due; which roles were renewed.

    Errors: OperatorError.
    """
    place = places.of(data)
    if places.root_text(place) is None:
        return []
    with places.locked(place):
        return publishing.refresh(place, data, at)


def hand_over(data: Path, database: Database, known: int | None) -> int | None:
    """Give the catalogue in force to the database, unless it is that of the version `known`: a command may have been
    killed between the two. Returns the version in force.

    Errors: OperatorError.
    """
    current = places.published(places.of(data))
    if current is None or current.targets.signed.version == known:
        return known
    with database.write() as session:
        catalogue.replace(session, current.targets.to_dict())
    return current.targets.signed.version


async def run(hub: Hub) -> None:
    """At the start and every ten minutes; ends when cancelled."""
    handed: int | None = None
    while True:
        try:
            if renewed := await asyncio.to_thread(renew, hub.data, now()):
                log.info("Renewed in the repository of artefacts: %s.", ", ".join(renewed))
            handed = await asyncio.to_thread(hand_over, hub.data, hub.database, handed)
        except OperatorError as error:
            log.error("%s %s", error.message, error.remedy)
        except Exception:
            log.exception("The repository of artefacts could not be looked after.")
        await asyncio.sleep(EVERY_SECONDS)

# SPDX-License-Identifier: Apache-2.0
"""A running hub notices that `hawser-hub trust` changed the anchors, reads the keys anew and tells every machine."""

from __future__ import annotations

import asyncio
import logging

from control_plane import keyring
from control_plane.hub import Hub
from control_plane.storage.models import HubState

EVERY_SECONDS = 15.0
log = logging.getLogger("hawser.hub")


def _generation(hub: Hub) -> int:
    with hub.database.read() as session:
        return session.get_one(HubState, 1).trust_generation


async def run(hub: Hub) -> None:
    """Ends when cancelled. Errors of one look are logged; the next look is in EVERY_SECONDS."""
    known: int | None = None
    while True:
        try:
            found = await asyncio.to_thread(_generation, hub)
            if known is not None and found != known:
                hub.keys = await asyncio.to_thread(keyring.load, hub.data)
                log.info("Trust anchors of generation %d are told to the fleet.", found)
                await hub.live.renew_all()
            known = found
        except Exception:
            log.exception("The trust anchors could not be looked at.")
        await asyncio.sleep(EVERY_SECONDS)

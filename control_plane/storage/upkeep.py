# SPDX-License-Identifier: Apache-2.0
"""What is kept for a day and then forgotten: answers to repeated requests, tickets that expired, operations."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import delete

from control_plane.clock import now
from control_plane.fleet import counts
from control_plane.storage.database import Database
from control_plane.storage.models import Answered, Ticket
from control_plane.storage.resource_models import Operation
from control_plane.storage.twin_models import Enrolment

KEPT_SECONDS = 86400
EVERY_SECONDS = 3600
log = logging.getLogger("hawser.hub")


def forget_old(database: Database, at: int) -> None:
    """Remove what has been kept for a day at the time `at`."""
    with database.write() as session:
        session.execute(delete(Answered).where(Answered.created < at - KEPT_SECONDS))
        session.execute(delete(Ticket).where(Ticket.expires < at - KEPT_SECONDS))
        session.execute(delete(Enrolment).where(Enrolment.expires < at))
        session.execute(delete(Operation).where(Operation.ended < at - KEPT_SECONDS))
    with database.write() as session:
        counts.thin(session, at)
        counts.forget(session, at, at - 2 * EVERY_SECONDS)


async def run(database: Database) -> None:
    """At the start and every hour; ends when cancelled."""
    while True:
        try:
            await asyncio.to_thread(forget_old, database, now())
        except Exception:
            log.exception("Old answers and tickets could not be removed.")
        await asyncio.sleep(EVERY_SECONDS)

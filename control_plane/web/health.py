# SPDX-License-Identifier: Apache-2.0
"""`/healthz`: whether the hub can answer, without authentication and without saying anything about the fleet."""

from __future__ import annotations

from sqlalchemy import text
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from control_plane.http import error_of, json_response
from control_plane.hub import Hub


def _check(hub: Hub) -> None:
    with hub.database.read() as session:
        session.execute(text("SELECT 1 FROM hub_state"))


async def endpoint(hub: Hub, _request: Request) -> Response:
    """200 `{"status": "ok"}`, or 503 when the database cannot be read or the hub is stopping."""
    try:
        await run_in_threadpool(_check, hub)
    except Exception as error:  # noqa: BLE001 - the edge: everything becomes an answer
        told = error_of(error)
        return json_response(503, told.envelope())
    if hub.live.stopping:
        return json_response(503, {"status": "stopping"})
    return json_response(200, {"status": "ok"}, {"Cache-Control": "no-store"})

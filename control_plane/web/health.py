# SPDX-License-Identifier: Apache-2.0
"""For machines that watch the hub: `/healthz` (it lives), `/readyz` (it can do its work), `/metrics`.

The first two say nothing about the fleet and need no token. `/metrics` is for addresses named in config.yaml, section
`metrics`, loopback by default, and for callers who may read the hub's health.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response

from control_plane import callers, threads
from control_plane.addresses import within
from control_plane.arm.roles import HUB, Action, allows, refusal
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.http import error_of, json_response
from control_plane.hub import Hub
from control_plane.metrics import CONTENT_TYPE
from control_plane.storage.models import HubState

ROOTS = frozenset({"healthz", "readyz", "metrics"})
EVERY_SECONDS = 1.0
LOOPBACK = ("127.0.0.0/8", "::1/128")
_FRESH = {"Cache-Control": "no-store"}


def _readable(hub: Hub) -> None:
    with hub.database.read() as session:
        session.execute(text("SELECT 1 FROM hub_state"))


def _writable(hub: Hub) -> None:
    with hub.database.write() as session:
        state = session.get_one(HubState, 1)
        session.execute(text("UPDATE hub_state SET epoch = :epoch WHERE id = 1"), {"epoch": state.epoch})


class Ready:
    """Whether the database can be written: tried at most once in EVERY_SECONDS, however many ask. On the loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tried: asyncio.Future[None] | None = None
        self._began = 0.0

    async def check(self) -> None:
        """Errors: what the database raised."""
        at = asyncio.get_running_loop().time()
        if self._tried is None or (self._tried.done() and at - self._began >= EVERY_SECONDS):
            work = threads.run(_writable, self._hub, limiter=self._hub.limits.health)
            self._tried, self._began = asyncio.ensure_future(work), at
        await asyncio.shield(self._tried)  # one who goes away does not end it for the others


def _check_scraper(hub: Hub, request: Request) -> None:
    """An address that may is enough, whatever it sends along."""
    if request.client is not None and within(request.client.host, hub.config.get("metrics", {}).get("allow", LOOPBACK)):
        return
    with hub.database.read() as session:
        caller = callers.authenticate(hub, session, request.headers.get("authorization"), now(), tickets=False)
    if not allows(caller, Action.HEALTH_READ, HUB):
        raise refusal(caller, Action.HEALTH_READ, HUB)


def _metrics(hub: Hub, request: Request) -> Response:
    _check_scraper(hub, request)
    return Response(hub.metrics.text(), headers={"Content-Type": CONTENT_TYPE, **_FRESH})


async def endpoint(hub: Hub, ready: Ready, request: Request) -> Response:
    """200, or 503 with the reason: the database cannot be used, or the hub is stopping."""
    name = request.scope["path"].strip("/").lower()
    if request.method not in ("GET", "HEAD"):
        error = ApiError(405, "MethodNotAllowed", "This path takes GET.", headers={"Allow": "GET, HEAD"})
        return json_response(error.status, error.envelope(), error.headers)
    try:
        if name == "metrics":
            return await threads.run(_metrics, hub, request, limiter=hub.limits.health)
        if name == "readyz":
            await ready.check()
        else:
            await threads.run(_readable, hub, limiter=hub.limits.health)
    except Exception as error:  # noqa: BLE001 - the edge: everything becomes an answer
        told = callers.challenge(hub, error_of(error))
        status = told.status if name == "metrics" else 503
        return json_response(status, told.envelope(), told.headers)
    if hub.live.stopping:
        return json_response(503, {"status": "stopping"}, _FRESH)
    return json_response(200, {"status": "ready" if name == "readyz" else "ok"}, _FRESH)

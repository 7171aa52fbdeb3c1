# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: which part answers which path (docs/protocol.md section 1)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.api import router as api
from control_plane.arm import router as arm
from control_plane.authority import endpoints as authority
from control_plane.authority import tokens
from control_plane.callers import challenge
from control_plane.channel import anchors, checkin
from control_plane.channel import endpoints as channel
from control_plane.errors import ApiError
from control_plane.fleet.cleanup import Cleaner
from control_plane.fleet.notify import Notifier
from control_plane.fleet.tail import Tail
from control_plane.fleet.targets import read as read_targets
from control_plane.fleet.watcher import Watcher
from control_plane.http import enveloped
from control_plane.hub import Hub
from control_plane.storage import upkeep
from control_plane.web import health, page

log = logging.getLogger("hawser.hub")
_ARM_ROOTS = frozenset({"subscriptions", "providers", "tenants", "metadata", "batch"})
_CHECKIN = "/channel/v1/checkin"

Part = Callable[[Hub, Request], Awaitable[Response]]


def _raising(hub: Hub, part: Part) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        try:
            return await part(hub, request)
        except ApiError as error:
            raise challenge(hub, error) from error

    return enveloped(run)


def _dispatch(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    parts = {"channel": _raising(hub, channel.endpoint), "hawser": _raising(hub, api.endpoint)}

    async def run(request: Request) -> Response:
        first = request.scope["path"].lstrip("/").partition("/")[0].lower()
        if first == "healthz":
            return await health.endpoint(hub, request)
        if first in parts:
            return await parts[first](request)
        if first in _ARM_ROOTS:
            return await arm.endpoint(hub, request)
        if first in page.ROOTS:
            return await page.endpoint(hub, request)
        return await authority.endpoint(hub, request)

    return run


def build(hub: Hub) -> ASGIApp:
    """The application; its lifespan starts and ends what runs beside the requests.

    Errors: OperatorError for notification targets that cannot be.
    """
    targets = read_targets(hub.config)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hub.live.start(asyncio.get_running_loop())
        hub.bus.start(asyncio.get_running_loop())
        watcher = Watcher(hub.database, hub.live.pulse, [(target.name, target.words) for target in targets])
        tail = Tail(hub.database, hub.bus)
        notifier = Notifier(hub.database, hub.settings.url, targets, shared=hub.database.url is not None)
        cleaner = Cleaner(hub.database, hub.live.changed, hub.live.dropped)
        hub.live.on_beat = watcher.beat
        work = (
            hub.live.run(),
            upkeep.run(hub.database),
            anchors.run(hub),
            tokens.watch(hub.tokens),
            watcher.run(),
            tail.run(watcher.told),
            notifier.run(),
            cleaner.run(),
        )
        tasks = [asyncio.create_task(item) for item in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await hub.live.flush()
                await watcher.stop()
            except Exception:
                log.exception("The last heartbeats could not be written.")

    life = Starlette(lifespan=lifespan)
    dispatch = _dispatch(hub)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        # Not Starlette's router: every path and method, however odd, gets the envelope of the part it belongs to.
        if scope["type"] == "lifespan":
            await life(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == _CHECKIN and scope["method"] == "POST":
            await checkin.endpoint(hub, scope, receive, send)
        elif scope["type"] == "http":
            response = await dispatch(Request(scope, receive, send))
            await response(scope, receive, send)

    return application

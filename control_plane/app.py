# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: which part answers which path (docs/protocol.md section 1)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane import figures, logs
from control_plane.api import router as api
from control_plane.arm import router as arm
from control_plane.artefacts import serving
from control_plane.artefacts import upkeep as artefacts
from control_plane.authority import endpoints as authority
from control_plane.authority import tokens
from control_plane.callers import challenge
from control_plane.channel import anchors, checkin
from control_plane.channel import endpoints as channel
from control_plane.errors import ApiError
from control_plane.extensions.keeper import Keeper
from control_plane.fleet.cleanup import Cleaner
from control_plane.fleet.notify import Notifier
from control_plane.fleet.tail import Tail
from control_plane.fleet.targets import read as read_targets
from control_plane.fleet.watcher import Watcher
from control_plane.http import enveloped
from control_plane.hub import Hub
from control_plane.storage import upkeep
from control_plane.upgrades.keeper import Keeper as UpgradeKeeper
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
    ready = health.Ready(hub)

    async def run(request: Request) -> Response:
        first = request.scope["path"].lstrip("/").partition("/")[0].lower()
        if first in health.ROOTS:
            return await health.endpoint(hub, ready, request)
        if first in parts:
            return await parts[first](request)
        if first in _ARM_ROOTS:
            return await arm.endpoint(hub, request)
        if first in serving.ROOTS:
            return await serving.endpoint(hub, request)
        if first in page.ROOTS:
            return await page.endpoint(hub, request)
        return await authority.endpoint(hub, request)

    return run


def part_of(path: str) -> str:
    """Which part of the hub answers a path, for figures. Pure."""
    first = path.lstrip("/").partition("/")[0].lower()
    if first in _ARM_ROOTS:
        return "arm"
    if first in health.ROOTS:
        return "health"
    if first in serving.ROOTS:
        return "artefacts"
    return {"channel": "channel", "hawser": "api"}.get(first) or ("page" if first in page.ROOTS else "authority")


async def _traced(
    hub: Hub, dispatch: Callable[[Request], Awaitable[Response]], scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer, count, and write the request's line."""
    trace, began = logs.begin(), time.monotonic()
    response = await dispatch(Request(scope, receive, send))
    seconds = time.monotonic() - began
    streamed = response.media_type == "text/event-stream"
    part, peer = part_of(scope["path"]), scope["client"][0] if scope.get("client") else "-"
    hub.metrics.answered(part, scope["method"], response.status_code, None if streamed else seconds)
    if part != "health" or response.status_code >= 400:
        logs.answered(trace, scope["method"], scope["path"], response.status_code, seconds, peer)
    await response(scope, receive, send)


def build(hub: Hub, *beside: Callable[[], Coroutine[Any, Any, None]]) -> ASGIApp:
    """The application; its lifespan starts and ends what runs beside the requests, and `beside`.

    Errors: OperatorError for notification targets that cannot be.
    """
    targets = read_targets(hub.config)
    hub.metrics.read(figures.readings(hub))

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hub.live.start(asyncio.get_running_loop())
        hub.bus.start(asyncio.get_running_loop())
        watcher = Watcher(hub.database, hub.live.pulse, [(target.name, target.words) for target in targets])
        tail = Tail(hub.database, hub.bus)
        notifier = Notifier(hub.database, hub.settings.url, targets, shared=hub.database.url is not None)
        cleaner = Cleaner(hub.database, hub.live.changed, hub.live.dropped)
        keeper = Keeper(hub.database, hub.live.pulse, hub.live.changed)
        upgrades = UpgradeKeeper(hub.database, hub.live.changed)
        hub.live.on_beat = watcher.beat
        work = (
            hub.live.run(),
            upkeep.run(hub.database),
            anchors.run(hub),
            artefacts.run(hub),
            hub.twins.run(),
            tokens.watch(hub.tokens),
            watcher.run(),
            tail.run(watcher.told),
            notifier.run(),
            cleaner.run(),
            keeper.run(),
            upgrades.run(),
            *(item() for item in beside),
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
            await _traced(hub, dispatch, scope, receive, send)

    return application

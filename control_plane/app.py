# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: which part answers which path (docs/protocol.md section 1)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.arm import router as arm
from control_plane.authority import endpoints as authority
from control_plane.callers import challenge
from control_plane.channel import checkin
from control_plane.channel import endpoints as channel
from control_plane.errors import ApiError
from control_plane.http import enveloped, error_of, json_response
from control_plane.hub import Hub
from control_plane.web import api, health

_ARM_ROOTS = frozenset({"subscriptions", "providers", "tenants", "metadata", "batch"})
_CHECKIN = "/channel/v1/checkin"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]

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
        if not first:
            missing = ApiError(404, "NotFound", "There is nothing at this path.")
            return json_response(404, missing.envelope())
        return await authority.endpoint(hub, request)

    return run


def build(hub: Hub, ready: Callable[[], None] = lambda: None) -> ASGIApp:
    """The application; its lifespan starts and ends the batch writer."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hub.live.start(asyncio.get_running_loop())
        writer = asyncio.create_task(hub.live.run())
        ready()
        try:
            yield
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            await hub.live.flush()

    rest = Starlette(
        routes=[Route("/{path:path}", _dispatch(hub), methods=_METHODS)],
        lifespan=lifespan,
        exception_handlers={Exception: _last_resort},
    )

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == _CHECKIN and scope["method"] == "POST":
            await checkin.endpoint(hub, scope, receive, send)
        elif scope["type"] in ("http", "lifespan"):
            await rest(scope, receive, send)

    return application


async def _last_resort(_request: Request, error: Exception) -> Response:
    told = error_of(error)
    return json_response(told.status, told.envelope())

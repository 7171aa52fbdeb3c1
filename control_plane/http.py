# SPDX-License-Identifier: Apache-2.0
"""The thin part between ASGI and the handlers: bodies within limits, JSON answers, errors as envelopes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy.exc import DataError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from control_plane import logs
from control_plane.bodies import check_length, is_guid, too_large
from control_plane.errors import ApiError, TokenError
from control_plane.storage.engines import UNAVAILABLE, described

BODY_SECONDS = 60.0
"""Within which a body must be whole."""
log = logging.getLogger("hawser.hub")


@dataclass(frozen=True)
class Reply:
    """What a handler answers. `body` None: no content."""

    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request as handlers see it: plain data. Names of headers and of query parameters are in lower case.

    `origin`: https origin for absolute links, the name the client used if it is one of ours. `pairs`: the query with
    what is repeated in it.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    request_id: str
    correlation_id: str
    origin: str
    peer: str
    pairs: tuple[tuple[str, str], ...] = ()


def late_body() -> ApiError:
    """408: the connection is closed with it."""
    return ApiError(
        408,
        "RequestTimeout",
        f"The body did not end within {BODY_SECONDS:g} seconds.",
        headers={"Connection": "close"},
    )


async def read_body(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes.

    Errors: ApiError 413 as soon as it is known to be longer, 408 when it drips, 400 when the client went away half way.
    """
    check_length(request.headers.get("content-length"), limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large(limit)
                chunks.append(chunk)
    except TimeoutError as error:
        raise late_body() from error
    except ClientDisconnect as error:
        raise ApiError(400, "InvalidRequestContent", "The body ended early.") from error
    return b"".join(chunks)


async def read_call(request: Request, limit: int, url: str, known_hosts: frozenset[str]) -> Call:
    """The request as plain data."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    correlation = headers.get("x-ms-correlation-request-id", "")
    request_id = logs.request_id()
    host = headers.get("host", "").lower()
    return Call(
        method=request.method,
        path=request.scope["path"],
        query={name.lower(): value for name, value in request.query_params.items()},
        headers=headers,
        body=await read_body(request, limit),
        request_id=request_id,
        correlation_id=correlation.lower() if is_guid(correlation) else request_id,
        origin=f"https://{host}" if host in known_hosts else url,
        peer=request.client.host if request.client else "",
        pairs=tuple((name.lower(), value) for name, value in request.query_params.multi_items()),
    )


def json_response(status: int, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None) -> Response:
    """A response with compact JSON; no content for None."""
    if body is None:
        return Response(status_code=status, headers=dict(headers or {}))
    data = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return Response(data, status_code=status, media_type="application/json; charset=utf-8", headers=dict(headers or {}))


def token_error_body(error: TokenError, correlation_id: str) -> dict[str, Any]:
    """The authority's error object (identity-and-arm-api.md B.4)."""
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    trace = str(uuid4())
    body: dict[str, Any] = {
        "error": error.code,
        "error_description": f"{error.message} Trace ID: {trace} Correlation ID: {correlation_id} Timestamp: {at}",
        "error_codes": [error.aadsts],
        "timestamp": at,
        "trace_id": trace,
        "correlation_id": correlation_id,
    }
    if error.suberror:
        body["suberror"] = error.suberror
    return body


def error_of(error: Exception) -> ApiError:
    """What a caller is told about an exception. Unexpected ones are logged here and only here."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, DataError):
        # PostgreSQL keeps no NUL in texts and no text longer than its column; SQLite keeps both.
        log.warning("The database cannot keep a value: %s", error.orig)
        return ApiError(400, "InvalidRequestContent", "A value of the request cannot be kept: too long, or with a NUL.")
    if isinstance(error, UNAVAILABLE):
        log.error("The database refused: %s", described(error))
        return ApiError(503, "ServiceUnavailable", "The database cannot be used at the moment; try again.")
    log.error("Unexpected error", exc_info=error)
    return ApiError(500, "InternalServerError", "The hub failed to carry out the request; its log says why.")


Endpoint = Callable[[Request], Awaitable[Response]]


def enveloped(endpoint: Endpoint) -> Endpoint:
    """Errors of an endpoint as the ARM envelope; used by the channel and `/hawser/v1`, which share it."""

    async def run(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as error:  # noqa: BLE001 - the edge: everything becomes an answer
            told = error_of(error)
            return json_response(told.status, told.envelope(), told.headers)

    return run

# SPDX-License-Identifier: Apache-2.0
"""`POST /batch`: several requests in one, each as its caller, each with its own answer (identity-and-arm-api.md E)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

from control_plane.arm import paths
from control_plane.bodies import json_object
from control_plane.errors import ApiError, bad_content
from control_plane.http import Call, Reply

MAX_REQUESTS = 500
MAX_ANSWER = 16 * 1024 * 1024
_METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE")


@dataclass(frozen=True)
class Item:
    """One request of a batch. `name`: what its answer is called by."""

    name: str
    method: str
    url: str
    body: bytes


def read(body: bytes) -> list[Item]:
    """The requests.

    Errors: ApiError 400 when the batch as a whole cannot be read.
    """
    if not body:
        raise bad_content("The request content is missing.")
    given = json_object(body).get("requests")
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise bad_content("'requests' must be an array of objects with 'httpMethod' and 'url'.", "requests")
    if len(given) > MAX_REQUESTS:
        raise ApiError(400, "BatchLimitExceeded", f"A batch may have at most {MAX_REQUESTS} requests.")
    return [_item(number, item) for number, item in enumerate(given)]


def _item(number: int, given: dict[str, Any]) -> Item:
    where = f"requests[{number}]"
    method, url, name = given.get("httpMethod"), given.get("url"), given.get("name", str(number))
    if not isinstance(method, str) or method.upper() not in _METHODS:
        raise bad_content(f"'{where}.httpMethod' must be one of {', '.join(_METHODS)}.", f"{where}.httpMethod")
    if not isinstance(url, str) or not url:
        raise bad_content(f"'{where}.url' must be an address.", f"{where}.url")
    if not isinstance(name, str) or len(name) > 256:
        raise bad_content(f"'{where}.name' must be a text of at most 256 characters.", f"{where}.name")
    content = given.get("content")
    body = b"" if content is None else json.dumps(content).encode()
    return Item(name, method.upper(), url, body)


def call_of(outer: Call, item: Item, known_hosts: frozenset[str], url: str) -> Call:
    """The request as if it had come by itself.

    Errors: ApiError 400 for an address that is not this hub's, or a batch in a batch.
    """
    try:
        parts = urlsplit(item.url)
    except ValueError as error:
        raise ApiError(400, "InvalidRequestUri", "The request's url cannot be read.") from error
    here = parts.scheme == "https" and (parts.netloc.lower() in known_hosts or f"https://{parts.netloc}" == url)
    if not here and (parts.scheme or parts.netloc):
        raise ApiError(400, "InvalidRequestUri", "The request's url is not one of this hub.")
    path = paths.without_gaps(unquote(parts.path, errors="replace"))
    if not path.startswith("/") or path.lower().rstrip("/") == "/batch":
        raise ApiError(400, "InvalidRequestUri", "The request's url must name a path, and not a batch again.")
    query = {name.lower(): value for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    return replace(outer, method=item.method, path=path, query=query, body=item.body, request_id=str(uuid4()))


def answers(items: list[Item], one: Callable[[Item], Reply]) -> dict[str, Any]:
    """The body of the answer. What would make it too large is told 413 and can be asked for alone."""
    size = 0
    told: list[dict[str, Any]] = []
    for item in items:
        answer = one(item) if size <= MAX_ANSWER else _TOO_MUCH
        length = len(json.dumps(answer.body)) if answer.body is not None else 0
        size += length
        shown = {
            "name": item.name,
            "httpStatusCode": answer.status,
            "headers": dict(answer.headers),
            "contentLength": length,
        }
        told.append(shown if answer.body is None else {**shown, "content": answer.body})
    return {"responses": told}


_ERROR = ApiError(413, "ResponseTooLarge", "The answers before this one fill the batch; ask for this one alone.")
_TOO_MUCH = Reply(_ERROR.status, _ERROR.envelope())

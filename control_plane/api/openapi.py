# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document of `/hawser/v1`, made from the router's table and the schemas of docs/schemas, which ship
beside this module. A row without schemas, or with a parameter that is not described here, makes no document, and a
test sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control_plane.fleet import counts, filters, profiles
from control_plane.people import users
from control_plane.storage import history, twins

if TYPE_CHECKING:
    from control_plane.api.router import Operation

API_VERSION = "1.0"
_SCHEMAS = Path(__file__).parent / "schemas"
_ID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_GUID = f"^{_ID}$"
_SUBSCRIPTION = f"subscriptions/{_ID}"
_IN_GROUP = "/resourceGroups/[-A-Za-z0-9_.()]{0,89}[-A-Za-z0-9_()]"
_MACHINE = r"/providers/Microsoft\.HybridCompute/machines/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,53}"
_TEXT = {"type": "string", "minLength": 1, "maxLength": 4096, "pattern": "^[^\\u0000\\ufffd]*$"}
_TIME = {"type": "string", "format": "date-time"}


def _words(words: Iterable[str]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": {"enum": list(words)}}


def _list() -> dict[str, Any]:
    return {
        "type": "array",
        "minItems": 1,
        "maxItems": filters.MAX_WORDS,
        "items": {"type": "string", "pattern": "^[A-Za-z0-9_.()-]{1,90}$"},
    }


# Name: schema and description. Arrays are separated by commas, except where REPEATED in the router says otherwise.
QUERY: dict[str, tuple[dict[str, Any], str]] = {
    "subscriptionId": ({"type": "string", "pattern": _GUID}, "One subscription; absent: all that the caller may read."),
    "resourceGroup": (_list(), "Names of resource groups, without case."),
    "name": (_TEXT, "The name of a machine, without case."),
    "status": (_words(filters.STATUSES), "Statuses."),
    "tag": (
        {
            "type": "array",
            "maxItems": filters.MAX_TAGS,
            "items": {"type": "string", "pattern": "^[^=\\u0000\\ufffd]{1,512}(=[^\\u0000\\ufffd]{0,256})?$"},
        },
        "NAME, or NAME=VALUE; the name without case. Given several times, all must be there.",
    ),
    "osType": (_words(filters.OS_TYPES), "Operating systems."),
    "location": (_list(), "Names of locations."),
    "agentVersion": (_list(), "Versions of the agent, exactly."),
    "search": (
        {**_TEXT, "maxLength": filters.MAX_SEARCH},
        "Part of a name, a host name, an operating system, an address or a tag, without case; with '/' also of an id.",
    ),
    "support": (_words(filters.SUPPORT), "Whether the agent's version is still supported."),
    "seenBefore": (_TIME, "Last heartbeat before this time."),
    "seenAfter": (_TIME, "Last heartbeat after this time."),
    "$orderby": (
        {"enum": [f"{name}{way}" for name in filters.ORDERS for way in ("", " asc", " desc")]},
        "What the list is ordered by; machines that are equal in it, by their making.",
    ),
    "$top": ({"type": "integer", "minimum": 1, "maximum": 999999999}, "Size of a page; at most 1000 are given."),
    "$skiptoken": ({**_TEXT, "maxLength": 1024}, "Of 'nextLink'; good for that list alone."),
    "$count": ({"type": "boolean"}, "Also answer 'count', the number of all that match."),
    "machine": (
        {"type": "string", "pattern": f"^({_ID}|/{_SUBSCRIPTION}{_IN_GROUP}{_MACHINE})$"},
        "The id of a machine, or a vmId.",
    ),
    "kind": (_words(history.KINDS), "Kinds of events."),
    "from": (_TIME, "From this time on."),
    "to": (_TIME, "Before this time."),
    "resolution": ({"enum": list(counts.SPANS)}, "Seconds of a point; absent: what suits the time asked for."),
    "after": (
        {"type": "integer", "minimum": 0, "maximum": 999999999999999999},
        "Id of the last event received, for those who cannot set 'Last-Event-ID'.",
    ),
    "actor": (_TEXT, "Who: a client id, or a user's name."),
    "action": (_TEXT, "What was done."),
    "target": (_TEXT, "To what."),
    "outcome": ({"enum": ["Succeeded", "Refused"]}, "How it ended."),
    "objectId": ({"type": "string", "pattern": _GUID}, "Object id of a principal or a user."),
    "scope": (
        {"type": "string", "maxLength": 512, "pattern": f"^(/|/{_SUBSCRIPTION}({_IN_GROUP}({_MACHINE})?)?)$"},
        "'/', or the id of a subscription, a resource group or a machine.",
    ),
    "force": ({"type": "boolean"}, "Also beyond the rule's share of the fleet."),
    "state": (_words(twins.STATES), "How twins stand."),
    "dryRun": ({"type": "boolean"}, "Say what would be done, and do nothing."),
}
PATH: dict[str, tuple[dict[str, Any], str]] = {
    "machine": (
        {"type": "string", "pattern": f"^({_ID}|/?{_SUBSCRIPTION}{_IN_GROUP}{_MACHINE})$"},
        "A vmId, or the id of a machine; its slashes may be escaped (%2F).",
    ),
    "user": ({"type": "string", "pattern": users.NAME.pattern}, "A user's name or object id."),
    "name": ({"type": "string", "pattern": _GUID}, "The name, a GUID."),
    "rule": ({"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$"}, "The name of a rule."),
    "twin": ({"type": "integer", "minimum": 1, "maximum": (1 << 31) - 1}, "The number of a twin."),
    "image": ({"type": "string", "pattern": profiles.IMAGE.pattern}, "The id of an image."),
    "profile": ({"type": "string", "pattern": profiles.NAME.pattern}, "The name of an enrolment profile."),
}
_NOTHING = {"description": "There was nothing to do."}
_ERRORS = {
    "400": "A parameter or the body cannot be used; the message names it.",
    "401": "No token, or one that is not valid.",
    "403": "The caller may not do this there.",
    "404": "There is no such thing.",
    "409": "What is there stands in the way.",
    "413": "The body is too large.",
    "429": "Too many requests; 'Retry-After' says when to come again.",
    "500": "The hub failed; its log says why.",
    "503": "The hub cannot use its database at the moment.",
}


@cache
def schema(name: str) -> dict[str, Any]:
    """A schema of docs/schemas.

    Errors: FileNotFoundError when none is shipped under the name.
    """
    found: dict[str, Any] = json.loads((_SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    found.pop("$schema", None)
    return found


def component(name: str) -> str:
    """`fleet-page` is `FleetPage`."""
    return "".join(part.capitalize() for part in name.split("-"))


def operation_id(operation: Operation) -> str:
    """`get /machines/{machine}` is `getMachinesMachine`."""
    words = re.findall(r"[A-Za-z0-9.]+", operation.path)
    return operation.method.lower() + "".join(word[0].upper() + word[1:].replace(".", "") for word in words)


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{component(name)}"}


def _parameters(operation: Operation, repeated: frozenset[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in re.findall(r"\{([^}]+)\}", operation.path):
        shape, text = PATH[name]
        found.append({"name": name, "in": "path", "required": True, "description": text, "schema": shape})
    for name in operation.query:
        shape, text = QUERY[name]
        entry = {"name": name, "in": "query", "required": False, "description": text, "schema": shape}
        if shape.get("type") == "array":
            entry |= {"style": "form", "explode": name.lower() in repeated}
        found.append(entry)
    if operation.media == "text/event-stream":
        shape, text = QUERY["after"]
        found.append({"name": "Last-Event-ID", "in": "header", "required": False, "description": text, "schema": shape})
    return found


def refusals(operation: Operation) -> list[int]:
    """The statuses that an operation is refused with, or fails with: those of its kind, and those of its row."""
    found = {400, 500, *operation.refuses}  # a parameter that is not known is refused everywhere
    if not operation.open:
        found |= {401, 403, 429, 503}
    if "{" in operation.path:
        found.add(404)
    if operation.body is not None:
        found.add(413)
    return sorted(found)


def _operation(operation: Operation, repeated: frozenset[str]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done."}
    if operation.status != 204:
        if operation.answer is None:
            raise ValueError(f"{operation.method} {operation.path} names no schema of its answer")
        success["content"] = {operation.media: {"schema": _reference(operation.answer)}}
    shown: dict[str, Any] = {
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "parameters": _parameters(operation, repeated),
        "responses": {
            str(operation.status): success,
            **{
                str(status): {**success, "description": "Made."} if status == 201 else _NOTHING
                for status in operation.also
            },
            **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in refusals(operation)},
        },
    }
    if operation.body is not None:
        content = {"application/json": {"schema": _reference(operation.body)}}
        shown["requestBody"] = {"required": True, "content": content}
    if operation.open:
        shown["security"] = []
    return shown


def document(operations: Iterable[Operation], url: str, tenant_id: str, repeated: frozenset[str]) -> Mapping[str, Any]:
    """The whole document. `url`: of the hub.

    Errors: ValueError, KeyError, FileNotFoundError for a row that is not described.
    """
    rows = tuple(operations)
    paths: dict[str, dict[str, Any]] = {}
    names = {"error"}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, repeated)
        names |= {name for name in (row.body, row.answer) if name is not None}
    envelope = {"application/json": {"schema": _reference("error")}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hawser hub",
            "version": API_VERSION,
            "description": "What is the hub's own and not ARM: tickets, the fleet, its events and history, users, "
            "roles, audit, clean-up, images and twins. Tokens, error envelope and paging are those of its ARM API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": f"{url}/hawser/v1"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": f"An access token for {url}, from {url}/{tenant_id}/oauth2/v2.0/token.",
                }
            },
            "responses": {
                f"Error{status}": {"description": text, "content": envelope} for status, text in _ERRORS.items()
            },
            "schemas": {component(name): schema(name) for name in sorted(names)},
        },
    }

# SPDX-License-Identifier: Apache-2.0
"""Reports are checked against the schemas that docs/schemas has too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from control_plane import bodies
from control_plane.errors import ApiError, bad_content

_LARGEST = (1 << 63) - 1


@cache
def _validator(schema: Path) -> Any:
    return fastjsonschema.compile(json.loads(schema.read_bytes()), use_default=False)


def mended(data: Mapping[str, Any], listed: str) -> dict[str, Any]:
    """A report in which what programs on the machine have written spoils nobody else's entry: their texts are Unicode,
    their numbers fit, and a `status` that cannot be taken is left out. `listed`: the member with the entries. Pure."""
    entries = data.get(listed)
    if not isinstance(entries, list):
        return dict(data)
    return {**data, listed: [_entry(item) if isinstance(item, dict) else item for item in entries]}


def _entry(item: Mapping[str, Any]) -> dict[str, Any]:
    kept = _plain(item)
    handler = item.get("handler")
    if isinstance(handler, dict):
        kept["handler"] = _plain(handler)
    try:
        bodies.check(item.get("status"))
    except ApiError as error:
        kept["status"] = None
        kept["message"] = kept.get("message") or f"The status of the handler cannot be shown. {error.message}"
    return kept


def _plain(members: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(members)
    for name, value in members.items():
        if isinstance(value, str):
            made[name] = bodies.plain(value)
        elif type(value) is int:
            made[name] = max(-_LARGEST, min(_LARGEST, value))
    return made


def check(data: Mapping[str, Any], schema: Path) -> None:
    """Errors: ApiError 400 naming the member of a report that has not the shape of `schema`."""
    bodies.check(data)
    try:
        _validator(schema)(data)
    except fastjsonschema.JsonSchemaValueException as error:
        member = str(error.name).removeprefix("data").lstrip(".")
        raise bad_content(f"'{member}' of the report {str(error.message).partition(' ')[2]}.", member) from error

# SPDX-License-Identifier: Apache-2.0
"""Reports are checked against the schemas that docs/schemas has too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from control_plane.errors import bad_content


@cache
def _validator(schema: Path) -> Any:
    return fastjsonschema.compile(json.loads(schema.read_bytes()), use_default=False)


def check(data: Mapping[str, Any], schema: Path) -> None:
    """Errors: ApiError 400 naming the member of a report that has not the shape of `schema`."""
    try:
        _validator(schema)(data)
    except fastjsonschema.JsonSchemaValueException as error:
        member = str(error.name).removeprefix("data").lstrip(".")
        raise bad_content(f"'{member}' of the report {str(error.message).partition(' ')[2]}.", member) from error

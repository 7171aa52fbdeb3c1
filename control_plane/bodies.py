# SPDX-License-Identifier: Apache-2.0
"""Reading JSON and forms from callers within limits (docs/protocol.md section 13)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, NoReturn
from urllib.parse import parse_qsl
from uuid import UUID

from control_plane.errors import ApiError, bad_content

ARM_BODY = 1024 * 1024
CHANNEL_BODY = 64 * 1024
REPORT_BODY = 512 * 1024
MAX_DEPTH = 32
MAX_STRING = 65536


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _is_unicode(value: str) -> bool:
    """False for lone surrogates, which JSON can spell and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check(value: Any, depth: int, longest: int) -> None:
    if depth > MAX_DEPTH:
        raise bad_content(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, str):
        if len(value) > longest:
            raise bad_content(f"The body holds a text longer than {longest} characters.")
        if "\x00" in value or not _is_unicode(value):
            raise bad_content("The body holds a text that is not valid Unicode.")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth, longest)
            _check(item, depth + 1, longest)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1, longest)
    elif (isinstance(value, int) and abs(value) >= 1 << 63) or (isinstance(value, float) and not isfinite(value)):
        raise bad_content("The body holds a number that is too large.")


def check(value: Any, longest: int = MAX_STRING) -> None:
    """Errors: ApiError 400 `InvalidRequestContent`: nested too deep, texts too long or no Unicode, large numbers."""
    _check(value, 1, longest)


def plain(value: str) -> str:
    """A text with U+FFFD for what `check` refuses in it."""
    return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def json_object(body: bytes, longest: int = MAX_STRING) -> dict[str, Any]:
    """The JSON object in `body`. `longest`: characters that a text in it may have.

    Errors: ApiError 400 `InvalidRequestContent`: not UTF-8 JSON, no object, and as `check`.
    """
    value = unchecked(body, parse_constant=_refuse_constant)
    check(value, longest)
    return value


def unchecked(body: bytes, **options: Any) -> dict[str, Any]:
    """The JSON object in `body`, whose parts the caller checks one by one. `options`: of json.loads.

    Errors: ApiError 400 `InvalidRequestContent`: not UTF-8 JSON, no object, nested deeper than can be read.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), **options)
    except RecursionError as error:
        raise bad_content(f"The body is nested deeper than {MAX_DEPTH} levels.") from error
    except ValueError as error:
        raise bad_content("The request content was invalid and could not be deserialized: it is not JSON.") from error
    if not isinstance(value, dict):
        raise bad_content("The request content must be a JSON object.")
    return value


def form(body: bytes) -> dict[str, str]:
    """Form fields; of a repeated one the first counts.

    Errors: ApiError 400 when the body is no form.
    """
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=64, errors="strict"
        )
    except ValueError as error:
        raise bad_content("The body is not a form.") from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields


def text(body: dict[str, Any], name: str, limit: int, *, required: bool = True) -> str | None:
    """A text member of at most `limit` characters; null counts as absent.

    Errors: ApiError 400 naming the member.
    """
    value = body.get(name)
    if value is None:
        if required:
            raise bad_content(f"'{name}' is missing.", name)
        return None
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise bad_content(f"'{name}' must be a text of 1 to {limit} characters.", name)
    return value


def needed_text(body: dict[str, Any], name: str, limit: int) -> str:
    """`text` that must be there."""
    value = text(body, name, limit)
    assert value is not None  # noqa: S101 - text() raises when it is missing
    return value


def integer(body: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """An integer member within bounds.

    Errors: ApiError 400 naming the member.
    """
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad_content(f"'{name}' must be an integer from {low} to {high}.", name)
    return value


def whole(body: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """`integer` where what is sent is described by a JSON Schema, to which 1.0 is an integer too."""
    value = body.get(name)
    if isinstance(value, float) and value.is_integer():
        return integer({name: int(value)}, name, low, high)
    return integer(body, name, low, high)


def one_of(body: dict[str, Any], name: str, words: Iterable[str]) -> str:
    """A text member that is one of `words`."""
    value, known = body.get(name), tuple(words)
    if value not in known:
        raise bad_content(f"'{name}' must be one of {', '.join(known)}.", name)
    return str(value)


def is_guid(value: object) -> bool:
    """True for the 36-character form of a GUID, any case."""
    if not isinstance(value, str) or len(value) != 36:
        return False
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False


def guid(body: dict[str, Any], name: str) -> str:
    """A GUID member, in lower case.

    Errors: ApiError 400 naming the member.
    """
    value = body.get(name)
    if not is_guid(value):
        raise bad_content(f"'{name}' must be a GUID.", name)
    return str(value).lower()


def check_length(declared: str | None, limit: int) -> None:
    """Refuse by `Content-Length` before reading anything.

    Errors: ApiError 413.
    """
    if declared is not None and declared.isascii() and declared.isdigit() and int(declared[:18]) > limit:
        raise too_large(limit)


def too_large(limit: int) -> ApiError:
    """413 for a body longer than `limit` bytes."""
    return ApiError(413, "RequestEntityTooLarge", f"The request body is larger than the {limit} bytes allowed here.")

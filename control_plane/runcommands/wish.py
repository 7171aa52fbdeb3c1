# SPDX-License-Identifier: Apache-2.0
"""Reading what callers want run (identity-and-arm-api.md C.8, agent-surface.md section 16). Pure: body in, `Wish` out.

A PUT is the whole: what it does not send is not there. A PATCH leaves what it does not send.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.arm import machine_body
from control_plane.errors import ApiError, bad_content

MAX_PARAMETERS = 256
MAX_SECONDS = 7 * 86400
LINUX_NAME = 36
PROTECTED = ("protectedParameters", "runAsPassword")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?")
_URI = re.compile(r"https?://[^\s]{1,4000}")
_SIGNATURE = re.compile(r"\?.*sig=.*", re.IGNORECASE)
_QUERY = re.compile(r"[?#].*")
BLOBS = ("outputBlobUri", "errorBlobUri")


@dataclass(frozen=True)
class Wish:
    """`properties`: the members that were sent, but for those that are protected: in `protected`. None: not sent."""

    properties: Mapping[str, Any]
    protected: dict[str, Any] | None = None
    tags: dict[str, str] | None = None
    location: str | None = None


def check_name(name: str, os_type: str) -> None:
    """Errors: ApiError 400 `InvalidResourceName`."""
    limit = LINUX_NAME if os_type == "linux" else 64
    if _NAME.fullmatch(name) is None or len(name) > limit:
        raise ApiError(
            400,
            "InvalidResourceName",
            f"The run command name '{name[:80]}' must have 1 to {limit} letters, digits, '_', '-' or '.', and neither "
            "begin with '-' or '.' nor end with '.'.",
        )


def without_signature(uri: str) -> str:
    """An address without the query that holds its signature: the form in which it is shown. Pure."""
    return _SIGNATURE.sub("", uri)


def without_query(uri: str) -> str:
    """The address of a blob for output: no agent uploads, so nobody needs the signature, and it is not kept. Pure."""
    return _QUERY.sub("", uri)


def _text(value: Mapping[str, Any], name: str, limit: int) -> str | None:
    found = value.get(name)
    if found is not None and (not isinstance(found, str) or len(found) > limit):
        raise bad_content(f"'properties.{name}' must be a text of at most {limit} characters.", f"properties.{name}")
    return found


def _uri(value: Mapping[str, Any], name: str) -> str | None:
    found = _text(value, name, 4096)
    if found and _URI.fullmatch(found) is None:
        raise bad_content(f"'properties.{name}' must be the address of a file.", f"properties.{name}")
    return found or None


def _parameters(value: Mapping[str, Any], name: str) -> list[dict[str, str]] | None:
    """Names and values; any scalar is taken as a value."""
    found = value.get(name)
    if found is None:
        return None
    good = isinstance(found, list) and len(found) <= MAX_PARAMETERS
    if not good or not all(isinstance(item, dict) and isinstance(item.get("name", ""), str) for item in found):
        text = f"'properties.{name}' must be an array of at most {MAX_PARAMETERS} objects with 'name' and 'value'."
        raise bad_content(text, f"properties.{name}")
    kept = []
    for item in found:
        given = item.get("value")
        if not isinstance(given, str | int | float):
            raise bad_content(f"A value in 'properties.{name}' must be a text or a number.", f"properties.{name}")
        text = str(given).lower() if isinstance(given, bool) else str(given)
        kept.append({"name": item.get("name") or "", "value": text})
    return kept


def _source(value: Mapping[str, Any]) -> dict[str, str] | None:
    found = value.get("source")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise bad_content("'properties.source' must be an object.", "properties.source")
    if found.get("commandId"):
        raise bad_content("This hub has no commands of its own: give 'script' or 'scriptUri'.", "properties.source")
    script, uri = found.get("script"), _uri(found, "scriptUri")
    if script is not None and not isinstance(script, str):
        raise bad_content("'properties.source.script' must be a text.", "properties.source")
    if bool(script) == bool(uri):
        raise bad_content("'properties.source' must have one of 'script' and 'scriptUri'.", "properties.source")
    return {"script": script} if script else {"scriptUri": str(uri)}


def _properties(value: object) -> tuple[dict[str, Any], dict[str, Any] | None]:
    if value is None:
        return {}, None
    if not isinstance(value, dict):
        raise bad_content("'properties' must be an object.", "properties")
    for name in ("outputBlobManagedIdentity", "errorBlobManagedIdentity"):
        if value.get(name):
            text = f"'properties.{name}' is not supported: no machine uploads output. Read the instance view."
            raise bad_content(text, f"properties.{name}")
    seconds, asynchronous = value.get("timeoutInSeconds"), value.get("asyncExecution")
    if seconds is not None and (
        isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds <= MAX_SECONDS
    ):
        text = f"'properties.timeoutInSeconds' must be an integer from 1 to {MAX_SECONDS}."
        raise bad_content(text, "properties.timeoutInSeconds")
    if asynchronous is not None and not isinstance(asynchronous, bool):
        raise bad_content("'properties.asyncExecution' must be true or false.", "properties.asyncExecution")
    found = {
        "source": _source(value),
        "parameters": _parameters(value, "parameters"),
        "asyncExecution": asynchronous,
        "timeoutInSeconds": seconds,
        "runAsUser": _text(value, "runAsUser", 256),
        **{name: _uri(value, name) for name in BLOBS},
    }
    secret = {
        "protectedParameters": _parameters(value, "protectedParameters"),
        "runAsPassword": _text(value, "runAsPassword", 1024),
    }
    protected = {name: item for name, item in secret.items() if item}
    sent = any(value.get(name) is not None for name in PROTECTED)
    return {name: item for name, item in found.items() if item is not None}, protected if sent else None


def read(body: Mapping[str, Any]) -> Wish:
    """The wish of a PUT or PATCH.

    Errors: ApiError 400 naming the member.
    """
    location = body.get("location")
    if location is not None and (not isinstance(location, str) or len(location) > 90):
        raise bad_content("'location' must be a text of at most 90 characters.", "location")
    properties, protected = _properties(body.get("properties"))
    tags = machine_body.tags(body["tags"]) if body.get("tags") is not None else None
    return Wish(properties, protected, tags, location or None)


def merged(old: Mapping[str, Any], wanted: Wish, *, whole: bool) -> dict[str, Any]:
    """Properties after a write. `whole`: of a PUT. The address of a script that is written as it is shown is the one
    that is kept, with its signature. Pure.

    Errors: ApiError 400 without a source.
    """
    new = dict(wanted.properties) if whole else {**old, **wanted.properties}
    new |= {name: without_query(new[name]) for name in BLOBS if name in new}
    kept = (old.get("source") or {}).get("scriptUri")
    if kept and new.get("source") == {"scriptUri": without_signature(kept)}:
        new["source"] = {"scriptUri": kept}
    if "source" not in new:
        raise bad_content("'properties.source' is missing.", "properties.source")
    return new

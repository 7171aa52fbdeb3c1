# SPDX-License-Identifier: Apache-2.0
"""Reading what callers want of an extension (identity-and-arm-api.md C.7). Pure: body in, `Wish` out.

A member that is not sent, or is null, stays as it is, in PUT as well: az reads the whole, without protected settings,
and writes it back. Settings are replaced as a whole; an empty object takes them away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.arm import machine_body
from control_plane.errors import ApiError, bad_content
from control_plane.extensions import order, versions

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_-])?")
_HANDLER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
MAX_TARGETS = 256
_TEXTS = {"forceUpdateTag": 512}
_FLAGS = ("autoUpgradeMinorVersion", "enableAutomaticUpgrade")


@dataclass(frozen=True)
class Wish:
    """`properties`: the writable members that were sent, but for `protected`. None: not sent."""

    properties: Mapping[str, Any]
    protected: dict[str, Any] | None = None
    tags: dict[str, str] | None = None
    location: str | None = None


def check_name(name: str) -> None:
    """Errors: ApiError 400 `InvalidResourceName`."""
    if _NAME.fullmatch(name) is None:
        raise ApiError(
            400,
            "InvalidResourceName",
            f"The extension name '{name[:90]}' must have 1 to 80 letters, digits, '_', '-' or '.', and neither begin "
            "with '-' or '.' nor end with '.'.",
        )


def handler_key(publisher: str, kind: str) -> str:
    """`publisher.type` in the form in which handlers are compared (extension-handler.md section 1)."""
    return f"{publisher}.{kind}".lower()


def _handler(value: Mapping[str, Any], name: str) -> str | None:
    found = value.get(name)
    if found is None:
        return None
    if not isinstance(found, str) or _HANDLER.fullmatch(found) is None:
        target = f"properties.{name}"
        raise bad_content(f"'{target}' must have 1 to 128 letters, digits, '_', '-' or '.'.", target)
    return found


def _version(value: Mapping[str, Any], name: str, target: str) -> str | None:
    found = value.get(name)
    if found is None:
        return None
    if not isinstance(found, str) or not versions.is_version(found):
        raise bad_content(f"'{target}' must be a version such as '1.0' or '1.2.3'.", target)
    return found


def _after(value: Mapping[str, Any]) -> list[str] | None:
    """Names of extensions, each once; an empty list takes back what was said before."""
    found = value.get(order.MEMBER)
    if found is None:
        return None
    if not isinstance(found, list) or len(found) > MAX_TARGETS:
        raise bad_content(
            f"'properties.{order.MEMBER}' must be a list of at most {MAX_TARGETS} names of extensions.",
            f"properties.{order.MEMBER}",
        )
    for name in found:
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise bad_content(
                f"Each of 'properties.{order.MEMBER}' must be the name of an extension of the machine.",
                f"properties.{order.MEMBER}",
            )
    return list({name.lower(): name for name in found}.values())


def properties(value: object) -> Wish:
    """The wish of an extension's `properties`.

    Errors: ApiError 400 naming the member.
    """
    if value is None:
        return Wish({})
    if not isinstance(value, dict):
        raise bad_content("'properties' must be an object.", "properties")
    found: dict[str, Any] = {
        "publisher": _handler(value, "publisher"),
        "type": _handler(value, "type"),
        "typeHandlerVersion": _version(value, "typeHandlerVersion", "properties.typeHandlerVersion"),
    }
    for name, limit in _TEXTS.items():
        found[name] = value.get(name)
        if found[name] is not None and (not isinstance(found[name], str) or len(found[name]) > limit):
            raise bad_content(
                f"'properties.{name}' must be a text of at most {limit} characters.", f"properties.{name}"
            )
    for name in _FLAGS:
        found[name] = value.get(name)
        if found[name] is not None and not isinstance(found[name], bool):
            raise bad_content(f"'properties.{name}' must be true or false.", f"properties.{name}")
    for name in ("settings", "protectedSettings"):
        if value.get(name) is not None and not isinstance(value[name], dict):
            raise bad_content(f"'properties.{name}' must be an object.", f"properties.{name}")
    found["settings"] = value.get("settings")
    found[order.MEMBER] = _after(value)
    return Wish({name: item for name, item in found.items() if item is not None}, value.get("protectedSettings"))


def read(body: Mapping[str, Any]) -> Wish:
    """The wish of a PUT or PATCH.

    Errors: ApiError 400 naming the member.
    """
    location = body.get("location")
    if location is not None and (not isinstance(location, str) or len(location) > 90):
        raise bad_content("'location' must be a text of at most 90 characters.", "location")
    inner = properties(body.get("properties"))
    tags = machine_body.tags(body["tags"]) if body.get("tags") is not None else None
    return Wish(inner.properties, inner.protected, tags, location or None)


def read_upgrade(body: Mapping[str, Any]) -> dict[str, str | None]:
    """The targets of upgradeExtensions: handler key to the version that is asked for; None: the newest.

    Errors: ApiError 400.
    """
    targets = body.get("extensionTargets")
    if targets is None:
        return {}
    if not isinstance(targets, dict) or len(targets) > MAX_TARGETS:
        raise bad_content(
            f"'extensionTargets' must be an object of at most {MAX_TARGETS} handlers.", "extensionTargets"
        )
    found: dict[str, str | None] = {}
    for name, item in targets.items():
        if not isinstance(item, dict):
            raise bad_content("Each of 'extensionTargets' must be an object with 'targetVersion'.", "extensionTargets")
        found[name.lower()] = _version(item, "targetVersion", f"extensionTargets.{name[:200]}.targetVersion")
    return found


def read_many(body: Mapping[str, Any]) -> list[Wish]:
    """The wishes of addExtensions; each needs `publisher` and `type`.

    Errors: ApiError 400.
    """
    given = body.get("extensions")
    if not isinstance(given, list) or not 0 < len(given) <= MAX_TARGETS:
        raise bad_content(f"'extensions' must be an array of 1 to {MAX_TARGETS} extensions.", "extensions")
    return [properties(item) for item in given]

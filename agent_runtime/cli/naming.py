# SPDX-License-Identifier: Apache-2.0
"""Rules for names, places and tags that `connect`, `check` and `apply` share. Pure.

Sources: agent-surface.md section 5.1 (flags), identity-and-arm-api.md C.1 (resource ids), protocol.md section 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent_runtime import errors

GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_NAME = re.compile(r"[A-Za-z0-9._-]{0,53}[A-Za-z0-9.]\Z")
_GROUP = re.compile(r"[-\w._()]{0,89}[-\w_()]\Z")
_FLAGS = {"subscription_id": "--subscription-id", "resource_group": "--resource-group", "location": "--location"}
MAX_TAGS = 50


def resource_id_of(place: Mapping[str, Any]) -> str:
    """The ARM id of the machine at `place` (`subscription_id`, `resource_group`, `name`)."""
    return (
        f"/subscriptions/{place['subscription_id']}/resourceGroups/{place['resource_group']}"
        f"/providers/Microsoft.HybridCompute/machines/{place['name']}"
    )


def same(key: str, one: Any, other: Any) -> bool:
    """Whether two values of a member of `connection` mean the same: no case, and no blanks in a location."""
    if not isinstance(one, str) or not isinstance(other, str):
        return bool(one == other)
    return _folded(key, one) == _folded(key, other)


def _folded(key: str, text: str) -> str:
    return re.sub(r"\s+", "", text).lower() if key == "location" else text.lower()


def choose_cloud(name: str | None, clouds: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The profile called `name`, else the only one.

    Errors: AZCM0075 when there is none at all, AZCM0023 when the choice is not clear or the name unknown.
    """
    if not clouds:
        raise errors.CloudNotObtained(
            "this machine has no cloud profile", "Add the profile of your hub with: azcmagent cloud add FILE"
        )
    there_are = ", ".join(sorted(clouds))
    if name:
        for key in clouds:
            if key.lower() == name.lower():
                return clouds[key]
        raise errors.ParameterInvalid(
            f"there is no cloud profile called {name!r}; there is {there_are}",
            "Name one of them with --cloud, or add another with: azcmagent cloud add FILE",
        )
    if len(clouds) > 1:
        raise errors.ParameterInvalid(
            f"this machine has more than one cloud profile: {there_are}", "Choose one of them with --cloud NAME"
        )
    return next(iter(clouds.values()))


def require(values: Mapping[str, Any], part: str = "") -> None:
    """Errors: AZCM0016, naming everything that is missing in one sentence."""
    missing = [key for key, value in values.items() if not value]
    if missing:
        names = ", ".join(f"{part}.{key}" if part else _FLAGS.get(key, f"--{key.replace('_', '-')}") for key in missing)
        raise errors.ParameterMissing(
            f"what is needed to connect is not complete: {names} missing",
            "Give every one of them" if part else "Give the flags; azcmagent connect --help lists them",
        )


def check_guid(flag: str, value: str | None) -> None:
    """Errors: AZCM0023 unless `value` is a GUID or absent."""
    if value and not GUID.match(value):
        raise errors.ParameterInvalid(f"{flag} is not a GUID: {value[:80]!r}", f"Give {flag} as 8-4-4-4-12 hex digits")


def check_tenant(tenant: Any, profile: Mapping[str, Any]) -> None:
    """Errors: AZCM0041 when the tenant is not the one of the profile's hub."""
    if not same("tenant_id", tenant, profile["tenant_id"]):
        raise errors.CredentialInvalid(
            f"tenant {tenant} is not the tenant of cloud {profile['name']}, which is {profile['tenant_id']}",
            "Correct the tenant id, or choose another cloud",
        )


def choose_location(location: str, profile: Mapping[str, Any]) -> str:
    """The location as the profile spells it; blanks and case do not matter. Errors: AZCM0020."""
    for known in profile["locations"]:
        if same("location", location, known):
            return str(known)
    raise errors.LocationUnknown(
        f"location {location[:90]!r} is unknown to cloud {profile['name']}",
        f"Use one of its locations: {', '.join(profile['locations'])}",
    )


def machine_name(name: str) -> str:
    """`name` if a machine may be called so. Errors: AZCM0023."""
    if not _NAME.match(name):
        raise errors.ParameterInvalid(
            f"{name[:80]!r} cannot be the name of a machine",
            "Give --resource-name: 1 to 54 letters, digits, '-', '_' or '.', not ending in '-' or '_'",
        )
    return name


def group_name(name: str) -> str:
    """`name` if a resource group may be called so. Errors: AZCM0023."""
    if not _GROUP.match(name):
        raise errors.ParameterInvalid(
            f"{name[:100]!r} cannot be the name of a resource group",
            "Use at most 90 letters, digits, '-', '_', '.', '(' or ')', not ending in '.'",
        )
    return name


def tags_without_machine() -> errors.AgentError:
    """The error of a wish for tags on a machine that is not connected and shall not be."""
    return errors.ParameterInvalid(
        "tags belong to a connected machine, and this one is not connected and would not be",
        "Ask for connection.state connected as well, or leave the tags out",
    )


def parse_tags(text: str) -> dict[str, str]:
    """`K=V,K2=V2`: single quotes round what has blanks or commas, a backslash takes the next letter as it is.

    Source: agent-surface.md section 5.1, `--tags`. Errors: AZCM0023.
    """
    tags: dict[str, str] = {}
    for part in _split(text, ","):
        if not part and text.strip() == "":
            continue
        pair = _split(part, "=", 1)
        key = _plain(pair[0])
        if len(pair) != 2 or not key:
            raise errors.ParameterInvalid(
                f"--tags has a part that is not KEY=VALUE: {part[:80]!r}",
                "Write --tags 'Owner=Ann,Purpose=web'; quote values that contain blanks or commas with single quotes",
            )
        if key in tags:
            raise errors.ParameterInvalid(f"--tags names {key[:80]!r} twice", "Name every tag once")
        tags[key] = _plain(pair[1])
    check_tags(tags)
    return tags


def check_tags(tags: Mapping[str, str]) -> None:
    """Errors: AZCM0023 when there are too many, or one is too long (identity-and-arm-api.md C.1: 50, 512, 256)."""
    if len(tags) > MAX_TAGS:
        raise errors.ParameterInvalid(f"{len(tags)} tags are too many", f"Give at most {MAX_TAGS}")
    for key, value in tags.items():
        if len(key) > 512 or len(value) > 256:
            raise errors.ParameterInvalid(
                f"the tag {key[:80]!r} is too long", "Names have at most 512 letters, values at most 256"
            )


def _split(text: str, at: str, most: int = -1) -> list[str]:
    """`text` cut at `at` where it is neither quoted nor escaped; quotes and backslashes stay. Errors: AZCM0023."""
    parts = [""]
    quoted = escaped = False
    for letter in text:
        if not (escaped or quoted) and letter == at and most:
            parts.append("")
            most -= 1
            continue
        parts[-1] += letter
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == "'":
            quoted = not quoted
    if quoted or escaped:
        raise errors.ParameterInvalid(
            "--tags has a single quote that is not closed, or ends in a backslash", "Close the quote; write \\' for one"
        )
    return parts


def _plain(text: str) -> str:
    """A part of `_split` without its quotes, backslashes and outer blanks."""
    kept = ""
    blanks_end = 0
    quoted = escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
            continue
        elif letter == "'":
            quoted = not quoted
            blanks_end = len(kept)
            continue
        elif letter == " " and not quoted:
            if kept:
                kept += letter
            continue
        kept += letter
        blanks_end = len(kept)
    return kept[:blanks_end]

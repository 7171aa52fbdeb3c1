# SPDX-License-Identifier: Apache-2.0
"""Columns of a machine that the fleet query compares, derived from what callers and agents write. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from control_plane import support
from control_plane.arm.machine_view import addresses_in

_FACTS = ("osName", "osSku", "osVersion", "computerName", "machineFqdn", "dnsFqdn", "adFqdn")
_FACTS_MAX = 4096
_TAGS = "\x1f"  # between what the agent reported and the tags
_NEVER = 0.0  # the day is told whatever the time is
_NUMBER = re.compile(r"\d+")


def tag_line(name: str, value: str) -> str:
    """One tag as a line of `tags_key`: the name without case, the value as it is. JSON, so that no text of a tag can
    look like the end of a line or another tag."""
    return json.dumps([name.lower(), value], ensure_ascii=False) + "\n"


def tag_name(name: str) -> str:
    """The beginning of a `tag_line`, whatever its value."""
    return "\n" + json.dumps([name.lower()], ensure_ascii=False)[:-1] + ", "


def tags_key(tags: Mapping[str, str]) -> str:
    """Every tag as a line; begins with a line's end. Empty without tags."""
    return "\n" + "".join(tag_line(name, value) for name, value in tags.items()) if tags else ""


def version_key(version: str | None) -> str:
    """A version so that texts compare as versions do: each number with six digits at least; empty for none."""
    if not version:
        return ""
    return _NUMBER.sub(lambda found: found.group().zfill(6), version.lower())[:64]


def facts_key(inventory: Mapping[str, Any]) -> str:
    """What a search looks through of an inventory report, in lower case, a line each."""
    texts: Iterable[Any] = [*(inventory.get(name) for name in _FACTS), *addresses_in(inventory)]
    return "\n".join(text.lower() for text in texts if isinstance(text, str) and text)[:_FACTS_MAX].replace(_TAGS, " ")


def with_tags(facts: str, tags: Mapping[str, str]) -> str:
    """A machine's `facts_key`, new or as it was before, with these tags behind it."""
    told = "\n".join(f"{name}={value}".lower() for name, value in tags.items())
    return facts.partition(_TAGS)[0] + _TAGS + told if told else facts.partition(_TAGS)[0]


def released(version: str | None, inventory: Mapping[str, Any]) -> str:
    """The day of release (`YYYY-MM-DD`) of the version that a machine runs; empty when its inventory does not tell."""
    return support.of_machine(version, inventory, _NEVER)["released"] or ""


def os_type(inventory: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """`linux`, `windows` or empty: what the agent reported, else what callers wrote."""
    found = inventory.get("osType") or properties.get("osType")
    return found.lower()[:16] if isinstance(found, str) else ""

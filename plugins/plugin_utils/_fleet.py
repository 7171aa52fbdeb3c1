# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's fleet query (docs/protocol.md section 4a) out of options. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError

PAGE = 1000
# option: parameter of the query, its values separated by commas
_WORDS = {
    "resource_groups": "resourceGroup",
    "statuses": "status",
    "os_types": "osType",
    "locations": "location",
    "agent_versions": "agentVersion",
}
_MOST_WORDS = 50
_MOST_TAGS = 10


def query(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parameters of the fleet query for the filters of the options. Raises OptionError."""
    found: list[tuple[str, str]] = []
    if options.get("subscription_id"):
        found.append(("subscriptionId", str(options["subscription_id"])))
    for option, parameter in _WORDS.items():
        words = [str(word).strip() for word in options.get(option) or ()]
        if not words:
            continue
        if len(words) > _MOST_WORDS or any(not word or "," in word for word in words):
            raise OptionError(
                f"{option} holds an empty value, one with a comma, or more than {_MOST_WORDS}",
                "Give each value by itself",
            )
        found.append((parameter, ",".join(words)))
    tags = options.get("tags") or {}
    if len(tags) > _MOST_TAGS:
        raise OptionError(f"tags names {len(tags)} tags", f"Name {_MOST_TAGS} at most")
    found += [("tag", str(name) if value is None else f"{name}={value}") for name, value in sorted(tags.items())]
    if options.get("search"):
        found.append(("search", str(options["search"])))
    return [*found, ("$top", str(PAGE))]

# SPDX-License-Identifier: Apache-2.0
"""What `properties.agentUpgrade` of a machine becomes by a write, and the document made of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from control_plane.errors import ApiError
from control_plane.extensions.versions import is_version, newest, parts, same

DEADLINE_SECONDS = 600
"""For a new version's first heartbeat."""
MEMBER = "agentUpgrade"
KIND = "agent"
"""Of its document and its report."""


def written(
    before: Mapping[str, Any] | None,
    sent: Mapping[str, Any] | None,
    merged: Mapping[str, Any],
    published: Sequence[str],
    running: str | None,
) -> dict[str, Any]:
    """The member after a write. `sent`: as the caller sent it; `merged`: over what was there; `published`: versions,
    the oldest first; `running`: what the machine runs.

    A version that is sent without a correlation id is a new wish, also when it is the same version: so what failed is
    tried again. Errors: ApiError 400 `AgentVersionNotFound`; `AgentVersionOlder` for one below the machine's with
    automatic upgrades, which machines do not take back.
    """
    made = dict(merged)
    if sent is None:
        return made
    wanted = sent.get("desiredVersion")
    if wanted is not None and (made != before or sent.get("correlationId") is None):
        made["desiredVersion"] = _published(str(wanted), published)
        if made.get("enableAutomaticUpgrade") and _is_older(made["desiredVersion"], running):
            raise ApiError(
                400,
                "AgentVersionOlder",
                f"The machine runs version {running}, and with automatic upgrades it takes no older one. Send "
                "'enableAutomaticUpgrade': false with it.",
                target="properties.agentUpgrade.desiredVersion",
            )
        if sent.get("correlationId") is None:
            made["correlationId"] = str(uuid4())
        return made
    if wanted is not None or not made.get("enableAutomaticUpgrade"):
        return made
    return {**made, **automatic(made, published, running)}


def automatic(wish: Mapping[str, Any], published: Sequence[str], running: str | None) -> dict[str, str]:
    """What `enableAutomaticUpgrade` changes: nothing, or the newest version, which is never one that was wished already
    (it may have been rolled back), nor an older one than the machine has. Of a machine that has not said yet what it
    runs that cannot be told: nothing."""
    found = newest(published)
    if found is None or not running or (is_version(running) and parts(found) <= parts(running)):
        return {}
    wanted = wish.get("desiredVersion")
    if wanted is not None and is_version(wanted) and parts(wanted) >= parts(found):
        return {}
    return {"desiredVersion": found, "correlationId": str(uuid4())}


def _is_older(version: str, running: str | None) -> bool:
    return bool(running) and is_version(str(running)) and parts(version) < parts(str(running))


def _published(wanted: str, published: Sequence[str]) -> str:
    found = [version for version in published if is_version(wanted) and same(version, wanted)]
    if not found:
        there = ", ".join(published[-20:]) or "none yet"
        raise ApiError(
            400,
            "AgentVersionNotFound",
            f"The artefacts of this hub have no package of version '{wanted}' of the agent; the versions are {there}. "
            "Add it with 'hawser-hub artefacts add', sign and publish.",
            target="properties.agentUpgrade.desiredVersion",
        )
    return found[0]


def content(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the document of kind `agent`."""
    wish = properties.get(MEMBER, {})
    return {
        "desiredVersion": wish.get("desiredVersion"),
        "enableAutomaticUpgrade": bool(wish.get("enableAutomaticUpgrade", False)),
        "correlationId": wish.get("correlationId"),
        "deadlineSeconds": DEADLINE_SECONDS,
    }

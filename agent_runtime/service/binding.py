# SPDX-License-Identifier: Apache-2.0
"""Whom root's services obey, and for which machine a document says it is (docs/protocol.md sections 7 and 12)."""

from __future__ import annotations

import base64
import json
import os
from typing import Any, NamedTuple, Optional

from agent_runtime.identity import trust
from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic


class Bound(NamedTuple):
    """Whom the service obeys: `binding.json` and its cloud profile with the anchors in force."""

    vm_id: str
    cloud: str
    keys: list[dict[str, Any]]
    profile: dict[str, Any]


def read(paths: Paths) -> Optional[Bound]:
    """None when root has not bound this machine, or its cloud profile is gone."""
    try:
        binding = atomic.read_json(paths.binding, 65536)
        cloud = str(binding["cloud"])
        if os.path.basename(cloud) != cloud:
            return None
        found = trust.read(paths, profile(paths, cloud))
        keys = [key for key in found["desired_state_keys"] if isinstance(key, dict)]
        return Bound(str(binding["vmId"]).lower(), cloud, keys, found)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def profile(paths: Paths, cloud: str) -> dict[str, Any]:
    """The profile as root gave it. Errors: OSError, ValueError."""
    return {**atomic.read_json(os.path.join(paths.clouds, f"{cloud}.json")), "name": cloud}


def payload_of(document: str) -> Optional[dict[str, Any]]:
    """The payload of a kept document, without judging it again; None when it has none. Pure."""
    try:
        part = document.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def machine_of(document: str) -> str | None:
    """The vmId in a kept document, in lower case. Pure."""
    machine = (payload_of(document) or {}).get("machine")
    return None if machine is None else str(machine).lower()

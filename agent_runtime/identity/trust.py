# SPDX-License-Identifier: Apache-2.0
"""Whom this machine trusts: the anchors of a cloud profile, or those that its hub has put in their place.

The profile is root's and came over a trusted connection. A rotation at the hub reaches the machine as a signed `trust`
document (docs/protocol.md section 7); root's services verify it and write `trust/NAME.json`. It holds for the profile
it was made over alone: when an administrator gives the profile other anchors, those are in force at once.
Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic

ANCHORS = ("ca_pem", "desired_state_keys")
LIMIT = 256 * 1024


def anchors(profile: Mapping[str, Any]) -> dict[str, Any]:
    """What decides whom a machine with this profile trusts. Pure."""
    return {name: profile.get(name) for name in ANCHORS}


def overlay(profile: Mapping[str, Any], generation: int, content: Mapping[str, Any]) -> dict[str, Any]:
    """The file that puts the anchors of a verified document in the place of the profile's. Pure.

    Errors: ValueError when the content has no anchors: a machine must not be left trusting nobody.
    """
    ca_pem, keys = content.get("caPem"), content.get("desiredStateKeys")
    if not isinstance(ca_pem, str) or "-----BEGIN CERTIFICATE-----" not in ca_pem:
        raise ValueError("caPem holds no certificate")
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise ValueError("desiredStateKeys holds no key")
    over = anchors(profile)
    return {"v": 1, "over": over, "generation": generation, "ca_pem": ca_pem, "desired_state_keys": keys}


def effective(profile: Mapping[str, Any], found: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    """The profile with the anchors in force. Pure."""
    if found is None or found.get("v") != 1 or found.get("over") != anchors(profile):
        return dict(profile)
    return {**profile, **{name: found[name] for name in ANCHORS if name in found}}


def path_of(paths: Paths, cloud: str) -> str:
    return os.path.join(paths.trust, f"{cloud}.json")


def read(paths: Paths, profile: Mapping[str, Any]) -> dict[str, Any]:
    """The profile with the anchors in force on this machine. A damaged file counts as none: the profile's hold then,
    and the hub's document makes it anew."""
    try:
        return effective(profile, atomic.read_json(path_of(paths, str(profile.get("name"))), LIMIT))
    except (OSError, ValueError):
        return dict(profile)


def write(paths: Paths, cloud: str, content: Mapping[str, Any]) -> None:
    """Puts an overlay in force; readable by himds, root's. Errors: OSError."""
    os.makedirs(paths.trust, mode=0o755, exist_ok=True)
    os.chmod(paths.trust, 0o755)  # noqa: S103 - himds reads here; the services begin with umask 077
    atomic.write_json(path_of(paths, cloud), dict(content), mode=0o644)

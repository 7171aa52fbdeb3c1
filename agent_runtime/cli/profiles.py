# SPDX-License-Identifier: Apache-2.0
"""Cloud profiles on this machine: `clouds/NAME.json` (docs/protocol.md sections 2 and 12)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.cli import schema
from agent_runtime.state import atomic

if TYPE_CHECKING:
    from agent_runtime.platform.paths import Paths

_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})\.json\Z")
LIMIT = 256 * 1024


def load(paths: Paths) -> dict[str, dict[str, Any]]:
    """Every profile by its name. Errors: AZCM0075 for one that cannot be read: root of trust is not guessed at."""
    found: dict[str, dict[str, Any]] = {}
    try:
        names = sorted(os.listdir(paths.clouds))
    except FileNotFoundError:
        return found
    for name in names:
        match = _FILE.match(name)
        if not match:
            continue
        path = os.path.join(paths.clouds, name)
        try:
            with open(path, "rb") as file:
                profile = json.loads(file.read(LIMIT + 1))
            if profile["name"] != match.group(1):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):
            raise errors.CloudNotObtained(
                f"the cloud profile {path} cannot be read",
                f"Add it again with: azcmagent cloud add FILE; or: azcmagent cloud remove {match.group(1)}",
            ) from None
        found[profile["name"]] = profile
    return found


def check(profile: Any) -> dict[str, Any]:
    """`profile` when it is whole. Errors: AZCM0023."""
    schema.check("cloud-profile", profile, "the cloud profile")
    check_ca(profile)
    return dict(profile)


def check_ca(profile: Mapping[str, Any]) -> None:
    """Errors: AZCM0023 when `ca_pem` holds no certificate."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=profile["ca_pem"])
    except (ssl.SSLError, ValueError):
        raise errors.ParameterInvalid(
            "ca_pem of the cloud profile is not a PEM certificate", "Take the profile that the hub prints, unchanged"
        ) from None


def save(paths: Paths, profile: Mapping[str, Any]) -> None:
    """Writes a checked profile, whole or not at all."""
    path = os.path.join(paths.clouds, f"{profile['name']}.json")
    os.makedirs(paths.clouds, mode=0o755, exist_ok=True)
    atomic.write_json(path, profile, mode=0o644)


def remove(paths: Paths, name: str) -> bool:
    """Whether there was one."""
    if not _FILE.match(f"{name}.json"):
        return False
    try:
        os.unlink(os.path.join(paths.clouds, f"{name}.json"))
    except FileNotFoundError:
        return False
    return True

# SPDX-License-Identifier: Apache-2.0
"""The birth record of an image, `image.json`: written by seal, kept by every machine made from the image
(docs/protocol.md section 14.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent_runtime.identity import evidence
from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic

IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PROFILE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
LIMIT = 256 * 1024


def read(paths: Paths) -> dict[str, Any] | None:
    """The record; None where there is none. Errors: ValueError when it is damaged, OSError."""
    try:
        return checked(atomic.read_json(paths.image, LIMIT))
    except FileNotFoundError:
        return None


def checked(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A birth record out of a file, with all of its members. Errors: ValueError. Pure."""
    record = {"enrol": None, **dict.fromkeys(_UNSEALED), **raw}
    image_id, salt, enrol = record.get("imageId"), record.get("salt"), record["enrol"]
    if record.get("v") != 1 or not isinstance(image_id, str) or not IMAGE_ID.fullmatch(image_id):
        raise ValueError("image.json is no birth record of version 1")
    if not isinstance(salt, str) or not re.fullmatch(r"[0-9a-f]{64}", salt):
        raise ValueError("image.json has no salt")
    if enrol is not None and not (isinstance(enrol, dict) and all(isinstance(enrol.get(k), str) for k in _ENROL)):
        raise ValueError("image.json says to enrol, and not where")
    if not isinstance(record.get("sealedAt"), str):
        raise ValueError("image.json does not say when it was sealed")
    if not all(isinstance(record[name], (str, type(None))) for name in _UNSEALED):
        raise ValueError("image.json says that it was unsealed, and not when or how")
    evidence.valid(record.get("evidence"))
    return record


_ENROL = ("cloud", "profile")
_UNSEALED = ("unsealedAt", "unsealedBy")


def read_or_none(paths: Paths) -> dict[str, Any] | None:
    """The record, None also where it is damaged."""
    try:
        return read(paths)
    except (OSError, ValueError):
        return None


def image_id(paths: Paths) -> str | None:
    """The image that this machine came from."""
    record = read_or_none(paths)
    return str(record["imageId"]) if record is not None else None


def is_sealed(paths: Paths) -> bool:
    """Whether the image was sealed and nobody has unsealed it yet, as far as its record says."""
    record = read_or_none(paths)
    return record is not None and record.get("unsealedAt") is None

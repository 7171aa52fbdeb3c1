# SPDX-License-Identifier: Apache-2.0
"""The part of `apply` that is about images: what has to be done so that the machine is sealed, or is not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_runtime import errors

if TYPE_CHECKING:
    from agent_runtime.cli.planning import Actual, Wish

SHOWN = ("state", "image_id", "enroll_on_first_boot")


def reasons(wish: Wish, actual: Actual, stays_connected: bool) -> list[tuple[str, Any, Any]]:
    """Path, wished value, value now of every difference. Errors: AZCM0016, AZCM0027; before anything is changed."""
    if wish.image is None or actual.image is None:
        return []
    wanted, now = wish.image, actual.image
    if wanted["state"] == "unsealed":
        return [("image.state", "unsealed", "sealed")] if now["state"] == "sealed" else []
    if not wanted.get("image_id"):
        raise errors.ParameterMissing("the wish to seal an image does not name it", "Give image.image_id")
    if wish.tags is not None or (wish.connection is not None and wish.connection["state"] == "connected"):
        raise errors.ConfigurationConflict(
            "a sealed image is not connected and has no tags", "Wish for one of image and connection"
        )
    if stays_connected and not wanted.get("force"):
        raise errors.ConfigurationConflict(
            f"this machine is connected to {actual.connection.get('resource_id')}, and an image must not be",
            "Wish for connection.state disconnected as well, or give image.force, which leaves the machine at the hub",
        )
    if now["state"] != "sealed":
        return [("image.state", "sealed", now["state"])]
    names = [name for name in SHOWN[1:] if wanted.get(name) != now.get(name)]
    found = [(f"image.{name}", wanted.get(name), now.get(name)) for name in names]
    return found if now.get("clean") else [*found, ("image.clean", True, False)]


def projected(wish: Wish, actual: Actual, steps: Sequence[str]) -> Mapping[str, Any] | None:
    """`Actual.image` after the steps."""
    if wish.image is None or actual.image is None:
        return actual.image
    if "seal" in steps:
        return {
            "state": "sealed",
            "image_id": wish.image["image_id"],
            "enroll_on_first_boot": wish.image.get("enroll_on_first_boot"),
            "clean": True,
        }
    return {**actual.image, "state": "unsealed"} if "unseal" in steps else actual.image

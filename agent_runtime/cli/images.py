# SPDX-License-Identifier: Apache-2.0
"""The part of `apply` that is about images: what has to be done so that the machine is sealed, or is not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_runtime import errors

if TYPE_CHECKING:
    from agent_runtime.cli.planning import Actual, Wish

SHOWN = ("state", "image_id", "enroll_on_first_boot")
STATE = "image.state"


def reasons(wish: Wish, actual: Actual, stays_connected: bool) -> list[tuple[str, Any, Any]]:
    """Path, wished value, value now of every difference. Errors: AZCM0016, AZCM0027; before anything is changed."""
    if wish.image is None or actual.image is None:
        return []
    wanted, now = wish.image, actual.image
    if wanted["state"] == "unsealed":
        return [(STATE, "unsealed", "sealed")] if now["state"] == "sealed" else []
    if wanted["state"] == "specialised":
        return _copy_reasons(wish, actual)
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
        return [(STATE, "sealed", now["state"])]
    names = [name for name in SHOWN[1:] if wanted.get(name) != now.get(name)]
    found = [(f"image.{name}", wanted.get(name), now.get(name)) for name in names]
    return found if now.get("clean") else [*found, ("image.clean", True, False)]


def steps(wish: Wish, actual: Actual) -> set[str]:
    """What has to be done where there are reasons."""
    if wish.image is None or actual.image is None:
        return set()
    if wish.image["state"] == "sealed":
        return {"seal"}
    undone = {"unseal"} if actual.image["state"] == "sealed" else set()
    return {*undone, "specialise"} if wish.image["state"] == "specialised" else undone


def _copy_reasons(wish: Wish, actual: Actual) -> list[tuple[str, Any, Any]]:
    """Of `specialised`. Errors: AZCM0016 when nothing says how the machine joins, AZCM0027."""
    if wish.tags is not None or wish.connection is not None:
        raise errors.ConfigurationConflict(
            "a copy takes its place from the hub's profile, not from connection and tags",
            "Wish for one of image and connection",
        )
    now = actual.image or {}
    state = "sealed" if now["state"] == "sealed" else str(actual.connection.get("identity_state") or "disconnected")
    if state == "connected":
        return []
    if state == "expired":
        raise errors.ConfigurationConflict(
            "the identity of this machine has expired", "Run 'azcmagent disconnect', then connect it"
        )
    if state == "sealed" and not (now["is_copied"] or (wish.image or {}).get("is_copy")):
        raise errors.ConfigurationConflict(
            "this machine is sealed, and its evidence does not say that it is a copy",
            "Give image.is_copy if it is one; never on the image's builder",
        )
    if state in ("sealed", "disconnected") and not now["joins"]:
        raise errors.ParameterMissing(
            "nothing here says how this machine joins the hub: its image was sealed without an enrolment profile, or "
            "it comes from none",
            "Wish for connection instead, of a machine that is not sealed",
        )
    return [(STATE, "specialised", state)]


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
    if "specialise" in steps:
        return {**actual.image, "state": "specialised"}
    return {**actual.image, "state": "unsealed"} if "unseal" in steps else actual.image

# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of a host as the input of `azcmagent apply` (docs/protocol.md section 11). Pure."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError

LIMIT = 256 * 1024
_NEEDED = {
    "tenant_id": "HAWSER_TENANT_ID",
    "subscription_id": "HAWSER_SUBSCRIPTION_ID",
    "resource_group": "HAWSER_RESOURCE_GROUP",
    "location": "HAWSER_LOCATION",
}


def resource_id(subscription_id: str, resource_group: str, name: str) -> str:
    """The ARM id of a machine."""
    return (
        f"/subscriptions/{subscription_id}/resourceGroups/{resource_group}"
        f"/providers/Microsoft.HybridCompute/machines/{name}"
    )


def tags_of(value: dict[str, Any]) -> dict[str, str]:
    """Tags as ARM keeps them, all strings. YAML's numbers and booleans are written as in YAML;

    anything else is refused.
    """
    tags: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, bool):
            item = "true" if item else "false"
        if not isinstance(item, (str, int, float)):
            raise OptionError(
                f"the tag {key!s} has no text as its value", "Give every tag a text; leave a tag out to remove it"
            )
        tags[str(key)] = str(item)
    return tags


def connection_of(options: dict[str, Any], name: str, cloud: str | None) -> dict[str, Any]:
    """The `connection` part. A host that shall be connected needs all of its place;

    one sentence names everything that is missing.
    """
    if options["state"] == "disconnected":
        return {"state": "disconnected", **({"force_local_only": True} if options.get("force_local_only") else {})}
    missing = [option for option in _NEEDED if not options.get(option)]
    if missing:
        variables = ", ".join(_NEEDED[option] for option in missing)
        raise OptionError(
            f"the place of a connected machine is not complete: {', '.join(missing)} missing",
            f"Set the options, or {variables} in the controller's environment",
            code="AZCM0016",
        )
    if not cloud:
        raise OptionError(
            "no cloud is named",
            "Set cloud_profile to the profile of your hub (a file or a dictionary), or cloud to the name of one "
            "that the host has",
            code="AZCM0016",
        )
    connection = {"state": "connected", "cloud": cloud, "name": name}
    connection.update({option: options[option] for option in _NEEDED})
    if options.get("correlation_id"):
        connection["correlation_id"] = options["correlation_id"]
    return connection


def compose(options: dict[str, Any], name: str, profile: dict[str, Any] | None) -> dict[str, Any]:
    """The whole wish. `options` are validated options of a host-side module;

    keys that are absent or None are left alone.
    """
    wish: dict[str, Any] = {"schema": 1}
    if options.get("state") is not None:
        cloud = options.get("cloud") or (profile or {}).get("name")
        if profile and cloud != profile.get("name"):
            raise OptionError(
                f"cloud is {cloud} and cloud_profile describes {profile.get('name')}",
                "Give one of them, or the same name in both",
            )
        wish["connection"] = connection_of(options, name, cloud)
    # A host that leaves needs no profile: the one it was connected with is there.
    if profile and options.get("state") != "disconnected":
        wish["cloud"] = profile
    if options.get("config") is not None:
        wish["config"] = options["config"]
    if options.get("tags") is not None and options.get("state") != "disconnected":
        wish["tags"] = tags_of(options["tags"])
    if options.get("image") is not None:
        wish["image"] = image_of(options["image"])
    return wish


def refuse_builder(wish: dict[str, Any], builder: object) -> None:
    """An image is not connected: every copy would have its identity (clone-specialization.md section 8). `builder`: the
    variable `packer_builder_type`, which Packer sets for the hosts that it builds."""
    if builder and (wish.get("connection") or {}).get("state") == "connected":
        raise OptionError(
            f"this host is being made into an image (packer_builder_type is {builder}), and an image is not connected",
            "Install the agent and end with hawser.machine.seal (docs/golden-images.md), or pass "
            "packer_builder_type='' as a further extra variable",
            code="AZCM0027",
        )


def compose_image(options: dict[str, Any], name: str, profile: dict[str, Any] | None) -> dict[str, Any]:  # noqa: ARG001
    """The wish of the module image: an image has neither a name nor a hub of its own."""
    return {"schema": 1, "image": image_of(options)}


def image_of(options: dict[str, Any]) -> dict[str, Any]:
    """The key `image` of a wish, out of the options of an image."""
    if options["state"] == "unsealed":
        return {"state": "unsealed"}
    if options["state"] == "specialised":
        return {"state": "specialised", "is_copy": options["is_copy"]}
    if not options.get("image_id"):
        raise OptionError("the image has no name", "Set image_id, such as web-2026-11", code="AZCM0016")
    image = {"state": "sealed", "image_id": options["image_id"], "force": options["force"]}
    image["keep_logs"] = options["keep_logs"]
    # Without a profile copies do not enrol: said, so that an image that was sealed with one is sealed anew.
    image["enroll_on_first_boot"] = options.get("enroll_on_first_boot") or None
    if options.get("enrolment_token"):
        image["token"] = options["enrolment_token"]
    if options.get("cloud"):
        image["cloud"] = options["cloud"]
    return image


def with_credential(wish: dict[str, Any], access_token: str) -> dict[str, Any]:
    """The same wish with the credential that the host asked for."""
    connection = dict(wish.get("connection") or {"state": "connected"})
    connection["credential"] = {"access_token": access_token}
    return {**wish, "connection": connection}


def dump(wish: dict[str, Any]) -> str:
    """One line of ASCII JSON. Windows PowerShell encodes what it pipes as ASCII."""
    try:
        text = json.dumps(wish, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"a value of config or cloud_profile cannot be written as JSON ({error})",
            "Use texts, numbers, booleans and lists",
        ) from error
    if len(text) > LIMIT:
        raise OptionError(f"the desired state has {len(text)} bytes", f"Keep it below {LIMIT} bytes")
    return text + "\n"

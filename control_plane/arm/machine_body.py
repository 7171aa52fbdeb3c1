# SPDX-License-Identifier: Apache-2.0
"""Reading PUT and PATCH bodies of a machine (identity-and-arm-api.md C.5). Pure: body in, `Wish` out.

Members that only the agent or the hub writes are accepted and ignored: az sends the whole object back.
A member that is not sent stays as it is, in PUT as well, so that a repeated onboarding call takes nothing away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from control_plane.bodies import is_guid
from control_plane.errors import ApiError, bad_content

MAX_TAGS = 50
_TAG_FORBIDDEN = re.compile(r"[<>%&\\?/\x00-\x1f]")

# Writable members of `properties` and the JSON type of each.
_WRITABLE: dict[str, type] = {
    "osType": str,
    "osProfile": dict,
    "tpmEkCertificate": str,
    "identityKeyStore": str,
    "agentUpgrade": dict,
    "locationData": dict,
    "licenseProfile": dict,
    "mssqlDiscovered": str,
    "parentClusterResourceId": str,
    "privateLinkScopeResourceId": str,
    "hardwareResourceId": str,
    "cloudMetadata": dict,
    "serviceStatuses": dict,
}
_PATCHABLE = frozenset(
    {
        "locationData",
        "osProfile",
        "cloudMetadata",
        "agentUpgrade",
        "parentClusterResourceId",
        "privateLinkScopeResourceId",
        "identityKeyStore",
        "tpmEkCertificate",
    }
)
_READ_ONLY_INSIDE: dict[str, frozenset[str]] = {
    "osProfile": frozenset({"computerName"}),
    "cloudMetadata": frozenset({"provider"}),
    "agentUpgrade": frozenset(
        {"lastAttemptDesiredVersion", "lastAttemptTimestamp", "lastAttemptStatus", "lastAttemptMessage"}
    ),
}
_KINDS = ("AVS", "HCI", "SCVMM", "VMware", "EPS", "GCP", "AWS")
_IDENTITIES = ("None", "SystemAssigned", "UserAssigned", "SystemAssigned,UserAssigned")


@dataclass(frozen=True)
class Wish:
    """What a caller wants. None: not sent. `properties`: writable members only; a None value clears one."""

    location: str | None = None
    tags: dict[str, str] | None = None
    kind: str | None = None
    identity_type: str | None = None
    vm_id: str | None = None
    client_public_key: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def only_tags(self) -> bool:
        """True when nothing but tags is asked for (all that an `update` ticket allows)."""
        return not self.properties and self.kind is None and self.identity_type is None

    @property
    def identity_alone(self) -> Wish:
        """The same without all that describes the machine: what connecting may give to a machine that others made."""
        return Wish(vm_id=self.vm_id, client_public_key=self.client_public_key)


def tags(value: object) -> dict[str, str]:
    """Tags as ARM takes them.

    Errors: ApiError 400 `InvalidRequestContent` or `InvalidTagNameCharacters`, `TagsLimitExceeded`.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise bad_content("'tags' must be an object of texts.", "tags")
    if len(value) > MAX_TAGS:
        raise ApiError(400, "TagsLimitExceeded", f"A resource may have at most {MAX_TAGS} tags.", target="tags")
    if len({name.lower() for name in value}) != len(value):
        raise bad_content("Two tags have the same name; names are compared without case.", "tags")
    for name, item in value.items():
        if not 0 < len(name) <= 512 or len(item) > 256:
            raise bad_content("Tag names have 1 to 512 characters, values at most 256.", "tags")
        if _TAG_FORBIDDEN.search(name):
            raise ApiError(
                400, "InvalidTagNameCharacters", "Tag names must not contain < > % & \\ ? / .", target="tags"
            )
    return dict(value)


def _choice(body: dict[str, Any], name: str, words: tuple[str, ...]) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise bad_content(f"'{name}' must be a text.", name)
    found = [word for word in words if word.lower() == value.replace(" ", "").lower()]
    if not found:
        raise bad_content(f"'{name}' must be one of {', '.join(words)}.", name)
    return found[0]


def _identity(body: dict[str, Any]) -> str | None:
    value = body.get("identity")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad_content("'identity' must be an object.", "identity")
    return _choice(value, "type", _IDENTITIES)


def _agent_upgrade(value: dict[str, Any]) -> None:
    version, correlation, automatic = (
        value.get("desiredVersion"),
        value.get("correlationId"),
        value.get("enableAutomaticUpgrade"),
    )
    if version is not None and (not isinstance(version, str) or len(version) > 64):
        raise bad_content("'agentUpgrade.desiredVersion' must be a version.", "properties.agentUpgrade")
    if correlation is not None and not is_guid(correlation):
        raise bad_content("'agentUpgrade.correlationId' must be a GUID.", "properties.agentUpgrade")
    if automatic is not None and not isinstance(automatic, bool):
        raise bad_content("'agentUpgrade.enableAutomaticUpgrade' must be true or false.", "properties.agentUpgrade")


def _properties(value: object, allowed: frozenset[str] | None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_content("'properties' must be an object.", "properties")
    found: dict[str, Any] = {}
    for name, kind in _WRITABLE.items():
        if name not in value or (allowed is not None and name not in allowed):
            continue
        item = value[name]
        if item is not None and not isinstance(item, kind):
            word = "an object" if kind is dict else "a text"
            raise bad_content(f"'properties.{name}' must be {word}.", f"properties.{name}")
        if isinstance(item, dict):
            item = {key: part for key, part in item.items() if key not in _READ_ONLY_INSIDE.get(name, ())}
        found[name] = item
    if isinstance(found.get("agentUpgrade"), dict):
        _agent_upgrade(found["agentUpgrade"])
    place = found.get("locationData")
    if isinstance(place, dict) and not isinstance(place.get("name"), str):
        raise bad_content("'properties.locationData.name' is required.", "properties.locationData")
    return found


def read_put(body: dict[str, Any]) -> Wish:
    """The wish of a PUT.

    Errors: ApiError 400 naming the member.
    """
    location = body.get("location")
    if location is not None and (not isinstance(location, str) or not 0 < len(location) <= 90):
        raise bad_content("'location' must be a text of 1 to 90 characters.", "location")
    raw = body.get("properties")
    inner: dict[str, Any] = raw if isinstance(raw, dict) else {}
    vm_id, key = inner.get("vmId"), inner.get("clientPublicKey")
    if vm_id is not None and not is_guid(vm_id):
        raise bad_content("'properties.vmId' must be a GUID.", "properties.vmId")
    if key is not None and (not isinstance(key, str) or len(key) > 8192):
        raise bad_content("'properties.clientPublicKey' must be a text of at most 8192 characters.", "properties")
    return Wish(
        location=location,
        tags=tags(body["tags"]) if "tags" in body else None,
        kind=_choice(body, "kind", _KINDS),
        identity_type=_identity(body),
        vm_id=vm_id.lower() if isinstance(vm_id, str) else None,
        client_public_key=key or None,
        properties=_properties(raw, None),
    )


def read_patch(body: dict[str, Any]) -> Wish:
    """The wish of a PATCH: tags as a whole, and the members that MachineUpdate names."""
    return Wish(
        tags=tags(body["tags"]) if body.get("tags") is not None else None,
        kind=_choice(body, "kind", _KINDS),
        identity_type=_identity(body),
        properties=_properties(body.get("properties"), _PATCHABLE),
    )


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Writable properties after a write: one level deep, None clears a member."""
    result = dict(old)
    for name, value in new.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            before = result.get(name) if isinstance(result.get(name), dict) else {}
            result[name] = {key: part for key, part in {**(before or {}), **value}.items() if part is not None}
        else:
            result[name] = value
    return result

# SPDX-License-Identifier: Apache-2.0
"""Enrolment profiles: what becomes of machines that join with an image, and of twins (docs/protocol.md section 14.4).
Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from control_plane.arm import paths
from control_plane.arm.machine_body import tags as read_tags
from control_plane.bodies import is_guid
from control_plane.channel.verdict import ADOPT, ASK, KEEP, POLICIES, QUARANTINE
from control_plane.errors import ApiError, bad_content

DEFAULT = "default"
NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")
IMAGE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_FIELDS = re.compile(r"\{([^{}]*)\}")
_KNOWN_FIELDS = frozenset({"hostname", "image", "profile", "suffix"})
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_.-]+")
MAX_TEMPLATE, MAX_NAME, MAX_CONTACT = 128, 54, 256


@dataclass(frozen=True)
class Settings:
    """`clones` None: `adopt` for a machine whose image is recorded, else `quarantine`. Group, subscription and
    location None: those of the machine whose identity was copied; to join, subscription and group are needed."""

    subscriptionId: str | None = None  # noqa: N815 - the names of the API
    resourceGroup: str | None = None  # noqa: N815
    location: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    clones: str | None = None
    moved: str = ASK
    nameTemplate: str = "{hostname}"  # noqa: N815
    contact: str = ""

    def policy(self, image_id: str | None) -> str:
        """What becomes of a clone of a machine of this image (None: of no recorded one)."""
        return self.clones or (ADOPT if image_id else QUARANTINE)


FALLBACK = Settings()
"""Of the profile `default` while nobody has set it, and of machines whose profile was removed."""


def check_name(name: str) -> str:
    """Errors: ApiError 400 `InvalidProfile`."""
    if not NAME.fullmatch(name):
        raise ApiError(
            400, "InvalidProfile", f"'{name[:80]}' cannot be a profile: 1 to 64 of a-z, 0-9, '.', '_' and '-'."
        )
    return name


def image_id(value: object) -> str | None:
    """The member `imageId` of a request.

    Errors: ApiError 400.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not IMAGE.fullmatch(value):
        raise bad_content("'imageId' must be 1 to 128 letters, digits, '.', '_' and '-'.", "imageId")
    return value


def _optional(body: Mapping[str, Any], name: str, fits: Callable[[str], bool], what: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not fits(value):
        raise bad_content(f"'{name}' must be {what}.", name)
    return value


def _is_template(text: str) -> bool:
    return (
        0 < len(text) <= MAX_TEMPLATE
        and set(_FIELDS.findall(text)) <= _KNOWN_FIELDS
        and "hostname" in _FIELDS.findall(text)
        and _NOT_A_NAME.search(_FIELDS.sub("", text)) is None
    )


def read(body: Mapping[str, Any], before: Settings | None = None) -> Settings:
    """Settings out of a body; what is not sent stays as `before`.

    Errors: ApiError 400 naming the member.
    """
    known = asdict(before or Settings())
    unknown = set(body) - set(known)
    if unknown:
        first = min(unknown)[:80]
        raise bad_content(f"There is no member '{first}' in a profile.", first)
    merged = {**known, **body}
    subscription = _optional(merged, "subscriptionId", is_guid, "a GUID")
    group = _optional(merged, "resourceGroup", paths.is_group_name, "the name of a resource group")
    if (subscription is None) != (group is None):
        raise bad_content("'subscriptionId' and 'resourceGroup' are given together or not at all.", "resourceGroup")
    template = _optional(
        merged, "nameTemplate", _is_template, f"a text with {{hostname}}; known: {', '.join(sorted(_KNOWN_FIELDS))}"
    )
    return Settings(
        subscriptionId=subscription.lower() if subscription else None,
        resourceGroup=group,
        location=_optional(merged, "location", lambda text: 0 < len(text) <= 90, "the name of a location"),
        tags=read_tags(merged["tags"]),
        clones=_optional(merged, "clones", lambda text: text in POLICIES, f"one of {', '.join(POLICIES)}, or null"),
        moved=_optional(merged, "moved", lambda text: text in (ASK, KEEP), f"{ASK} or {KEEP}") or ASK,
        nameTemplate=template or "{hostname}",
        contact=_optional(
            merged,
            "contact",
            lambda text: len(text) <= MAX_CONTACT and _LINE.fullmatch(text) is not None,
            "a line of text",
        )
        or "",
    )


def stored(value: Mapping[str, Any]) -> Settings:
    """Settings as a row keeps them; members that this version does not know are left out."""
    known = asdict(Settings())
    return Settings(**{name: item for name, item in value.items() if name in known})


def shown(settings: Settings) -> dict[str, Any]:
    """As the API and the command line show them."""
    return {**asdict(settings), "tags": dict(settings.tags)}


def machine_name(template: str, hostname: str, profile: str, image: str | None, suffix: str) -> str:
    """A name out of the template, fit to be one of a machine; without `{suffix}` in it the suffix is left out. What a
    host says of itself may be anything: characters that no name has become `-`, and nothing left becomes `machine`."""
    host = hostname.partition(".")[0]
    values = {"hostname": host, "image": image or "", "profile": profile, "suffix": suffix}
    text = _FIELDS.sub(lambda found: values.get(found.group(1), ""), template)
    name = _NOT_A_NAME.sub("-", text).strip("-._")[:MAX_NAME].rstrip("-._")
    return name if paths.is_machine_name(name) else "machine"


def with_suffix(name: str, suffix: str) -> str:
    """The name with `-suffix`, still short enough."""
    return f"{name[: MAX_NAME - len(suffix) - 1].rstrip('-._')}-{suffix}"

# SPDX-License-Identifier: Apache-2.0
"""The evidence vector (docs/protocol.md sections 6 and 14.1): reading it, and the digest over it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.bodies import needed_text, one_of, text
from control_plane.errors import bad_content

STATUSES = ("ok", "absent", "denied", "error")
MAX_ITEMS = 32
MAX_SOURCE = 128
MAX_FORMER = 8
_HEX = frozenset("0123456789abcdef")


def is_digest(value: object) -> bool:
    """True for 64 hexadecimal digits in lower case."""
    return isinstance(value, str) and len(value) == 64 and _HEX.issuperset(value)


def digest(items: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the items without `boot_id`, sorted by name, each as `name=status:digest` and a line feed."""
    kept = sorted((item for item in items if item["name"] != "boot_id"), key=lambda item: str(item["name"]))
    lines = (f"{item['name']}={item['status']}:{item['digest'] or ''}\n" for item in kept)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read(body: dict[str, Any]) -> dict[str, Any]:
    """The member `evidence` of an enrolment.

    Errors: ApiError 400 when it is not as the schema says, or its digest is not that of its items.
    """
    value = body.get("evidence")
    if not isinstance(value, dict) or not isinstance(value.get("items"), list) or len(value["items"]) > MAX_ITEMS:
        raise bad_content(f"'evidence' must be an object with at most {MAX_ITEMS} 'items'.", "evidence")
    items = items_of(value["items"])
    if value.get("digest") != digest(items):
        raise bad_content("'evidence.digest' is not the digest of 'evidence.items'.", "evidence")
    return {"digest": value["digest"], "items": items}


def reported(recorded: Mapping[str, Any], vector: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded after a report that differs in no strong name. What was recorded before still fits: a copy whose
    cards or disk alone are others reports them too, and must not make the original the stranger. Pure."""
    former = [recorded["digest"], *recorded.get("former", [])]
    kept = {"former": [known for known in former if known and known != vector["digest"]][:MAX_FORMER]}
    return {**vector, **kept, **({"presented": recorded["presented"]} if "presented" in recorded else {})}


def after_gap(recorded: Mapping[str, Any], given: str) -> dict[str, Any] | None:
    """What is recorded after a heartbeat that belongs to another epoch; None when nothing changes. A hub that was
    restored has forgotten reports that the machine was acknowledged, and will not get again: what a machine presents
    then is no stranger's. Pure."""
    if not recorded or given in fitting(recorded) or given in presented(recorded):
        return None
    return {**recorded, "presented": [given, *presented(recorded)][:MAX_FORMER]}


def presented(recorded: Mapping[str, Any]) -> tuple[str, ...]:
    """Digests that holders of the identity presented when the hub could not know better. Pure."""
    return tuple(recorded.get("presented", ()))


def fitting(recorded: Mapping[str, Any]) -> tuple[str, ...]:
    """Digests that fit the recorded evidence; none where nothing is recorded. Pure."""
    return (recorded["digest"], *recorded.get("former", [])) if recorded else ()


def items_of(values: Sequence[object]) -> list[dict[str, Any]]:
    """The items of a vector, each name once.

    Errors: ApiError 400.
    """
    items = [_item(item) for item in values]
    if len({item["name"] for item in items}) != len(items):
        raise bad_content("A name stands twice in 'evidence.items'.", "evidence")
    return items


def _item(item: object) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise bad_content("'evidence.items' must be objects.", "evidence")
    found = item.get("digest")
    if found is not None and not is_digest(found):
        raise bad_content("A digest of evidence must be null or 64 hexadecimal digits in lower case.", "evidence")
    kept = {"name": needed_text(item, "name", 64), "status": one_of(item, "status", STATUSES), "digest": found}
    if (kept["status"] == "ok") != (found is not None):
        raise bad_content("An item of evidence has a digest if its status is 'ok', and only then.", "evidence")
    source = text(item, "source", MAX_SOURCE, required=False)
    return kept if source is None else {**kept, "source": source}

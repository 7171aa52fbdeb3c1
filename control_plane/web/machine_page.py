# SPDX-License-Identifier: Apache-2.0
"""/fleet/machine: one machine with its history. Its tags are edited, and it is deleted, with the rights of ARM."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from control_plane.arm.roles import Action
from control_plane.errors import ApiError, not_found
from control_plane.web import render
from control_plane.web.visit import Visit, machine_path

SHOWN_AUDIT = 10
SPARE_ROWS = 3
MAX_ROWS = 60
_IDENTITY = ("machineFqdn", "dnsFqdn", "domainName", "vmUuid", "manufacturer", "model", "serialNumber")
_SYSTEM = ("osName", "osVersion", "osSku", "osEdition")


def digest(tags: Mapping[str, str]) -> str:
    """Says whether tags are the ones that a form was made from."""
    return hashlib.sha256(json.dumps(sorted(tags.items())).encode()).hexdigest()[:16]


def tags_of(fields: Mapping[str, str]) -> dict[str, str]:
    """The tags that a form holds: `name-N` and `value-N`; a row without a name is none. Pure.

    Errors: ApiError 400 for a name given twice, or a value without a name.
    """
    found: dict[str, str] = {}
    for number in range(MAX_ROWS):
        name, value = fields.get(f"name-{number}", "").strip(), fields.get(f"value-{number}", "").strip()
        if not name and value:
            raise ApiError(400, "InvalidRequestContent", f"The value '{value[:80]}' has no name.")
        if name.lower() in {other.lower() for other in found}:
            raise ApiError(400, "InvalidRequestContent", f"The tag '{name[:80]}' is given twice.")
        if name:
            found[name] = value
    return found


def find(visit: Visit, text: str) -> Mapping[str, Any]:
    """The machine that an address or a form names by resource id or vmId.

    Errors: ApiError 400, 403, 404, 409.
    """
    if not text:
        raise not_found("")
    return visit.get(f"/machines/{text.lstrip('/')}")


def _audit(visit: Visit, target: str) -> list[Mapping[str, Any]] | None:
    """The last entries about a machine; None when the person may not read them."""
    if not visit.may(Action.AUDIT_READ, target):
        return None
    found: list[Mapping[str, Any]] = visit.get("/audit", [("scope", target), ("$top", str(SHOWN_AUDIT))])["value"]
    return found


def _facts(machine: Mapping[str, Any], names: tuple[str, ...]) -> list[tuple[str, Any]]:
    inventory = machine["inventory"] or {}
    return [(name, inventory[name]) for name in names if inventory.get(name)]


def _hardware(inventory: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = {**(inventory.get("hardwareProfile") or {}), **(inventory.get("firmwareProfile") or {})}
    found.pop("serialNumber", None)  # told with the identity
    return [(name, item) for name, item in found.items() if item not in (None, "", [], {})]


def _rows(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    return [*tags.items(), *[("", "")] * SPARE_ROWS]


def _shown(
    visit: Visit,
    machine: Mapping[str, Any],
    status: int = 200,
    problem: str = "",
    tags: Mapping[str, str] | None = None,
) -> Response:
    target = machine["id"]
    inventory = machine["inventory"] or {}
    return render.page(
        visit,
        "machine.html.j2",
        status,
        machine=machine,
        identity=_facts(machine, _IDENTITY),
        system=_facts(machine, _SYSTEM),
        interfaces=(inventory.get("networkProfile") or {}).get("networkInterfaces") or [],
        hardware=_hardware(inventory),
        disks=(inventory.get("storageProfile") or {}).get("disks") or [],
        audit=_audit(visit, target),
        may_tag=visit.may(Action.MACHINE_WRITE, target),
        may_delete=visit.may(Action.MACHINE_DELETE, target),
        tag_rows=_rows(machine["tags"] if tags is None else tags),
        digest=digest(machine["tags"]),
        problem=problem,
        saved=visit.http.query.get("saved") == "tags" and not problem,
    )


def show(visit: Visit) -> Response:
    """GET /fleet/machine?id=RESOURCE_ID.

    Errors: ApiError 403, 404, 409.
    """
    return _shown(visit, find(visit, visit.http.query.get("id", "")))


def save_tags(visit: Visit) -> Response:
    """POST /fleet/machine/tags: replace the tags, unless somebody else has changed them since the form was made.

    Errors: ApiError 400, 403, 404, 409.
    """
    fields = visit.form()
    machine = find(visit, fields.get("id", ""))
    if fields.get("digest") != digest(machine["tags"]):
        text = "Somebody else changed the tags meanwhile. These are the tags as they are now; change them again."
        return _shown(visit, machine, 409, text)
    wanted: dict[str, str] | None = None
    try:
        wanted = tags_of(fields)
        visit.change("PATCH", machine["id"], {"tags": wanted})
    except ApiError as error:
        if error.status not in (400, 409):
            raise
        return _shown(visit, machine, error.status, error.message, wanted)
    return render.sent_to(f"{machine_path(machine['id'])}&saved=tags")


def ask_delete(visit: Visit) -> Response:
    """GET /fleet/machine/delete?id=RESOURCE_ID: what would be deleted.

    Errors: ApiError 403, 404.
    """
    return _asked(visit, find(visit, visit.http.query.get("id", "")))


def _asked(visit: Visit, machine: Mapping[str, Any], status: int = 200, problem: str = "") -> Response:
    may = visit.may(Action.MACHINE_DELETE, machine["id"])
    return render.page(visit, "delete.html.j2", status, machine=machine, may_delete=may, problem=problem)


def delete(visit: Visit) -> Response:
    """POST /fleet/machine/delete: the name must have been typed.

    Errors: ApiError 403, 404.
    """
    fields = visit.form()
    machine = find(visit, fields.get("id", ""))
    if fields.get("name", "").strip().lower() != machine["name"].lower():
        return _asked(visit, machine, 400, "That is not the name of this machine; nothing was deleted.")
    try:
        visit.change("DELETE", machine["id"])
    except ApiError as error:
        if error.status != 409:
            raise
        return _asked(visit, machine, 409, error.message)
    return render.sent_to("/fleet")

# SPDX-License-Identifier: Apache-2.0
"""Reports of agents (docs/protocol.md section 8): checked, kept by kind, rewritten only when their content changed."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from typing import Any

from sqlalchemy.orm import Session

from control_plane.bodies import check, guid, one_of
from control_plane.channel import evidence, verdict
from control_plane.channel.callers import check_protocol
from control_plane.channel.live import Record
from control_plane.clock import now, parse_rfc3339
from control_plane.errors import bad_content
from control_plane.extensions import reported
from control_plane.hub import Hub
from control_plane.runcommands import reported as commands
from control_plane.storage import audit, twins
from control_plane.storage.models import Machine, Report
from control_plane.upgrades import reported as upgrades

EVIDENCE, EXTENSIONS, RUN_COMMANDS, AGENT = "evidence", "extensions", "runcommands", "agent"
_BESIDE = (EXTENSIONS, RUN_COMMANDS)
"""Kinds whose member `desired` stands beside the rest."""
KINDS = ("inventory", "configuration", "services", EXTENSIONS, "policy", RUN_COMMANDS, AGENT, "trust", EVIDENCE)
MAX_REPORTS = 32
_TEXTS = (
    "osType",
    "osName",
    "osVersion",
    "osSku",
    "osEdition",
    "computerName",
    "machineFqdn",
    "dnsFqdn",
    "adFqdn",
    "domainName",
    "vmUuid",
    "agentVersion",
    "agentReleased",
    "manufacturer",
    "model",
    "serialNumber",
    "smbiosAssetTag",
)
_OBJECTS = (
    "hardwareProfile",
    "networkProfile",
    "storageProfile",
    "firmwareProfile",
    "detectedProperties",
    "cloudMetadata",
)


def _bad(name: str, what: str) -> Exception:
    return bad_content(f"'{name}' of the report must be {what}.", name)


def _network(value: dict[str, Any]) -> dict[str, Any]:
    """Interfaces in the only shape that clients read: arrays of objects, addresses that parse, never null."""
    interfaces = value.get("networkInterfaces")
    if not isinstance(interfaces, list) or not all(isinstance(item, dict) for item in interfaces):
        raise _bad("networkProfile.networkInterfaces", "an array of objects")
    kept = []
    for interface in interfaces:
        found = interface.get("ipAddresses") or []
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise _bad("networkProfile.networkInterfaces[].ipAddresses", "an array of objects")
        kept.append({**interface, "ipAddresses": [item for item in map(_address, found) if item is not None]})
    return {**value, "networkInterfaces": kept}


def _address(item: dict[str, Any]) -> dict[str, Any] | None:
    try:
        parsed = ipaddress.ip_address(str(item.get("address", "")).partition("%")[0])
    except ValueError:
        return None
    return {**item, "address": str(parsed), "ipAddressVersion": f"IPv{parsed.version}"}


def inventory(data: dict[str, Any]) -> dict[str, Any]:
    """An inventory whose members have the types of ARM (identity-and-arm-api.md C.5).

    Errors: ApiError 400 naming the member.
    """
    kept = {name: value for name, value in data.items() if value is not None}
    for name in _TEXTS:
        if name in kept and (not isinstance(kept[name], str) or len(kept[name]) > 1024):
            raise _bad(name, "a text of at most 1024 characters")
    for name in _OBJECTS:
        if name in kept and not isinstance(kept[name], dict):
            raise _bad(name, "an object")
    if "networkProfile" in kept:
        kept["networkProfile"] = _network(kept["networkProfile"])
    detected = kept.get("detectedProperties", {})
    if not all(isinstance(value, str) for value in detected.values() if value is not None):
        raise _bad("detectedProperties", "an object of texts")
    return kept


def _services(data: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if value is not None}
    if not all(isinstance(value, dict) for value in kept.values()):
        raise _bad("services", "an object of objects")
    return kept


def _evidence(data: dict[str, Any]) -> dict[str, Any]:
    items = data.get("items")
    if not isinstance(items, list) or len(items) > evidence.MAX_ITEMS:
        raise bad_content(f"'items' of the report must be an array of at most {evidence.MAX_ITEMS}.", "items")
    kept = evidence.items_of(items)
    return {"digest": evidence.digest(kept), "items": kept}


def _record(session: Session, machine: Machine, vector: dict[str, Any]) -> None:
    """What a machine tells of its evidence becomes what is recorded of it, as long as no strong name differs: that is
    asked about (docs/protocol.md section 14.2), never reported away."""
    recorded = machine.evidence or {"digest": "", "items": []}
    differs = verdict.differing(recorded["items"], vector["items"])
    actor, target = audit.Actor("machine", machine.client_id), twins.resource_id(session, machine)
    if differs:
        detail = {"differs": list(differs)}
        audit.record(session, actor, "machines/evidence", target, outcome="Refused", code="Conflict", detail=detail)
    elif recorded["digest"] != vector["digest"]:
        weak = verdict.differing(recorded["items"], vector["items"], verdict.WEAK)
        machine.evidence = evidence.reported(recorded, vector)
        audit.record(session, actor, "machines/evidence", target, detail={"differs": list(weak)})


def cleaned(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """What is stored for a kind.

    Errors: ApiError 400.
    """
    if kind == EXTENSIONS:
        return reported.cleaned(data)
    if kind == RUN_COMMANDS:
        return commands.cleaned(data)
    check(data)
    if kind == AGENT:
        return upgrades.cleaned(data)
    if kind == "inventory":
        return inventory(data)
    if kind == EVIDENCE:
        return _evidence(data)
    return _services(data) if kind == "services" else data


def digest(data: dict[str, Any]) -> str:
    """SHA-256 of the content in one fixed form."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read(body: dict[str, Any]) -> list[tuple[str, str, int, dict[str, Any]]]:
    reports = body.get("reports")
    if not isinstance(reports, list) or len(reports) > MAX_REPORTS:
        raise bad_content(f"'reports' must be an array of at most {MAX_REPORTS} reports.", "reports")
    found = []
    for item in reports:
        if not isinstance(item, dict) or not isinstance(item.get("data"), dict):
            raise bad_content("A report must be an object with an object 'data'.", "reports")
        created = parse_rfc3339(item["createdAt"]) if isinstance(item.get("createdAt"), str) else None
        if created is None:
            raise bad_content("'createdAt' must be an RFC 3339 time.", "createdAt")
        check({name: value for name, value in item.items() if name != "data"})
        kind = one_of(item, "kind", KINDS)
        found.append((guid(item, "id"), kind, min(created, now()), cleaned(kind, item["data"])))
    return found


def accept(hub: Hub, record: Record, body: dict[str, Any]) -> dict[str, Any]:
    """POST /channel/v1/report; `body` is unchecked. The one that comes last of a kind stays. An agent sends one request
    at a time, its oldest reports first; its clock may be set back between them, so its times order nothing.

    Errors: ApiError 400.
    """
    check({name: value for name, value in body.items() if name != "reports"})
    check_protocol(body)
    guid(body, "requestId")
    found = _read(body)
    newest = _newest(found)
    vector = newest.pop(EVIDENCE, None)
    if vector is not None:
        with hub.database.write() as session:
            machine = session.get(Machine, record.machine_id)
            if machine is not None:
                _record(session, machine, vector[1])
    with hub.database.read() as session:
        changed = {kind: item for kind, item in newest.items() if _is_news(session, record.machine_id, kind, item[1])}
    if changed:
        _keep(hub, record.machine_id, changed)
    return {"protocol": 1, "accepted": [item[0] for item in found]}


def _newest(found: list[tuple[str, str, int, dict[str, Any]]]) -> dict[str, tuple[int, dict[str, Any]]]:
    """Of each kind the last report."""
    newest: dict[str, tuple[int, dict[str, Any]]] = {}
    for _, kind, created, data in found:
        before = newest[kind][1] if kind in newest else None
        newest[kind] = (created, reported.merged(before, data) if kind in _BESIDE else data)
    return newest


def _keep(hub: Hub, machine_id: int, changed: dict[str, tuple[int, dict[str, Any]]]) -> None:
    """Write what is news, with what follows from it."""
    generations: dict[str, int] | None = None
    with hub.database.write() as session:
        machine = session.get(Machine, machine_id)
        if machine is None:
            return
        for kind, (created, data) in changed.items():
            if not _is_news(session, machine_id, kind, data):
                continue
            kept = _beside(session, machine_id, kind, data)
            row = Report(
                machine_id=machine_id, kind=kind, digest=digest(kept), created=created, received=now(), data=kept
            )
            session.merge(row)
            if kind == EXTENSIONS and reported.take(session, machine, data, now()):
                generations = dict(machine.generations)
            if kind == RUN_COMMANDS:
                commands.take(session, machine, data, now())
            if kind == AGENT:
                upgrades.take(session, machine, data)
    if generations is not None:
        hub.live.changed(machine_id, generations)


def _beside(session: Session, machine_id: int, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a report, beside what stays of the one before."""
    if kind not in _BESIDE:
        return data
    old = session.get(Report, (machine_id, kind))
    return reported.merged(old.data if old else None, data)


def _is_news(session: Session, machine_id: int, kind: str, data: dict[str, Any]) -> bool:
    old = session.get(Report, (machine_id, kind))
    return old is None or old.digest != digest(_beside(session, machine_id, kind, data))

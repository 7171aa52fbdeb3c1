# SPDX-License-Identifier: Apache-2.0
"""A machine as ARM shows it (identity-and-arm-api.md C.5). Pure: rows in, JSON out.

What the agent reported wins over what callers wrote; nothing is null (Ansible's inventory stumbles over it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.arm.paths import MACHINE_TYPE, MachineId
from control_plane.arm.status import Status, status
from control_plane.clock import rfc3339
from control_plane.extensions.view import extension_json, instance_view
from control_plane.storage.extensions import Kept
from control_plane.storage.models import Machine
from control_plane.storage.pulse import Pulse
from control_plane.upgrades.view import attempt
from control_plane.upgrades.wish import MEMBER as AGENT_UPGRADE

# Members of the inventory report that go to `properties` under their own names.
_DIRECT = (
    "osType",
    "osName",
    "osVersion",
    "osSku",
    "osEdition",
    "machineFqdn",
    "dnsFqdn",
    "adFqdn",
    "domainName",
    "vmUuid",
    "hardwareProfile",
    "networkProfile",
    "storageProfile",
    "firmwareProfile",
    "cloudMetadata",
)
_DETECTED = ("manufacturer", "model", "serialNumber", "smbiosAssetTag")


@dataclass(frozen=True)
class MachineRow:
    """Everything the hub knows of one machine, read in one go."""

    machine: Machine
    group_name: str
    pulse: Pulse | None
    reports: Mapping[str, dict[str, Any]]

    @property
    def id(self) -> MachineId:
        """The resource id, with the names in the case of their creation."""
        return MachineId(self.machine.subscription_id, self.group_name, self.machine.name)

    def status(self, at: int) -> Status:
        """Computed, never stored."""
        seen = self.pulse.seen if self.pulse else None
        since = self.pulse.connected_since if self.pulse else None
        return status(seen, since, self.machine.created, at)


def without_null(value: Any) -> Any:
    """The same value with every null member and element left out, at any depth."""
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_null(item) for item in value if item is not None]
    return value


def _network(inventory: Mapping[str, Any]) -> dict[str, Any]:
    reported = inventory.get("networkProfile")
    return without_null(reported) if reported else {"networkInterfaces": []}


def network_profile(row: MachineRow) -> dict[str, Any]:
    """`networkProfile`, with its array even when nothing was reported yet."""
    return _network(row.reports.get("inventory", {}))


def addresses_in(inventory: Mapping[str, Any]) -> list[str]:
    """Addresses in an inventory report, IPv4 before IPv6, in its order; neither loopback nor link-local."""
    found: list[tuple[bool, str]] = []
    for interface in _network(inventory)["networkInterfaces"]:
        for item in interface.get("ipAddresses", []):
            address = item.get("address", "")
            if address and not address.startswith(("127.", "169.254.", "fe80:")) and address != "::1":
                found.append((":" in address, address))
    return [address for _, address in sorted(found, key=lambda pair: pair[0])]


def addresses(row: MachineRow) -> list[str]:
    """Addresses that the agent reported."""
    return addresses_in(row.reports.get("inventory", {}))


def _detected(inventory: Mapping[str, Any]) -> dict[str, str]:
    detected = {name: str(inventory[name]) for name in _DETECTED if inventory.get(name)}
    return {**detected, **(inventory.get("detectedProperties") or {})}


def agent_upgrade(row: MachineRow) -> dict[str, Any]:
    """`agentUpgrade`: the wish and the last attempt; empty without both."""
    wish = row.machine.properties.get(AGENT_UPGRADE) or {}
    report, running = row.reports.get("agent"), row.machine.agent_version
    return {**wish, **(attempt(report, wish, running) if report else {})}


def properties(row: MachineRow, at: int) -> dict[str, Any]:
    """`properties` with every documented member that is known."""
    machine, inventory = row.machine, row.reports.get("inventory", {})
    state = row.status(at)
    shown: dict[str, Any] = dict(machine.properties)
    shown.update({name: inventory[name] for name in _DIRECT if inventory.get(name) not in (None, "")})
    computer = inventory.get("computerName") or machine.name
    shown["osProfile"] = {**machine.properties.get("osProfile", {}), "computerName": computer}
    if "configuration" in row.reports:
        shown["agentConfiguration"] = row.reports["configuration"]
    if "services" in row.reports:
        shown["serviceStatuses"] = row.reports["services"]
    if upgrade := agent_upgrade(row):
        shown[AGENT_UPGRADE] = upgrade
    detected = _detected(inventory)
    if detected:
        shown["detectedProperties"] = detected
        shown.setdefault("mssqlDiscovered", detected.get("mssqldiscovered", "false"))
    shown.update(
        {
            "vmId": machine.vm_id,
            "displayName": computer,
            "agentVersion": machine.agent_version or inventory.get("agentVersion") or "",
            "status": state.word,
            "lastStatusChange": rfc3339(state.since),
            "provisioningState": "Succeeded",
            "errorDetails": [],
            "networkProfile": network_profile(row),
        }
    )
    if machine.client_public_key:
        shown["clientPublicKey"] = machine.client_public_key
    shown["cloudMetadata"] = {"provider": "N/A", **shown.get("cloudMetadata", {})}
    return shown


def _identity(machine: Machine, tenant_id: str) -> dict[str, Any]:
    if "SystemAssigned" not in machine.identity_type:
        return {"type": machine.identity_type}
    return {"type": machine.identity_type, "principalId": machine.principal_id, "tenantId": tenant_id}


def machine_json(row: MachineRow, tenant_id: str, at: int, expanded: Sequence[Kept] | None = None) -> dict[str, Any]:
    """The whole resource. `expanded`: with these extensions as `resources`, and in the deprecated view of them."""
    machine = row.machine
    shown: dict[str, Any] = {
        "id": str(row.id),
        "name": machine.name,
        "type": MACHINE_TYPE,
        "location": machine.location,
        "tags": machine.tags,
        "identity": _identity(machine, tenant_id),
        "kind": machine.kind,
        "systemData": {
            "createdBy": machine.created_by,
            "createdByType": machine.created_by_type,
            "createdAt": rfc3339(machine.created),
            "lastModifiedBy": machine.modified_by,
            "lastModifiedByType": machine.modified_by_type,
            "lastModifiedAt": rfc3339(machine.modified),
        },
        "properties": properties(row, at),
    }
    result: dict[str, Any] = without_null(shown)
    if expanded is not None:
        result["resources"] = [extension_json(kept) for kept in expanded]
        result["properties"]["extensions"] = [view for kept in expanded if (view := instance_view(kept))]
    return result

# SPDX-License-Identifier: Apache-2.0
"""Signed desired-state documents (docs/protocol.md section 7)."""

from __future__ import annotations

from typing import Any

import jwt
from sqlalchemy.orm import Session

from control_plane.arm.paths import MachineId
from control_plane.extensions import desired
from control_plane.keyring import Keyring
from control_plane.runcommands import desired as commands
from control_plane.storage.models import Machine
from control_plane.upgrades import wish as upgrades

KINDS = ("resource", "settings", "extensions", "policy", "runcommands", "agent", "trust")
VALID_SECONDS = 14 * 86400


def content(
    session: Session, kind: str, machine: Machine, resource: MachineId, tenant_id: str, keys: Keyring
) -> dict[str, Any]:
    """What the hub wants of a machine, for one kind."""
    if kind == desired.KIND:
        return desired.content(session, machine)
    if kind == commands.KIND:
        return commands.content(session, machine)
    wanted: dict[str, dict[str, Any]] = {
        "resource": {
            "id": str(resource),
            "name": resource.name,
            "resourceGroup": resource.group,
            "subscriptionId": resource.subscription,
            "tenantId": tenant_id,
            "location": machine.location,
            "tags": machine.tags,
        },
        "settings": {
            "gatewayId": None,
            "privateLinkScopeId": machine.properties.get("privateLinkScopeResourceId"),
        },
        "policy": {"assignments": []},
        "agent": upgrades.content(machine.properties),
        "trust": {"caPem": keys.ca_pem, "desiredStateKeys": keys.desired_jwks},
    }
    return wanted[kind]


def payload(kind: str, vm_id: str, resource_id: str, generation: int, inner: dict[str, Any], at: int) -> dict[str, Any]:
    """The signed object; times in Unix seconds."""
    return {
        "v": 1,
        "machine": vm_id,
        "resourceId": resource_id,
        "kind": kind,
        "generation": generation,
        "iat": at,
        "exp": at + VALID_SECONDS,
        "content": inner,
    }


def sign(document: dict[str, Any], keys: Keyring) -> str:
    """Compact JWS, EdDSA, `typ` hawser-desired."""
    headers = {"kid": keys.desired_jwk["kid"], "typ": "hawser-desired"}
    return jwt.encode(document, keys.desired_key, algorithm="EdDSA", headers=headers)

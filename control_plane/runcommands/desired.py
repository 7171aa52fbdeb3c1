# SPDX-License-Identifier: Apache-2.0
"""Content of the desired document of kind `runcommands` (docs/protocol.md section 15.5)."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from control_plane.extensions import envelope
from control_plane.extensions.desired import incarnation
from control_plane.runcommands.wish import BLOBS, without_query
from control_plane.storage import run_commands
from control_plane.storage.models import Machine
from control_plane.storage.run_commands import KeptCommand

KIND = "runcommands"
MAX_COMMANDS = 64


def _item(kept: KeptCommand) -> dict[str, Any]:
    row, properties = kept.row, kept.resource.properties
    return {
        "name": kept.resource.name,
        "incarnation": incarnation(kept.resource),
        "sequence": row.sequence,
        **properties["source"],
        "parameters": properties.get("parameters", []),
        "protected": row.protected,
        "protectedSettingsCertThumbprint": envelope.thumbprint(row.certificate) if row.certificate else None,
        "runAsUser": properties.get("runAsUser"),
        "timeoutSeconds": properties.get("timeoutInSeconds"),
        "asyncExecution": properties.get("asyncExecution", False),
        **{name: without_query(properties[name]) if name in properties else None for name in BLOBS},
    }


def content(session: Session, machine: Machine) -> dict[str, Any]:
    """Every command that is to be run, or was and is kept."""
    wanted = [kept for kept in run_commands.of_machine(session, machine.id) if kept.row.removed is None]
    certificates = {kept.row.certificate for kept in wanted if kept.row.certificate}
    return {
        "runCommands": [_item(kept) for kept in wanted],
        "certificates": {envelope.thumbprint(item): item for item in sorted(certificates)},
    }

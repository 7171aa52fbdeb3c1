# SPDX-License-Identifier: Apache-2.0
"""What the published targets say about packages, for the parts of the hub that resolve versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from control_plane.storage import agent_packages, catalogue

Row = dict[str, Any]


def catalogue_rows(targets_metadata: Mapping[str, Any]) -> list[Row]:
    """`{publisher, type, version, os, arch, path, length, sha256, supportsMultipleExtensions}` of each extension
    package in the text of a targets.json, by path. Pure. What is no extension is left out."""
    rows = []
    for path, target in sorted(targets_metadata["signed"]["targets"].items()):
        custom = target.get("custom")
        if not isinstance(custom, dict) or custom.get("kind") != "extension":
            continue
        rows.append(
            {
                "publisher": custom["publisher"],
                "type": custom["type"],
                "version": custom["version"],
                "os": custom["os"],
                "arch": custom["arch"],
                "path": path,
                "length": target["length"],
                "sha256": target["hashes"]["sha256"],
                "supportsMultipleExtensions": bool(custom.get("supportsMultipleExtensions")),
            }
        )
    return rows


def agent_rows(targets_metadata: Mapping[str, Any]) -> list[Row]:
    """`{version, os, format, path}` of each package of the agent itself, by path. Pure."""
    rows = []
    for path, target in sorted(targets_metadata["signed"]["targets"].items()):
        custom = target.get("custom")
        if not isinstance(custom, dict) or custom.get("kind") != "agent":
            continue
        row = {name: custom.get(name) for name in ("version", "os", "format")}
        if all(isinstance(value, str) for value in row.values()):
            rows.append({**row, "path": path})
    return rows


def replace(session: Session, targets_metadata: Mapping[str, Any]) -> None:
    """Make the catalogues what the targets name: in the transaction that notes a publication, and once more by a
    running hub that has not seen that version."""
    catalogue.replace(session, catalogue_rows(targets_metadata))
    agent_packages.replace(session, agent_rows(targets_metadata))

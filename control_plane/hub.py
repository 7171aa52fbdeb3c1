# SPDX-License-Identifier: Apache-2.0
"""The running hub: settings, keys, database and what is kept in memory, handed to every endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from control_plane import keyring, settings
from control_plane.authority.tokens import Tokens
from control_plane.channel.live import Live
from control_plane.storage.database import DATABASE_FILE, Database


@dataclass
class Hub:
    """`epoch`: raised by every unclean start."""

    data: Path
    settings: settings.Settings
    keys: keyring.Keyring
    database: Database
    tokens: Tokens
    live: Live
    epoch: int = 0


def open_database(data: Path) -> Database:
    """The database of an initialised data directory."""
    return Database(data / DATABASE_FILE)


def open_hub(data: Path) -> Hub:
    """Load everything an initialised hub needs.

    Errors: OperatorError.
    """
    config = settings.load(data)
    keys = keyring.load(data)
    database = open_database(data)
    return Hub(
        data=data,
        settings=config,
        keys=keys,
        database=database,
        tokens=Tokens(config.url, config.tenant_id, keys),
        live=Live(database),
    )

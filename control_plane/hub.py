# SPDX-License-Identifier: Apache-2.0
"""The running hub: settings, keys, database and what is kept in memory, handed to every endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control_plane import config, keyring, settings
from control_plane.authority.tokens import Tokens
from control_plane.channel.live import Live
from control_plane.channel.pace import Gate
from control_plane.channel.twins import Twins
from control_plane.fleet.bus import Bus
from control_plane.limits import Limits
from control_plane.metrics import Metrics
from control_plane.people.throttle import Throttle
from control_plane.refusals import Refusals
from control_plane.storage import address
from control_plane.storage.database import Database
from control_plane.token_keys import Folder

if TYPE_CHECKING:
    from control_plane.channel.peers import Peers  # imports the driver of PostgreSQL


@dataclass
class Hub:
    """`config`: the sections of DATA/config.yaml. `epoch`: raised by every unclean start. `peers`: other processes,
    over PostgreSQL."""

    data: Path
    settings: settings.Settings
    config: Mapping[str, Any]
    keys: keyring.Keyring
    database: Database
    tokens: Tokens
    live: Live
    bus: Bus = field(default_factory=Bus)
    sign_ins: Throttle = field(default_factory=Throttle)
    metrics: Metrics = field(default_factory=Metrics)
    peers: Peers | None = None
    epoch: int = 0

    def __post_init__(self) -> None:
        self.limits = Limits(lambda: self.config.get("limits", {}))
        self.gate = Gate()
        self.refusals = Refusals(self.database, self.metrics)
        self.twins = Twins(self.database, self.live)

    def set_epoch(self, epoch: int) -> None:
        """Another process, or this one, raised it. From any thread."""
        self.epoch = max(self.epoch, epoch)

    def find_dead(self) -> None:
        """Look whether another process of this hub has died, which raises the epoch. From any thread."""
        if self.peers is not None:
            self.peers.find_dead()


def open_database(data: Path) -> Database:
    """The database that DATA/config.yaml names, else DATA/hub.db.

    Errors: OperatorError.
    """
    return Database(address.of(data, config.load(data)))


def open_hub(data: Path) -> Hub:
    """Load everything an initialised hub needs.

    Errors: OperatorError.
    """
    decided = settings.load(data)
    configured = config.load(data)
    keys = keyring.load(data)
    database = Database(address.of(data, configured))
    return Hub(
        data=data,
        settings=decided,
        config=configured,
        keys=keys,
        database=database,
        tokens=Tokens(decided.url, decided.tenant_id, keys.token_keys, Folder(keyring.folder(data))),
        live=Live(database),
    )

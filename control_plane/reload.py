# SPDX-License-Identifier: Apache-2.0
"""What a running hub takes up without a restart: its certificate, and sections of DATA/config.yaml.

Looked at every EVERY_SECONDS and on SIGHUP. Signing keys have watches of their own (authority/tokens.py,
channel/anchors.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from control_plane import config, logs
from control_plane.errors import OperatorError
from control_plane.hub import Hub
from control_plane.tls import Tls

EVERY_SECONDS = 15.0
LIVE_SECTIONS = frozenset({"limits", "metrics", "logging", "oidc"})
"""Sections that are read where they act; a change of another one waits for the next start."""
log = logging.getLogger("hawser.hub")


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Names of the sections that are not the same. Pure."""
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


class Reload:
    """`ask` is for the signal handler."""

    def __init__(self, hub: Hub, tls: Tls) -> None:
        self._hub, self._tls = hub, tls
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Look now. On the loop."""
        self._asked.set()

    async def run(self) -> None:
        """Ends when cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), EVERY_SECONDS)
            asked = self._asked.is_set()
            self._asked.clear()
            await asyncio.to_thread(self._look, asked)

    def _look(self, asked: bool) -> None:
        try:
            if self._tls.refresh():
                log.info("Another TLS certificate is in force.")
        except OperatorError as error:
            log.error("%s The former one stays in force. %s", error.message, error.remedy)
        except Exception:
            log.exception("The TLS certificate could not be looked at.")
        if asked:
            self._hub.tokens.refresh()
            self._read_config()

    def _read_config(self) -> None:
        try:
            found = config.load(self._hub.data)
        except OperatorError as error:
            log.error("%s What was in force stays so. %s", error.message, error.remedy)
            return
        changed = differing(self._hub.config, found)
        live = {name: found[name] for name in LIVE_SECTIONS if name in found}
        kept = {name: value for name, value in self._hub.config.items() if name not in LIVE_SECTIONS}
        self._hub.config = {**kept, **live}
        for name in sorted(changed):
            if name in LIVE_SECTIONS:
                logs.set_up(self._hub.config.get("logging", {}))
                log.info("Section '%s' of config.yaml is in force.", name)
            else:
                log.warning("Section '%s' of config.yaml has changed; it is in force after a restart.", name)

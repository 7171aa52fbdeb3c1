# SPDX-License-Identifier: Apache-2.0
"""Challenge files: proof that a caller may read what root and the group himds may (identity-and-arm-api.md A.3)."""

from __future__ import annotations

import hmac
import os
import time

from agent_runtime.state import atomic

SECONDS = 300.0
OUTSTANDING = 1000
FILE_MODE = 0o440


class Challenges:
    """Single-use secrets in files of `folder`. A secret names its file, so that looking one up reads no file."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: dict[str, tuple[bytes, float]] = {}
        for name in os.listdir(folder):
            if name.endswith(".key"):
                atomic.unlink(os.path.join(folder, name))

    def new(self) -> str:
        """Path of a new challenge file. When too many are open the oldest one goes. Errors: OSError."""
        if len(self._open) >= OUTSTANDING:
            self._forget(next(iter(self._open)))
        name = os.urandom(16).hex()
        secret = os.urandom(32).hex().encode("ascii")
        path = f"{self._folder}/{name}.key"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            os.write(descriptor, name.encode("ascii") + secret)
        finally:
            os.close(descriptor)
        self._open[name] = (secret, time.monotonic() + SECONDS)
        return path

    def redeem(self, presented: str) -> bool:
        """Whether a presented secret is that of an open challenge, which is open no more then."""
        raw = presented.encode("utf-8", "replace")
        name = raw[:32].decode("ascii", "replace")
        found: tuple[bytes, float] | None = self._open.get(name)
        if found is None:
            return False
        good = hmac.compare_digest(raw[32:], found[0]) and time.monotonic() < found[1]
        # A wrong guess uses the challenge up as well: there is no second try at one secret.
        self._forget(name)
        return good

    def sweep(self) -> float | None:
        """Remove what has expired; seconds until the next one does, None when none is open."""
        now = time.monotonic()
        for name, (_, end) in list(self._open.items()):
            if end > now:
                return max(5.0, end - now)
            self._forget(name)
        return None

    def _forget(self, name: str) -> None:
        del self._open[name]
        atomic.unlink(f"{self._folder}/{name}.key")

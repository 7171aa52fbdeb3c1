# SPDX-License-Identifier: Apache-2.0
"""Waiting for what another process does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(
    probe: Callable[[], Any],
    what: str | Callable[[], object] = "it did not come about",
    *,
    seconds: float = 30,
    pause: float = 0.05,
) -> Any:
    """The first true value of `probe()`. `what` is told when there is none within `seconds`."""
    ends = time.monotonic() + seconds
    while not (found := probe()):
        if time.monotonic() > ends:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(pause)
    return found

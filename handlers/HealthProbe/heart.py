# SPDX-License-Identifier: Apache-2.0
"""The handler's heartbeat: beside the probes, for a probe and the pause after it may take an hour each."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Callable

PAUSE = 60.0  # seconds; the agent takes ten minutes without a heartbeat for unresponsive


class Heart:
    """Calls `write` with the verdict while it is `beating`: at once, when it changes, and once in `pause` seconds.
    It beats as long as the probes say again and again within `seconds` that they go on: one that hangs shall be seen.

    Errors of `write` (OSError) in between go to `complain`.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        complain: Callable[[OSError], None],
        verdict: str,
        seconds: float,
        pause: float = PAUSE,
    ) -> None:
        self._write = write
        self._complain = complain
        self._verdict = verdict
        self._seconds = seconds
        self._pause = pause
        self._until = time.monotonic() + seconds
        self._beaten = float("-inf")
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heart", daemon=True)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Beats until the block ends."""
        self._thread.start()
        try:
            yield
        finally:
            # Whoever has stopped the process removes the file: nothing is written afterwards.
            self._end.set()
            self._thread.join()

    def lives(self, verdict: str) -> None:
        """The probes go on. Errors: OSError of a beat that is due."""
        with self._lock:
            is_new, self._verdict = verdict != self._verdict, verdict
            self._until = time.monotonic() + self._seconds
            if is_new or time.monotonic() - self._beaten >= self._pause:
                self._beat()

    def ails(self) -> None:
        """The probes cannot say what they find: no heartbeat until they can."""
        with self._lock:
            self._until = 0.0

    def _beat(self) -> None:
        self._write(self._verdict)
        self._beaten = time.monotonic()

    def _beat_on(self) -> None:
        while True:
            with self._lock:
                if time.monotonic() < self._until:
                    try:
                        self._beat()
                    except OSError as error:
                        self._complain(error)
            if self._end.wait(self._pause):
                return

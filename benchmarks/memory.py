# SPDX-License-Identifier: Apache-2.0
"""The most memory that a process and the workers that it starts have had."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

WORKER = "agent_runtime/workers/__main__.py"
PAUSE_SECONDS = 0.005


class Peaks:
    """Bytes of resident memory at most (VmHWM of proc(5)): of the process, and of each verb of its workers."""

    def __init__(self, pid: int) -> None:
        self.own = 0
        self.workers: dict[str, int] = {}
        self._process = psutil.Process(pid)

    @property
    def sum(self) -> int:
        """The process and the largest of its workers, which run one at a time."""
        return self.own + max(self.workers.values(), default=0)

    def look(self) -> None:
        """See what is there now."""
        self.own = max(self.own, _peak(self._process.pid))
        for child in self._process.children():
            with suppress(psutil.Error, OSError):  # it has ended meanwhile
                argv = child.cmdline()
                if len(argv) > 1 and argv[-2].endswith(WORKER):
                    self.workers[argv[-1]] = max(self.workers.get(argv[-1], 0), _peak(child.pid))


def _peak(pid: int) -> int:
    """Nought for a process that is ending: it has no memory any more."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


@contextmanager
def watched(pid: int) -> Iterator[Peaks]:
    """Peaks from now on until the end of the block, the process's own since its memory was last counted from nought."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    found, ended = Peaks(pid), threading.Event()

    def watch() -> None:
        while not ended.is_set():
            found.look()
            time.sleep(PAUSE_SECONDS)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        found.look()

# SPDX-License-Identifier: Apache-2.0
"""gcad on a disk that is full as long as there is a file `DIR/full`, and with a clock that is a month ahead as long as
there is a file `DIR/ahead`: `full_disk.py --root DIR`.

It tries again after a tenth of a second. Everything else is the service itself.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from agent_runtime.platform import paths as places
from agent_runtime.policy.__main__ import duty
from agent_runtime.service import desired, judging, root, telling
from agent_runtime.state import atomic


def refusing(original: Callable[..., Any], mark: str) -> Callable[..., Any]:
    def write(path: str, *args: Any, **kwargs: Any) -> Any:
        if os.path.exists(mark):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, *args, **kwargs)

    return write


def main() -> int:
    folder, _ = root.take(sys.argv[1:])
    genuine = time.time
    time.time = lambda: genuine() + 30 * 86400 * os.path.exists(f"{folder}/ahead")
    atomic._write = refusing(atomic._write, f"{folder}/full")
    judging.ATTEMPT_PAUSE, judging.REFUSAL_PAUSE = 0.1, 0.1
    telling.AGAIN_FIRST, telling.AGAIN_MOST = 0.2, 0.4
    paths = places.here(folder)
    return desired.serve(duty(paths), paths)


if __name__ == "__main__":
    sys.exit(main())

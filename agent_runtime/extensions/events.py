# SPDX-License-Identifier: Apache-2.0
"""Events that handlers write about themselves (extension-handler.md section 18).

The reference host sends them to the handlers' makers. This one sends them to nobody, but handlers rely on the folder,
and some write until somebody removes what they wrote: the newest are kept for whoever looks, the rest goes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import NamedTuple

FOLDER = "events"
# What we say of ourselves in AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES.
FEATURE = {"Key": "ExtensionTelemetryPipeline", "Value": "1.0"}
MOST, MOST_BYTES = 360, 4 * 1024 * 1024
# Files looked at in one go: a handler that writes without end holds nothing else up.
AT_ONCE = 10_000


class File(NamedTuple):
    """`size` in bytes, `written` in nanoseconds since 1970."""

    name: str
    size: int
    written: int


def surplus(files: Iterable[File]) -> list[str]:
    """Names to remove, so that of the newest MOST files and MOST_BYTES are left. Pure."""
    left, names = MOST_BYTES, []
    for number, file in enumerate(sorted(files, key=lambda file: (file.written, file.name), reverse=True)):
        left -= file.size
        if number >= MOST or left < 0:
            names.append(file.name)
    return names


def trim(folder: str) -> None:
    """Removes what is too much from a folder of events, if it is there. Links are not followed, folders stay. What
    cannot be removed waits for the next time."""
    if os.path.islink(folder):
        return
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    known = entry.stat(follow_symlinks=False)
                    found.append(File(entry.name, known.st_size, known.st_mtime_ns))
            if len(found) >= AT_ONCE:
                break
    for name in surplus(found):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, name))

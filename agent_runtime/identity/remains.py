# SPDX-License-Identifier: Apache-2.0
"""What of the agent's own files an image must not carry (clone-specialization.md section 3): found, and cleared.

Configuration stays: cloud profiles, trust anchors, `localconfig.json`, and packages of extensions that were verified.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from agent_runtime.identity.store import erase
from agent_runtime.platform.paths import Paths

# extd's key and certificates where handlers open their protected settings with them.
_KEYS = re.compile(r"[0-9A-F]{40}\.(crt|prv)", re.ASCII)


class Remain(NamedTuple):
    """A file. `is_identity`: a copy of it could be taken for this machine, or acts for it; logs are not."""

    path: str
    is_identity: bool


def found(paths: Paths, *, with_logs: bool = True, with_token: bool = True) -> list[Remain]:
    """Files that `clear` would remove, sorted. A sealed `identity.json` and the birth record are none. Errors:
    OSError."""
    wanted = [
        *_below(paths.own, but=(paths.identity,)),
        *_below(paths.certs),
        *_below(paths.tokens),
        *_below(paths.policy),
        *_below(paths.extensions),
        *(path for path in _below(paths.handlers) if _KEYS.fullmatch(os.path.relpath(path, paths.handlers))),
        *(path for path in (paths.binding, paths.joining, paths.image_token) if os.path.lexists(path)),
    ]
    remains = [Remain(path, True) for path in wanted if with_token or path != paths.image_token]
    if with_logs:
        remains += [Remain(path, False) for folder in log_folders(paths) for path in _below(folder)]
    return sorted(remains)


def clear(remains: list[Remain]) -> None:
    """Overwrite and remove; what is gone already is no fault. Errors: OSError."""
    for remain in remains:
        erase(remain.path)


def log_folders(paths: Paths) -> tuple[str, ...]:
    return (
        paths.log,
        os.path.dirname(paths.gc_agent_log),
        os.path.dirname(paths.gc_ext_log),
        paths.extension_logs,
    )


def _below(folder: str, but: tuple[str, ...] = ()) -> Iterator[str]:
    """Everything but folders below a folder, links not followed. Folders stay: the package made most of them."""
    if os.path.islink(folder):
        return
    for at, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(at, name))]
        for name in (*names, *links):
            path = os.path.join(at, name)
            if path not in but:
                yield path

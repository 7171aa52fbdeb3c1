# SPDX-License-Identifier: Apache-2.0
"""extd's own key, of one machine each (docs/protocol.md section 12).

A disk is copied with the key that is on it. So a key is noted for the vmId that it is made for, before it is made, and
where root has bound this host to another one, the key and its copies go and another is made.
"""

from __future__ import annotations

import contextlib
import os

from agent_runtime.extensions.layout import Layout
from agent_runtime.extensions.store import COMMANDS, HANDLERS, LIMIT, Store
from agent_runtime.platform.paths import Paths
from agent_runtime.service import worker
from agent_runtime.service.loop import Loop
from agent_runtime.state import atomic
from agent_runtime.state.atomic import erase

KEY, REQUEST, NOTE = "settings.key", "settings.csr", "machine.json"
NAME = "extd"
WORKER_SECONDS = 60.0


def key_path(paths: Paths) -> str:
    """Where the key lies."""
    return _path(paths, KEY)


def _path(paths: Paths, name: str) -> str:
    return os.path.join(paths.extensions, "keys", name)


async def request(loop: Loop, paths: Paths, machine: str) -> str:
    """The request (PEM) for a certificate of the machine `machine`, its key made at the first call. Errors: OSError,
    AgentError of the worker; then it may be asked for again."""
    key, kept, note = (_path(paths, name) for name in (KEY, REQUEST, NOTE))
    os.makedirs(os.path.dirname(key), mode=0o700, exist_ok=True)
    noted = _noted(note)
    if noted is None and _served(paths) == machine:
        # The former version wrote no note; what it carried out last was for this very machine.
        atomic.write_json(note, {"v": 1, "machine": machine})
    elif noted != machine:
        forget(paths)
        atomic.write_json(note, {"v": 1, "machine": machine})
    known = _known_request(key, kept)
    if known is not None:
        return known
    answer = await worker.run(loop, "make-key", {"path": key, "name": NAME}, WORKER_SECONDS)
    csr = str(answer["csr"])
    atomic.write_bytes(kept, csr.encode("ascii"))
    return csr


def forget(paths: Paths) -> None:
    """Removes the key, and what was put of it where handlers look; of files there only those that extd put. Errors:
    OSError; may be repeated."""
    store = Store(paths.extensions)
    with contextlib.suppress(ValueError):  # damaged: nobody knows which files are extd's
        store.read()
    for thumbprint in store.thumbprints():
        for copy in Layout(paths).certificate(thumbprint):
            erase(copy)
    for name in (REQUEST, KEY):
        erase(_path(paths, name))


def _noted(note: str) -> str | None:
    """The vmId that the key was made for; None for one that nobody noted, which may be any machine's. Errors: OSError
    where a note cannot be read: no key is thrown away for that."""
    try:
        found = atomic.read_json(note, 4096).get("machine")
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _served(paths: Paths) -> str:
    """The vmId whose wishes were carried out last; empty where nobody knows. Errors: OSError."""
    for name in (HANDLERS, COMMANDS):
        with contextlib.suppress(FileNotFoundError, ValueError):
            found = atomic.read_json(os.path.join(paths.extensions, name), LIMIT).get("machine")
            if isinstance(found, str) and found:
                return found
    return ""


def _known_request(key: str, request: str) -> str | None:
    """The request made earlier for the key that is there; None when one of them is missing."""
    try:
        os.stat(key)
        return atomic.read_bytes(request, 65536).decode("ascii")
    except (OSError, ValueError):
        return None

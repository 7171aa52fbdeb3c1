# SPDX-License-Identifier: Apache-2.0
"""What of the agent's own files an image must not carry (clone-specialization.md section 3): found, and cleared.

Configuration stays: cloud profiles, trust anchors, `localconfig.json`, and packages of extensions that were verified.
Handlers that are installed stay too, without what they were given and what they remember.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from agent_runtime import errors
from agent_runtime.extensions.store import Store
from agent_runtime.platform import image_checks
from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic
from agent_runtime.state.atomic import erase
from agent_runtime.upgrade.journal import Files

# Keys and certificates where handlers open their protected settings with them.
_KEYS = re.compile(r"([0-9A-F]{40})\.(?:crt|prv)", re.ASCII)


class Remain(NamedTuple):
    """A file. `is_identity`: a copy of it could be taken for this machine, or acts for it; logs are not."""

    path: str
    is_identity: bool


def found(paths: Paths, *, with_logs: bool = True, with_token: bool = True) -> list[Remain]:
    """Files that `clear` would remove, and links in the place of a folder, which it must not (`refuse_links`). What
    tells whose the others are comes last, for a seal that is cut off: certificates, then extd's folder. A sealed
    `identity.json` and the birth record are none. Errors: OSError."""
    wanted = [
        *_links(paths),
        *_below(paths.own, but=(paths.identity,)),
        *(path for folder in _whole(paths) for path in _below(folder)),
        *(path for folder in _shared(paths) for path in _temporaries(folder)),
        *_given_to_handlers(paths),
        *(path for path in (paths.binding, paths.joining, paths.image_token) if os.path.lexists(path)),
        *(path for path in (Files(paths).journal, Files(paths).taken) if os.path.lexists(path)),
    ]
    remains = [Remain(path, True) for path in wanted if with_token or path != paths.image_token]
    if with_logs:
        remains += [Remain(path, False) for folder in log_folders(paths) for path in _below(folder)]
    tells = paths.extensions + os.sep
    return sorted(remains, key=lambda one: (one.path.startswith(tells), one.path.endswith(".crt"), one))


def installed(paths: Paths) -> list[tuple[str, str, str]]:
    """Type, version and folder of handlers that are installed, as far as extd knows. Errors: OSError."""
    found = []
    for record in _store(paths).records.values():
        if record["version"] is not None:
            name = f"{record['publisher']}.{record['type']}-{record['version']}"
            found.append((str(record["type"]), str(record["version"]), os.path.join(paths.handlers, name)))
    return sorted(found)


def refuse_links(paths: Paths) -> None:
    """Errors: AZCM0027 when one of the agent's own folders is a link. What is behind it may be anybody's, so it is not
    erased; and without the folder the agent could not start, so the link is not removed."""
    for path in _links(paths):
        raise errors.ConfigurationConflict(
            f"{path} is a link: what it leads to would stay in the image, and keys there would be used",
            "Put a folder of its own in its place, and remove what the link leads to",
        )


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


def _whole(paths: Paths) -> tuple[str, ...]:
    """Folders of which nothing stays but, in himds's own, the state."""
    return (paths.certs, paths.tokens, paths.policy, paths.extensions)


def _shared(paths: Paths) -> tuple[str, ...]:
    """Folders that keep something: of what a killed writer left there, an enrolment token for one, nothing stays."""
    return (paths.state, paths.clouds, paths.trust, os.path.dirname(paths.socket), paths.guest_config)


def _store(paths: Paths) -> Store:
    """What extd knows; nothing where that is damaged."""
    store = Store(paths.extensions)
    with contextlib.suppress(ValueError):
        store.read()
    return store


def _given_to_handlers(paths: Paths) -> Iterator[str]:
    """Copies of extd's key; settings of the handlers that extd knows, which may be secrets, their results, and the
    numbers that they ran. The Azure Linux agent has the folder too, and what is its own stays."""
    store = _store(paths)
    ours, known = store.thumbprints(), set()
    for record in store.records.values():
        versions = (*record["folders"], record["version"])
        known |= {f"{record['publisher']}.{record['type']}-{version}" for version in versions}
    for name in os.listdir(paths.handlers) if os.path.isdir(paths.handlers) else ():
        path, key = os.path.join(paths.handlers, name), _KEYS.fullmatch(name)
        if key is not None:
            certificate = os.path.join(paths.handlers, f"{key.group(1)}.crt")
            if key.group(1) in ours or image_checks.is_extds(certificate):
                yield path
        elif name in known and not os.path.islink(path):
            yield from (os.path.join(path, inner) for inner in os.listdir(path) if f".{inner}".endswith(".mrseq"))
            yield from (inner for inner in _below(os.path.join(path, "config")) if inner.endswith(".settings"))
            yield from _below(os.path.join(path, "status"))


def _links(paths: Paths) -> list[str]:
    return [folder for folder in (paths.own, *_whole(paths)) if os.path.islink(folder)]


def _temporaries(folder: str) -> Iterator[str]:
    if os.path.isdir(folder) and not os.path.islink(folder):
        yield from (os.path.join(folder, name) for name in os.listdir(folder) if atomic.is_temporary(name))


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

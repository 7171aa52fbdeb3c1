# SPDX-License-Identifier: Apache-2.0
"""Fetches an extension package that the operator has signed (docs/protocol.md section 15.3). Runs in a worker.

python-tuf verifies the metadata; the package itself, up to 2 GB of it, is downloaded by workers/download.py, which is
told its length and hash by them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any, Optional

from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater

from agent_runtime import errors
from agent_runtime.hub.transport import trusting
from agent_runtime.workers import download
from agent_runtime.workers.download import Broken

ROUNDS = 3
# Said as `retryAfter` of what the operator may be mending at this moment: a hub that renews late, keys that change.
PASSING = 60.0
TARGET = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._+-]{0,300}/){1,8}[A-Za-z0-9][A-Za-z0-9._+-]{0,100}")
_CLOCKS = "See that the clocks of machine and hub are right, and that the hub runs; there: hawser-hub artefacts list"
_ANCHOR = "Give the machine the hub's newest cloud profile: hawser-hub cloud-profile, azcmagent cloud add"


def fetch_package(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"artefacts": [urls], "caPem", "tufRoot", "proxy", "metadata", "downloads", "target", "seconds"?}` → `{"path",
    "length", "sha256", "custom"}`.

    `tufRoot`: text of the root of trust, or null; `proxy`: `http://[user:password@]host:port` or null; `metadata`,
    `downloads`: folders, made if need be; `target`: a path such as `extensions/Hawser.Demo/1.0.0/linux.zip`. What is in
    `downloads` already and is the very package is used again; what is not there after `seconds` is left for another
    call. Errors: NetworkFailed (AZCM0026): nobody could be asked, or it takes longer (`retryAfter` 0: and comes);
    ExtensionNotAdded (AZCM0074): what they answered must not be believed (with `retryAfter`: not yet), or there is no
    such package;
    ExtensionFailed (AZCM0072): no room; CloudNotObtained: `caPem` holds no certificate.
    """
    until = time.monotonic() + float(arguments.get("seconds", "inf"))
    name, sources = arguments["target"], [url.rstrip("/") for url in arguments["artefacts"]]
    if not TARGET.fullmatch(name):
        raise errors.ExtensionNotAdded(f"'{name}' cannot be the path of a package")
    if not arguments["tufRoot"]:
        raise errors.ExtensionNotAdded("this machine has no root of trust for packages", _ANCHOR)
    if not sources:
        raise errors.ExtensionNotAdded("the cloud profile names no place that packages come from", _ANCHOR)
    line = download.Line(trusting(arguments["caPem"]), arguments["proxy"])
    folder = arguments["metadata"]
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        os.makedirs(arguments["downloads"], 0o700, exist_ok=True)
        found = _described(sources, line, folder, arguments["tufRoot"].encode("utf-8"), name)
        sha256 = found.hashes.get("sha256")
        if sha256 is None or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise errors.ExtensionNotAdded(f"the package {name} has no SHA-256 in the signed metadata")
        above, _, last = name.rpartition("/")
        wanted = download.Wanted(
            [f"{source}/targets/{above}/{sha256}.{last}" for source in sources],
            os.path.join(arguments["downloads"], name.partition("/")[2].replace("/", "-")),
            found.length,
            sha256,
            until,
        )
        download.package(line, wanted)
    except OSError as error:
        raise download.unkept(error, folder) from None
    return {"path": wanted.path, "length": wanted.length, "sha256": sha256, "custom": found.custom or {}}


class _Fetcher(FetcherInterface):
    """Metadata over a line of ours. python-tuf limits the length of what comes."""

    def __init__(self, line: download.Line) -> None:
        self._line = line

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with self._line.get(url) as answer:
                if answer.status != 200:
                    raise exceptions.DownloadHTTPError(f"status {answer.status}", answer.status)
                yield from answer.blocks()
        except Broken as problem:
            raise exceptions.DownloadError(str(problem)) from None


def _described(sources: list[str], line: download.Line, folder: str, root: bytes, name: str) -> TargetFile:
    """What the signed metadata says about a package, from the first source that can be believed. Errors: AgentError:
    of those that answered if one did, for that says more."""
    doubted: Optional[errors.AgentError] = None
    failed: Optional[errors.AgentError] = None
    for turn in range(ROUNDS):
        for source in sources:
            try:
                return _ask(source, line, folder, root, name)
            except errors.NetworkFailed as error:
                failed = error
            except errors.ExtensionNotAdded as error:
                doubted = error
        if doubted is not None:
            raise doubted
        if turn + 1 < ROUNDS:
            download.pause(turn + 1)
    raise failed or errors.NetworkFailed("no source of packages could be asked")


def _ask(source: str, line: download.Line, folder: str, root: bytes, name: str) -> TargetFile:
    try:
        updater = Updater(folder, f"{source}/metadata/", fetcher=_Fetcher(line), bootstrap=root)
        updater.refresh()
        found = updater.get_targetinfo(name)
    except exceptions.ExpiredMetadataError as error:
        message = f"what {source} says about packages is out of date ({error})"
        raise errors.ExtensionNotAdded(message, _CLOCKS, PASSING) from None
    except exceptions.BadVersionNumberError as error:
        raise errors.ExtensionNotAdded(
            f"{source} offers an older list of packages than this machine has seen ({error})",
            "See that the hub was not put back; after a restore of it publish at the hub once more",
        ) from None
    except exceptions.UnsignedMetadataError as error:
        raise errors.ExtensionNotAdded(
            f"what {source} says about packages is not signed by whom this machine trusts ({error})", _ANCHOR, PASSING
        ) from None
    except exceptions.DownloadLengthMismatchError as error:
        raise errors.ExtensionNotAdded(f"{source} sends more metadata than it may ({error})") from None
    except exceptions.DownloadHTTPError as error:
        raise errors.NetworkFailed(f"{source} has no metadata of packages: {error}") from None
    except exceptions.DownloadError as error:
        raise errors.NetworkFailed(f"{source} cannot be reached: {error}") from None
    except (exceptions.RepositoryError, DeserializationError, ValueError) as error:
        raise errors.ExtensionNotAdded(f"what {source} says about packages is damaged ({error})") from None
    if found is None:
        raise errors.ExtensionNotAdded(
            f"there is no package {name} in the repository", "Publish it at the hub: hawser-hub artefacts add"
        )
    return found

# SPDX-License-Identifier: Apache-2.0
"""Fetches a package that the operator has signed (docs/protocol.md section 15.3). Runs in a worker.

python-tuf verifies the metadata; the package itself, up to 2 GB of it, is downloaded by workers/download.py, which is
told its length and hash by them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional, TypeVar

from tuf.api import exceptions
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater

from agent_runtime import errors
from agent_runtime.extensions import versions
from agent_runtime.hub.transport import trusting
from agent_runtime.workers import download
from agent_runtime.workers.download import Broken

ROUNDS = 3
T = TypeVar("T")
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
    _check_sources(arguments)
    line = download.Line(trusting(arguments["caPem"]), arguments["proxy"])
    folder = arguments["metadata"]
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        os.makedirs(arguments["downloads"], 0o700, exist_ok=True)
        found = _believed(sources, lambda source: _offered(_refreshed(source, line, arguments), name))
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


def find_agent(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"artefacts", "caPem", "tufRoot", "proxy", "metadata"` as of fetch-package, `"format": "deb" | "rpm", "version":
    text or null}` → `{"version"}`: the newest of the agent's packages that are published, or the newest whose version
    begins with these numbers. Errors: as fetch-package; ExtensionNotAdded where there is none."""
    form, wanted = arguments["format"], arguments["version"]
    _check_sources(arguments)
    try:
        os.makedirs(arguments["metadata"], 0o700, exist_ok=True)
        line = download.Line(trusting(arguments["caPem"]), arguments["proxy"])
        sources = [url.rstrip("/") for url in arguments["artefacts"]]
        listed = _believed(sources, lambda source: _listed(_refreshed(source, line, arguments), arguments["metadata"]))
    except OSError as error:
        raise download.unkept(error, arguments["metadata"]) from None
    shape = re.compile(rf"agent/([0-9]{{1,9}}(?:\.[0-9]{{1,9}}){{3}})/linux\.{re.escape(form)}", re.ASCII)
    known = [found.group(1) for path in listed if (found := shape.fullmatch(path))]
    fitting = [version for version in known if wanted is None or f"{version}.".startswith(f"{wanted}.")]
    if not fitting:
        there = ", ".join(sorted(known, key=versions.key)) or "none"
        what = f"version {wanted} of the agent" if wanted else "the agent"
        raise errors.ExtensionNotAdded(
            f"there is no {form} package of {what} in the repository; the versions there are {there}",
            "Publish it at the hub: hawser-hub artefacts add, sign, publish",
        )
    return {"version": max(fitting, key=versions.key)}


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


def _check_sources(arguments: dict[str, Any]) -> None:
    if not arguments["tufRoot"]:
        raise errors.ExtensionNotAdded("this machine has no root of trust for packages", _ANCHOR)
    if not arguments["artefacts"]:
        raise errors.ExtensionNotAdded("the cloud profile names no place that packages come from", _ANCHOR)


def _believed(sources: list[str], ask: Callable[[str], T]) -> T:
    """What the first source says that can be believed. Errors: AgentError: of those that answered if one did, for that
    says more."""
    doubted: Optional[errors.AgentError] = None
    failed: Optional[errors.AgentError] = None
    for turn in range(ROUNDS):
        for source in sources:
            try:
                return ask(source)
            except errors.NetworkFailed as error:
                failed = error
            except errors.ExtensionNotAdded as error:
                doubted = error
        if doubted is not None:
            raise doubted
        if turn + 1 < ROUNDS:
            download.pause(turn + 1)
    raise failed or errors.NetworkFailed("no source of packages could be asked")


def _refreshed(source: str, line: download.Line, arguments: dict[str, Any]) -> Updater:
    """Verified metadata of now, also in the folder of metadata. Errors: AgentError."""
    try:
        root = arguments["tufRoot"].encode("utf-8")
        updater = Updater(arguments["metadata"], f"{source}/metadata/", fetcher=_Fetcher(line), bootstrap=root)
        updater.refresh()
    except exceptions.ExpiredMetadataError as error:
        message = f"what {source} says about packages is out of date ({error})"
        raise errors.ExtensionNotAdded(message, _CLOCKS, PASSING) from None
    except exceptions.BadVersionNumberError as error:
        raise errors.ExtensionNotAdded(
            f"{source} offers an older list of packages than this machine has seen ({error})",
            "See that the hub was not put back; after a restore, there: hawser-hub artefacts renew, sign, publish",
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
    return updater


def _offered(updater: Updater, name: str) -> TargetFile:
    found = updater.get_targetinfo(name)
    if found is None:
        raise errors.ExtensionNotAdded(
            f"there is no package {name} in the repository",
            "Publish it at the hub: hawser-hub artefacts add, sign, publish",
        )
    return found


def _listed(updater: Updater, folder: str) -> list[str]:
    """Paths of all targets. The updater has them in memory, and tells by name alone; its file is what it verified just
    now. Errors: OSError."""
    updater.get_targetinfo("agent")
    return list(Metadata[Targets].from_file(os.path.join(folder, "targets.json")).signed.targets)

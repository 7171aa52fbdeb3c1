# SPDX-License-Identifier: Apache-2.0
"""`azcmagent logs`: a zip archive of the agent's logs (agent-surface.md section 5.7), and of what handlers of
extensions say of themselves (extension-handler.md section 23)."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from agent_runtime import errors
from agent_runtime.platform import local

if TYPE_CHECKING:
    import zipfile

    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session
    from agent_runtime.platform.paths import Paths

# Without --full only the newest file of each log, and no more of it than this.
RECENT_BYTES = 5 * 1024 * 1024
JOURNAL_LINES = 20000
# Of all that is taken from handlers' folders.
HANDLERS_BYTES = 32 * 1024 * 1024
_OF_HANDLER = ("HandlerManifest.json", "HandlerEnvironment.json")
_UNITS = ("himdsd", "gcad", "extd", "arcproxyd")


def configure(parser: Parser) -> None:
    parser.add_argument("-f", "--full", action="store_true", help="every log; default: only the newest of each")
    parser.add_argument("-o", "--output", metavar="PATH", help="the archive; default: in the current folder")


def run(session: Session) -> int:
    """Prints the absolute path of the archive. Errors: AZCM0001 when it cannot be written."""
    import zipfile

    name = f"azcmagent-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{socket.gethostname().partition('.')[0]}.zip"
    path = os.path.abspath(session.args.output or name)
    if os.path.isdir(path):
        path = os.path.join(path, name)
    partial = f"{path}.partial"
    count = 0
    try:
        # Logs may name hosts and people: nobody else reads the archive.
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
            for folder in (session.paths.log, session.paths.guest_config):
                for found in files(str(folder), session.args.full):
                    count += _add(archive, found, session.args.full)
            count += _add_handlers(archive, session.paths)
            _add_journal(archive)
            archive.writestr("version.txt", f"{session.version}\n")
        os.replace(partial, path)
    except OSError as problem:
        if os.path.exists(partial):
            os.unlink(partial)
        raise errors.AgentError(
            f"the archive {path} cannot be written: {problem.strerror}", "Give another --output, or free some space"
        ) from None
    session.out.result({"status": "success", "path": path, "files": count}, path)
    return 0


def files(folder: str, full: bool) -> Iterator[str]:
    """Paths of the logs below `folder`; rotated ones only with `full`. Links are not followed."""
    for at, _, names in os.walk(folder, followlinks=False):
        for name in sorted(names):
            is_log = name.endswith((".log", ".txt", ".json")) and at.startswith(folder)
            inside = os.path.relpath(at, folder).split(os.sep)
            if folder.rstrip("/").endswith("GuestConfig") and not inside[0].endswith("_logs"):
                continue
            if is_log or (full and ".log" in name):
                yield os.path.join(at, name)


def of_handlers(folder: str) -> Iterator[str]:
    """Paths of manifest, environment and status files of the handlers below `folder`: never of settings, certificates
    or keys. Links are not followed."""
    for handler in _names(folder):
        at = os.path.join(folder, handler)
        if os.path.islink(at) or _OF_HANDLER[0] not in _names(at):
            continue
        yield from (os.path.join(at, name) for name in _OF_HANDLER)
        status = os.path.join(at, "status")
        if not os.path.islink(status):
            yield from (os.path.join(status, name) for name in _names(status) if name.endswith(".status"))


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _add_handlers(archive: zipfile.ZipFile, paths: Paths) -> int:
    """What is known of extensions and what their handlers say, within HANDLERS_BYTES; how many files that is."""
    count, room = 0, HANDLERS_BYTES
    for path in (os.path.join(paths.extensions, "handlers.json"), *of_handlers(paths.handlers)):
        size = min(os.path.getsize(path), RECENT_BYTES) if os.path.isfile(path) else 0
        if size <= room:
            room -= size
            count += _add(archive, path, full=False)
    return count


def _add(archive: zipfile.ZipFile, path: str, full: bool) -> int:
    """1 when the file went into the archive, under its own path. himds owns its folder, so a link is not followed."""
    try:
        handle = local.open_plain(path, os.O_RDONLY)
    except OSError:
        return 0
    with open(handle, "rb") as source:
        known = os.fstat(source.fileno())
        size = known.st_size
        if not full and size > RECENT_BYTES:
            source.seek(size - RECENT_BYTES)
        with archive.open(_entry(path, known.st_mtime), "w") as target:
            _copy(source, target, size)
    return 1


def _entry(path: str, modified: float) -> zipfile.ZipInfo:
    import zipfile

    # The format knows no time before 1980.
    entry = zipfile.ZipInfo(path.lstrip("/"), time.gmtime(max(modified, 315532800))[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _copy(source: BinaryIO, target: object, most: int) -> None:
    while most > 0:
        block = source.read(min(most, 1 << 16))
        if not block:
            return
        target.write(block)  # type: ignore[attr-defined]
        most -= len(block)


def _add_journal(archive: zipfile.ZipFile) -> None:
    """The journal of the services, where there is one."""
    program = "/usr/bin/journalctl"
    if not os.access(program, os.X_OK):
        return
    units = [word for unit in _UNITS for word in ("-u", f"{unit}.service")]
    try:
        done = subprocess.run(
            [program, "--no-pager", "-q", "-n", str(JOURNAL_LINES), *units],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.stdout:
        archive.writestr("journal.txt", done.stdout)

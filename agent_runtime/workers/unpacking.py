# SPDX-License-Identifier: Apache-2.0
"""Unpacks a handler's package without trusting it (extension-handler.md section 21). Runs in a worker.

Everything goes into a folder beside the final one and is renamed when it is whole and on the disk. zipfile knows of
none of what is refused here: it follows names out of the folder after mending them, and never gives a program its mode.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import zipfile
import zlib
from typing import Any, Optional

from agent_runtime import errors
from agent_runtime.platform import local
from agent_runtime.state import atomic
from agent_runtime.workers.download import unkept

ENTRIES_LIMIT = 20000
DIRECTORY_LIMIT = 16 << 20
"""Bytes of the zip's own directory, which has to be in memory."""
RATIO, RATIO_FREE = 200, 16 << 20
"""A package may grow to so many times its length, and by so many bytes beside."""
MANIFEST = "HandlerManifest.json"
MANIFEST_LIMIT = 1 << 20
BLOCK = 1 << 16
_PREFIX = ".unpack-"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
"""What zipfile raises besides OSError."""
_END, _LOCATOR, _END64 = b"PK\5\6", b"PK\6\7", b"PK\6\6"
_LOCATOR_FORM, _END64_FORM = struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_ELSEWHERE = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
"""What numbers of the end record are where the zip64 record alone has them."""


def unpack_package(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"archive", "into", "limit"}` (paths; bytes that it may unpack to) → `{"files", "bytes"}`.

    What is at `into` is replaced. Errors: NotInitialised (AZCM0006): `into` is on a file system mounted noexec, the
    handler's exit code 64; ExtensionNotAdded (AZCM0074): the package must not be unpacked; ExtensionFailed
    (AZCM0072): no room. Nothing is left behind then, and `into` is as it was.
    """
    archive, into, limit = arguments["archive"], arguments["into"].rstrip("/"), arguments["limit"]
    above = os.path.dirname(into)
    work = os.path.join(above, f"{_PREFIX}{os.path.basename(into)}")
    try:
        os.makedirs(above, 0o700, exist_ok=True)
        check_executable(above)
        _remove(work)
        try:
            with open(archive, "rb") as stream:
                _check_directory(archive, stream)
                with zipfile.ZipFile(stream) as package:
                    entries = _entries(archive, package, limit)
                    _check_room(above, sum(entry.file_size for entry in entries))
                    os.mkdir(work, 0o700)
                    files, size = _Writer(archive, package, work, limit).all(entries)
            _place_manifest(archive, work, entries)
            _sync(work)
            _remove(into)
            os.rename(work, into)
            local.sync_folder(above)
        finally:
            _remove(work)
    except OSError as error:
        if error.errno == errno.EINVAL:  # zipfile sought to where a damaged zip pointed
            raise _refused(archive, "is no zip, or a damaged one") from None
        raise unkept(error, into) from None
    except _DAMAGED as error:
        raise _refused(archive, f"is no zip, or a damaged one ({error})") from None
    return {"files": files, "bytes": size}


def check_executable(folder: str) -> None:
    """Errors: NotInitialised when no program could be run in a folder; OSError."""
    if local.forbids_programs(folder):
        raise errors.NotInitialised(
            f"{folder} is on a file system that is mounted noexec, where no handler can run",
            f"Mount it with exec, or give {folder} a file system of its own",
        )


def _refused(archive: str, why: str, how: str = "") -> errors.AgentError:
    return errors.ExtensionNotAdded(
        f"the package {os.path.basename(archive)} {why}", f"Have the package built anew{how}, as a higher version"
    )


def _check_directory(archive: str, stream: Any) -> None:
    """The zip's directory is read as a whole by zipfile: not before it is known to be small. Errors: ExtensionNotAdded,
    OSError."""
    start = max(0, stream.seek(0, os.SEEK_END) - 65557)
    stream.seek(start)
    tail = stream.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise _refused(archive, "is no zip, or was cut off")
    numbers: tuple[int, ...] = struct.unpack("<2H2L", tail[at + 8 : at + 20])
    wide = _zip64(archive, stream, start + at)
    if wide and any(said not in (true, no) for said, true, no in zip(numbers, wide, _ELSEWHERE)):
        raise _refused(archive, "has a zip64 record and an end record that contradict each other")
    _, entries, length, _ = wide or numbers
    if entries > ENTRIES_LIMIT:
        raise _refused(archive, f"has more than {ENTRIES_LIMIT} entries")
    if length > DIRECTORY_LIMIT:
        raise _refused(archive, f"has a list of entries of more than {DIRECTORY_LIMIT} bytes")
    stream.seek(0)


def _zip64(archive: str, stream: Any, end: int) -> Optional[tuple[int, ...]]:
    """What the zip64 record before the end record at `end` says: entries in this file, entries, length and place of
    the directory. None: there is none. It is looked for where zipfile takes it from, so that both read one record.
    Errors: ExtensionNotAdded, OSError."""
    at = end - _LOCATOR_FORM.size
    if at < 0:
        return None
    stream.seek(at)
    mark, disk, place, disks = _LOCATOR_FORM.unpack(stream.read(_LOCATOR_FORM.size))
    if mark != _LOCATOR:
        return None
    at -= _END64_FORM.size
    if disk or disks > 1 or place != at:
        raise _refused(archive, "has its zip64 record elsewhere than right before its end")
    stream.seek(at)
    mark, length, _, _, disk, first, *numbers = _END64_FORM.unpack(stream.read(_END64_FORM.size))
    if mark != _END64 or length != _END64_FORM.size - 12 or disk or first:
        raise _refused(archive, "has a damaged zip64 record")
    if numbers[0] != numbers[1] or numbers[2] + numbers[3] != at:
        raise _refused(archive, "has a zip64 record that contradicts the rest of it")
    return tuple(numbers)


def unsafe(name: str) -> bool:
    """Whether a name of an entry may lead out of the folder. Pure. A colon is a letter like any other, and names may
    differ in case alone: packages for Linux are all that comes here."""
    parts = name.rstrip("/").split("/")
    return (
        not name
        or name.startswith("/")
        or "\0" in name
        or any(part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts)
    )


def _entries(archive: str, package: zipfile.ZipFile, limit: int) -> list[zipfile.ZipInfo]:
    """The entries, once every one of them may be unpacked. Errors: ExtensionNotAdded."""
    found = package.infolist()
    if len(found) > ENTRIES_LIMIT:
        raise _refused(archive, f"has more than {ENTRIES_LIMIT} entries")
    names: dict[str, bool] = {}
    for entry in found:
        name = entry.filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if "\\" in name:
            raise _refused(archive, f"has a backslash in the name of an entry: {name!r}", " with / between folders")
        if unsafe(name) or unsafe(entry.orig_filename):
            raise _refused(archive, f"has an entry that would leave its folder: {name!r}")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, f"has an entry that is neither file nor folder: {name!r}")
        if entry.flag_bits & 1:
            raise _refused(archive, f"has an encrypted entry: {name!r}")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(archive, f"is packed with a method other than deflate: {name!r}")
        if name.rstrip("/") in names:
            raise _refused(archive, f"has two entries of one name: {name!r}")
        names[name.rstrip("/")] = name.endswith("/")
    for name in names:
        parts = name.split("/")
        if any(not names.get("/".join(parts[:end]), True) for end in range(1, len(parts))):
            raise _refused(archive, f"has an entry below a file: {name!r}")
    if sum(entry.file_size for entry in found) > limit:
        raise _refused(archive, f"unpacks to more than {limit} bytes")
    return found


def _check_room(folder: str, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise errors.ExtensionFailed(f"the package unpacks to {needed} bytes in {folder}, where {free} are free")


class _Writer:
    """Writes entries, and believes the bytes that come instead of what the zip says of them."""

    def __init__(self, archive: str, package: zipfile.ZipFile, folder: str, limit: int) -> None:
        self._archive, self._package, self._folder = archive, package, folder
        self._limit = min(limit, RATIO * os.stat(archive).st_size + RATIO_FREE)
        self._limited = limit
        self._size = 0

    def all(self, entries: list[zipfile.ZipInfo]) -> tuple[int, int]:
        """Files and bytes that were written. Errors: ExtensionNotAdded, OSError, and those of zipfile."""
        files = 0
        for entry in entries:
            path = os.path.join(self._folder, *entry.filename.rstrip("/").split("/"))
            if entry.filename.endswith("/"):
                os.makedirs(path, 0o755, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            self._file(entry, path)
            files += 1
        return files, self._size

    def _file(self, entry: zipfile.ZipInfo, path: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(descriptor, "wb") as target, self._package.open(entry) as source:
            while True:
                block = source.read(BLOCK)
                if not block:
                    break
                self._size += len(block)
                if self._size > self._limit:
                    raise self._too_big()
                target.write(block)
            target.flush()
            # Zips of other systems have no modes: everything may be run by its owner (section 2).
            local.give(descriptor, ((entry.external_attr >> 16) & 0o755 or 0o644) | 0o700, -1)
            os.fsync(descriptor)

    def _too_big(self) -> errors.AgentError:
        if self._limit < self._limited:
            return _refused(self._archive, f"unpacks to more than {RATIO} times its length")
        return _refused(self._archive, f"unpacks to more than {self._limited} bytes")


def _place_manifest(archive: str, folder: str, entries: list[zipfile.ZipInfo]) -> None:
    """A HandlerManifest.json without a byte-order mark at the root. Errors: ExtensionNotAdded, OSError."""
    found = [entry.filename for entry in entries if entry.filename.rpartition("/")[2] == MANIFEST]
    if MANIFEST in found:
        found = [MANIFEST]
    if len(found) != 1:
        raise _refused(archive, f"has {'more than one' if found else 'no'} {MANIFEST}")
    try:
        content = atomic.read_bytes(os.path.join(folder, *found[0].split("/")), MANIFEST_LIMIT)
    except ValueError:
        raise _refused(archive, f"has a {MANIFEST} of more than {MANIFEST_LIMIT} bytes") from None
    plain = content[3:] if content.startswith(b"\xef\xbb\xbf") else content
    if found[0] != MANIFEST or plain != content:
        atomic.write_bytes(os.path.join(folder, MANIFEST), plain, 0o744)


def _sync(folder: str) -> None:
    for place, _, _ in os.walk(folder):
        local.sync_folder(place)


def _remove(path: str) -> None:
    """Whatever it is. Errors: OSError."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise OSError(errno.ENOTDIR, "a folder above is a file", path) from error
    if stat.S_ISDIR(kind):
        shutil.rmtree(path)
    else:
        os.unlink(path)

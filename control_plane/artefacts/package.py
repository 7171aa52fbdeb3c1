# SPDX-License-Identifier: Apache-2.0
"""A package before it is offered to machines: what handler it is, and that it can be unpacked safely.

extension-handler.md sections 2, 3 and 21. The agent looks at everything again when it unpacks.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from control_plane.errors import OperatorError

SIZE_LIMIT = 2 << 30
"""Of the package, and of what it unpacks to, in bytes."""
ENTRIES_LIMIT = 20000
RATIO, RATIO_FREE = 200, 16 << 20
"""An agent unpacks a package to so many times its length at most, and so many bytes beside."""
SYSTEMS = ("linux", "windows")
ARCHITECTURES = ("any", "x86_64", "aarch64")
COMMANDS = ("installCommand", "enableCommand", "disableCommand", "updateCommand", "uninstallCommand")
MANIFEST = "HandlerManifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){1,3}")
_TEXT_LIMIT = 1 << 20


@dataclass(frozen=True)
class Package:
    """One file for one operating system and processor."""

    publisher: str
    type: str
    version: str
    os: str
    arch: str
    multiple: bool
    length: int
    sha256: str

    @property
    def target(self) -> str:
        """Its path among the targets (docs/protocol.md section 15.3)."""
        return target_path(self.publisher, self.type, self.version, self.os, self.arch)

    @property
    def custom(self) -> dict[str, Any]:
        """What the signed metadata says of it beside length and hash."""
        return {
            "kind": "extension",
            "publisher": self.publisher,
            "type": self.type,
            "version": self.version,
            "os": self.os,
            "arch": self.arch,
            "supportsMultipleExtensions": self.multiple,
        }


def target_path(publisher: str, kind: str, version: str, system: str, arch: str) -> str:
    """`extensions/PUBLISHER.TYPE/VERSION/OS[-ARCH].zip`. Pure."""
    return f"extensions/{publisher}.{kind}/{version}/{system}{'' if arch == 'any' else f'-{arch}'}.zip"


def _refused(path: Path, why: str, remedy: str = "Build the package anew.") -> OperatorError:
    return OperatorError(f"{path} {why}.", remedy)


def inspect(
    path: Path, publisher: str | None, kind: str | None, version: str | None, system: str, arch: str
) -> Package:
    """Check a zip and name it. What is None is taken from `signingInfo` of its HandlerManifest.json, else from its
    manifest.xml.

    Errors: OperatorError with the first thing that is wrong.
    """
    try:
        length = path.stat().st_size
        if length > SIZE_LIMIT:
            raise _refused(path, f"is longer than {SIZE_LIMIT} bytes", "Leave out what the handler can fetch itself.")
        with zipfile.ZipFile(path) as archive:
            names = _names(path, archive, length, system)
            manifest = _manifest(path, archive, names)
            told = {**_published_as(archive, names), **_signing_info(manifest)}
            broken = archive.testzip()
        if broken is not None:
            raise _refused(path, f"is damaged: {broken} does not have its checksum")
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", "Name a package.") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise _refused(path, f"is no zip that can be unpacked ({error})") from error
    named = {
        "publisher": publisher or told.get("publisher"),
        "type": kind or told.get("type"),
        "version": version or told.get("version"),
    }
    for what, value in named.items():
        if value is None:
            raise OperatorError(f"{path} does not say what its {what} is.", f"Give --{what}.")
        pattern = _VERSION if what == "version" else _NAME
        if not pattern.fullmatch(value) or value.endswith("."):
            raise OperatorError(
                f"'{value}' cannot be a {what}.", "Use letters, digits, dots; 2 to 4 numbers as version."
            )
    multiple = _truth(manifest["handlerManifest"].get("supportsMultipleExtensions"))
    return Package(**{key: str(value) for key, value in named.items()}, os=system, arch=arch, multiple=multiple,
                   length=length, sha256=sha256)  # fmt: skip


def _names(path: Path, archive: zipfile.ZipFile, length: int, system: str) -> list[str]:
    """Names of the entries, once they are safe on a system: Linux knows case, and a colon as a letter.

    Errors: OperatorError.
    """
    if len(archive.infolist()) > ENTRIES_LIMIT:
        raise _refused(path, f"has more than {ENTRIES_LIMIT} entries")
    seen: dict[str, bool] = {}
    total = 0
    for entry in archive.infolist():
        name = entry.filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        _check_name(path, name, system)
        if unsafe(name) or unsafe(entry.orig_filename):
            raise _refused(path, f"has an entry that would leave its folder: {name!r}")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(path, f"has an entry that is neither file nor folder: {name!r}")
        if entry.flag_bits & 1:
            raise _refused(path, f"has an encrypted entry: {name!r}")
        key = name.rstrip("/") if system == "linux" else name.rstrip("/").lower()
        if key in seen:
            raise _refused(path, f"has two entries of one name: {name!r}")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(path, f"is packed with a method other than deflate: {name!r}", "Use plain zip.")
        seen[key] = name.endswith("/")
        total += entry.file_size
    for name in seen:
        parts = name.split("/")
        if any(not seen.get("/".join(parts[:end]), True) for end in range(1, len(parts))):
            raise _refused(path, f"has an entry below a file: {name!r}")
    if total > min(SIZE_LIMIT, RATIO * length + RATIO_FREE):
        raise _refused(path, f"unpacks to {total} bytes, more than agents take")
    return archive.namelist()


def _check_name(path: Path, name: str, system: str) -> None:
    """Errors: OperatorError for signs that a system's names have not."""
    if "\\" in name:
        why = f"has a backslash in the name of an entry: {name!r}"
        raise _refused(path, why, "Pack it with / between folders.")
    if system == "windows" and ":" in name:
        raise _refused(path, f"has a colon in the name of an entry: {name!r}", "Give it a name that Windows takes.")


def unsafe(name: str) -> bool:
    """Whether a name of an entry may lead out of the folder it is unpacked in. Pure."""
    parts = name.rstrip("/").split("/")
    return not name or name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in parts)


def _text(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as stream:
        content = stream.read(_TEXT_LIMIT + 1)
    if len(content) > _TEXT_LIMIT:
        raise ValueError(f"{name} is longer than {_TEXT_LIMIT} bytes")
    return content.decode("utf-8-sig")


def _manifest(path: Path, archive: zipfile.ZipFile, names: list[str]) -> Mapping[str, Any]:
    """Element 0 of the HandlerManifest.json, at the root or in one other place.

    Errors: OperatorError; ValueError when it is not UTF-8.
    """
    nested = [name for name in names if name.rpartition("/")[2] == MANIFEST]
    if MANIFEST in nested:
        nested = [MANIFEST]
    if len(nested) != 1:
        count = "no" if not nested else "more than one"
        raise _refused(path, f"has {count} {MANIFEST}", "Put one at the root of the zip.")
    try:
        found = json.loads(_text(archive, nested[0]))
    except (json.JSONDecodeError, RecursionError) as error:
        raise _refused(path, f"has a {MANIFEST} that is no JSON ({error})", "Correct it.") from error
    first = found[0] if isinstance(found, list) and found else None
    commands = first.get("handlerManifest") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(commands, dict):
        raise _refused(path, f"has a {MANIFEST} that is no array of handlers", "Correct it.")
    for name in COMMANDS:
        if not isinstance(commands.get(name), str) or not commands[name].strip():
            raise _refused(path, f"has a {MANIFEST} without {name}", "Add the command.")
    return first


def _truth(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _signing_info(manifest: Mapping[str, Any]) -> dict[str, str]:
    found = manifest.get("signingInfo")
    if not isinstance(found, dict):
        return {}
    return {key: str(found[key]) for key in ("publisher", "type", "version") if found.get(key)}


def _published_as(archive: zipfile.ZipFile, names: list[str]) -> dict[str, str]:
    """What manifest.xml says; nothing when there is none or it cannot be used, for hosts do not need it."""
    if "manifest.xml" not in names:
        return {}
    text = _text(archive, "manifest.xml")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return {}
    try:
        top = ET.fromstring(text)  # noqa: S314 - no document type, so no entities
    except (ET.ParseError, ValueError):
        return {}
    wanted = {"ProviderNameSpace": "publisher", "Type": "type", "Version": "version"}
    found = {}
    for element in top.iter():
        name = wanted.get(element.tag.rpartition("}")[2])
        if name and element.text and name not in found:
            found[name] = element.text.strip()
    return found

# SPDX-License-Identifier: Apache-2.0
"""A package of the agent itself, deb or rpm, before it is offered to machines: what it is, read out of its own header.

deb(5): an `ar` archive with a `control.tar`; rpm: a lead, a header of signatures, a header of tags (RPM file format,
version 3). The machine asks its package manager again.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from control_plane.errors import OperatorError

NAME = "azcmagent"
FORMATS = ("deb", "rpm")
SIZE_LIMIT = 256 << 20
_HEADER_LIMIT = 16 << 20
_CONTROL_LIMIT = 1 << 20
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){3}")
_RPM_MAGIC, _HEADER_MAGIC, _LEAD = b"\xed\xab\xee\xdb", b"\x8e\xad\xe8\x01", 96
_RPM_NAME, _RPM_VERSION, _RPM_STRING = 1000, 1001, 6


@dataclass(frozen=True)
class AgentPackage:
    """One file. `format`: deb or rpm; for every processor."""

    version: str
    format: str
    length: int
    sha256: str

    @property
    def target(self) -> str:
        """Its path among the targets (docs/protocol.md section 15.6)."""
        return target_path(self.version, self.format)

    @property
    def custom(self) -> dict[str, Any]:
        """What the signed metadata says of it beside length and hash."""
        return {"kind": "agent", "version": self.version, "os": "linux", "arch": "any", "format": self.format}


def target_path(version: str, form: str) -> str:
    """`agent/VERSION/linux.FORMAT`. Pure."""
    return f"agent/{version}/linux.{form}"


def is_one(path: Path) -> bool:
    """Whether a file is to be read as a package of the agent: by its name."""
    return path.suffix.lower().lstrip(".") in FORMATS


def inspect(path: Path) -> AgentPackage:
    """Read the package's name and version.

    Errors: OperatorError: it is no package of the agent.
    """
    form = path.suffix.lower().lstrip(".")
    try:
        length = path.stat().st_size
        if length > SIZE_LIMIT:
            raise OperatorError(f"{path} is longer than {SIZE_LIMIT} bytes.", "Name a package of the agent.")
        with path.open("rb") as file:
            name, version = _of_deb(file) if form == "deb" else _of_rpm(file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror or error}).", "Name a package.") from error
    except (ValueError, tarfile.TarError, EOFError, struct.error) as error:
        raise OperatorError(f"{path} is no {form} package ({error}).", "Build it anew: make build.") from error
    if name != NAME:
        raise OperatorError(f"{path} is the package '{name}', not the agent's.", f"Name a package of {NAME}.")
    if not _VERSION.fullmatch(version):
        raise OperatorError(f"{path} has the version '{version}'.", "The agent's versions are four numbers with dots.")
    return AgentPackage(version, form, length, sha256)


def _of_deb(file: BinaryIO) -> tuple[str, str]:
    """Name and version. Errors: ValueError, TarError, OSError."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("it is no ar archive")
    control = b""
    while header := file.read(60):
        if len(header) < 60 or header[58:] != b"`\n":
            raise ValueError("its ar header is damaged")
        member, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        if not 0 <= size <= (_CONTROL_LIMIT if member.startswith("control.tar") else SIZE_LIMIT):
            raise ValueError(f"{member} is too long")
        content = file.read(size)
        if len(content) < size:
            raise ValueError(f"it ends in {member}")
        file.seek(size % 2, 1)
        if member.startswith("control.tar"):
            control = content
    if not control:
        raise ValueError("it has no control.tar")
    return _of_control(control)


def _of_control(content: bytes) -> tuple[str, str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            if member.name.removeprefix("./") == "control" and member.isfile() and member.size <= _CONTROL_LIMIT:
                text = archive.extractfile(member)
                lines = text.read().decode("utf-8").splitlines() if text else []
                fields = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] not in " \t")
                return fields.get("Package", ""), fields.get("Version", "").strip()
    raise ValueError("its control.tar has no file control")


def _of_rpm(file: BinaryIO) -> tuple[str, str]:
    """Name and version. Errors: ValueError, struct.error."""
    if file.read(_LEAD)[:4] != _RPM_MAGIC:
        raise ValueError("it does not begin as one")
    _header(file)
    file.seek(-file.tell() % 8, 1)  # the header of signatures is padded
    tags = _header(file)
    return tags.get(_RPM_NAME, ""), tags.get(_RPM_VERSION, "")


def _header(file: BinaryIO) -> dict[int, str]:
    """Texts of one header, by tag."""
    magic, count, size = struct.unpack(">4s4xII", file.read(16))
    if magic != _HEADER_MAGIC or count > 65536 or size > _HEADER_LIMIT:
        raise ValueError("its header is damaged")
    index, store = file.read(16 * count), file.read(size)
    if len(store) < size:
        raise ValueError("it ends in its header")
    found = {}
    for tag, kind, offset, _ in struct.iter_unpack(">IIII", index):
        if kind == _RPM_STRING:
            found[tag] = store[offset : store.index(b"\0", offset)].decode("utf-8", "replace")
    return found

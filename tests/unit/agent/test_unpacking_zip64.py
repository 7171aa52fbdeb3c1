# SPDX-License-Identifier: Apache-2.0
"""Packages with a zip64 record, as `zip -fz` makes them and as `zip` does that reads from a pipe: those are plain
packages, and no number in them is believed before it is looked at."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.workers import unpacking
from tests.unit.agent.test_unpacking import MANIFEST, packed, refused, unpack

END, LOCATOR, RECORD = "<4s4H2LH", "<4sLQL", "<4sQ2H2L4Q"


def widened(path: Path, end: dict[int, int] | None = None, **says: Any) -> Path:
    """Give a zip a zip64 record with the same numbers, but for what `says`: members `count`, `here`, `length`,
    `offset`, `size`, `disk`, `mark` of the record, `place` and `disks` of the locator, `comment`. `end`: members of the
    end record by position; it has no offset of its own otherwise, as after `zip -fz`."""
    content = path.read_bytes()
    at = content.rindex(b"PK\5\6")
    _, _, _, count, _, length, offset, _ = struct.unpack(END, content[at : at + 22])
    told = {"count": count, "length": length, "offset": offset, "size": 44, "disk": 0, "mark": b"PK\6\6", **says}
    numbers = (told.get("here", told["count"]), told["count"], told["length"], told["offset"])
    record = struct.pack(RECORD, told["mark"], told["size"], 0x31E, 45, told["disk"], 0, *numbers)
    locator = struct.pack(LOCATOR, b"PK\6\7", 0, told.get("place", at), told.get("disks", 1))
    last = [b"PK\5\6", 0, 0, count, count, length, 0xFFFFFFFF, len(told.get("comment", b""))]
    for member, value in (end or {}).items():
        last[member] = value
    path.write_bytes(content[:at] + record + locator + struct.pack(END, *last) + told.get("comment", b""))
    return path


ALL = {3: 0xFFFF, 4: 0xFFFF, 5: 0xFFFFFFFF, 6: 0xFFFFFFFF}
HOSTILE = [
    ({"count": 1 << 40}, ALL, "more than 20000 entries"),
    ({"length": 1 << 40}, ALL, "contradicts the rest of it"),
    ({"length": 0, "offset": 1 << 62}, ALL, "contradicts the rest of it"),
    ({"offset": (1 << 64) - 1}, ALL, "contradicts the rest of it"),
    ({"here": 1}, ALL, "contradicts the rest of it"),
    ({"count": 1 << 40}, None, "contradict each other"),
    ({}, {3: 7}, "contradict each other"),
    ({}, {6: 0}, "contradict each other"),
    ({"place": 1 << 40}, None, "elsewhere than right before its end"),
    ({"place": 0}, None, "elsewhere than right before its end"),
    ({"disks": 2}, None, "elsewhere than right before its end"),
    ({"mark": b"PK\6\5"}, None, "damaged zip64 record"),
    ({"size": 1 << 63}, None, "damaged zip64 record"),
    ({"disk": 1}, None, "damaged zip64 record"),
]


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("end", [None, {}, ALL, {6: 0xFFFFFFFF, 3: 0xFFFF, 4: 0xFFFF}])
@pytest.mark.parametrize("comment", [b"", b"c" * 65535])
def test_a_package_with_a_zip64_record(tmp_path: Path, lib: Path, end: dict[int, int] | None, comment: bytes) -> None:
    archive = widened(packed(tmp_path / "p.zip", ("bin/run", b"#!/bin/sh\n")), end, comment=comment)
    assert unpack(archive, lib) == {"files": 2, "bytes": len(MANIFEST) + 10}
    assert (lib / "Hawser.Demo-1.0.0" / "HandlerManifest.json").read_bytes() == MANIFEST


@pytest.mark.skipif(shutil.which("zip") is None, reason="the program zip is not installed")
@pytest.mark.parametrize("piped", [False, True])
def test_a_package_of_the_program_zip(tmp_path: Path, lib: Path, piped: bool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "HandlerManifest.json").write_bytes(MANIFEST)
    (source / "run").write_bytes(os.urandom(5000))
    argv = ["zip", "-q", "-fz", "-X", "../p.zip", "HandlerManifest.json", "run"]
    if piped:
        # zip writes what it reads in a stream in the form of large files, not knowing how much will come.
        argv = ["sh", "-c", "zip -q -X - HandlerManifest.json run | cat >../p.zip && zip -q -fz -X ../p.zip run"]
    subprocess.run(argv, cwd=source, check=True)
    assert b"PK\6\6" in (tmp_path / "p.zip").read_bytes()
    assert unpack(tmp_path / "p.zip", lib)["files"] == 2


@pytest.mark.parametrize(("says", "end", "words"), HOSTILE)
@pytest.mark.parametrize("comment", [b"", b"c" * 65535])
def test_a_zip64_record_that_lies(
    tmp_path: Path, lib: Path, says: dict[str, Any], end: dict[int, int] | None, words: str, comment: bytes
) -> None:
    archive = widened(packed(tmp_path / "p.zip", ("x", b"")), end, comment=comment, **says)
    refused(archive, lib, words)


def test_nothing_but_the_records(tmp_path: Path, lib: Path) -> None:
    """A locator at the very beginning of the file, where no record can be before it."""
    content = struct.pack(LOCATOR, b"PK\6\7", 0, 0, 1) + struct.pack(END, b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
    (tmp_path / "p.zip").write_bytes(content)
    refused(tmp_path / "p.zip", lib, "elsewhere than right before its end")


def test_the_limits_are_the_same(tmp_path: Path, lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = widened(packed(tmp_path / "p.zip", *((f"f{number}", b"") for number in range(6))), ALL)
    monkeypatch.setattr(unpacking, "DIRECTORY_LIMIT", 100)
    refused(archive, lib, "a list of entries of more than 100 bytes")
    monkeypatch.setattr(unpacking, "ENTRIES_LIMIT", 5)
    refused(archive, lib, "more than 5 entries")


def test_a_zip64_record_that_was_cut_off(tmp_path: Path, lib: Path) -> None:
    archive = widened(packed(tmp_path / "p.zip", ("x", os.urandom(300))), ALL)
    whole = archive.read_bytes()
    for length in range(len(whole)):
        archive.write_bytes(whole[:length])
        refused(archive, lib, "p.zip")
    for begin in range(1, len(whole), 7):
        archive.write_bytes(whole[begin:])
        refused(archive, lib, "p.zip")

# SPDX-License-Identifier: Apache-2.0
"""Unpacking packages: what a handler finds, and what no package may do (extension-handler.md sections 2 and 21)."""

from __future__ import annotations

import json
import os
import stat
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime import errors
from agent_runtime.platform import local
from agent_runtime.workers import unpacking

MANIFEST = json.dumps([{"handlerManifest": {}}]).encode()
LIMIT = 1 << 20


def entry(name: str, mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16 | 0x20  # what DOS calls a file
    made.compress_type = method
    return made


def packed(path: Path, *entries: tuple[Any, bytes], manifest: bool = True) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        warnings.simplefilter("ignore")  # of names that are there twice
        if manifest:
            package.writestr("HandlerManifest.json", MANIFEST)
        for name, content in entries:
            package.writestr(name, content)
    return path


def unpack(archive: Path, folder: Path, limit: int = LIMIT) -> dict[str, Any]:
    return unpacking.unpack_package(
        {"archive": str(archive), "into": str(folder / "Hawser.Demo-1.0.0"), "limit": limit}
    )


def refused(archive: Path, folder: Path, words: str, limit: int = LIMIT) -> None:
    with pytest.raises(errors.ExtensionNotAdded) as caught:
        unpack(archive, folder, limit)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert not os.listdir(folder)


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    return folder


def test_a_package_is_unpacked(tmp_path: Path, lib: Path) -> None:
    archive = packed(
        tmp_path / "p.zip",
        ("bin/", b""),
        (entry("bin/shim"), b"#!/bin/sh\n"),
        (entry("lib/a/b.py", stat.S_IFREG | 0o4666), b"pass\n"),
        (entry("lib/c.py", stat.S_IFREG | 0o555, zipfile.ZIP_STORED), b""),
    )
    assert unpack(archive, lib) == {"files": 4, "bytes": len(MANIFEST) + 15}
    into = lib / "Hawser.Demo-1.0.0"
    assert (into / "HandlerManifest.json").read_bytes() == MANIFEST
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in into.rglob("*") if path.is_file()}
    assert modes == {"HandlerManifest.json": 0o700, "shim": 0o744, "b.py": 0o744, "c.py": 0o755}
    assert stat.S_IMODE(into.stat().st_mode) == 0o700
    assert os.listdir(lib) == ["Hawser.Demo-1.0.0"]


@pytest.mark.parametrize("name", ["HandlerManifest.json", "deep/er/HandlerManifest.json"])
def test_the_manifest_is_at_the_root_without_a_mark(tmp_path: Path, lib: Path, name: str) -> None:
    archive = packed(tmp_path / "p.zip", (name, b"\xef\xbb\xbf" + MANIFEST), manifest=False)
    unpack(archive, lib)
    assert (lib / "Hawser.Demo-1.0.0" / "HandlerManifest.json").read_bytes() == MANIFEST


def test_the_manifest_at_the_root_counts(tmp_path: Path, lib: Path) -> None:
    unpack(packed(tmp_path / "p.zip", ("other/HandlerManifest.json", b"[]")), lib)
    assert (lib / "Hawser.Demo-1.0.0" / "HandlerManifest.json").read_bytes() == MANIFEST


@pytest.mark.parametrize("names", [[], ["a/HandlerManifest.json", "b/HandlerManifest.json"], ["handlermanifest.JSON"]])
def test_one_manifest_is_needed(tmp_path: Path, lib: Path, names: list[str]) -> None:
    archive = packed(tmp_path / "p.zip", *((name, MANIFEST) for name in names), ("x", b""), manifest=False)
    refused(archive, lib, "HandlerManifest.json")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/x",
        "../x",
        "a/../../x",
        "a/..",
        "a//x",
        "./x",
        "a/./x",
        "a/" + "n" * 256,
    ],
)
def test_names_that_lead_elsewhere(tmp_path: Path, lib: Path, name: str) -> None:
    refused(packed(tmp_path / "p.zip", (name, b"")), lib, "would leave its folder")
    assert sorted(os.listdir(tmp_path)) == ["lib", "p.zip"]


@pytest.mark.parametrize("name", ["a\\x", "..\\x"])
def test_a_backslash_is_named_with_its_remedy(tmp_path: Path, lib: Path, name: str) -> None:
    archive = packed(tmp_path / "p.zip", (name, b""))
    refused(archive, lib, "has a backslash in the name of an entry")
    with pytest.raises(errors.ExtensionNotAdded) as caught:
        unpack(archive, lib)
    assert caught.value.remedy == "Have the package built anew with / between folders, as a higher version"


def test_names_that_linux_takes(tmp_path: Path, lib: Path) -> None:
    names = ["C:/x", "c:x", "x:stream", "a", "A/b", "A/B", "README", "readme"]
    unpack(packed(tmp_path / "p.zip", *((name, name.encode()) for name in names)), lib)
    into = lib / "Hawser.Demo-1.0.0"
    assert {name: (into / name).read_text() for name in names} == {name: name for name in names}


def test_a_name_with_a_nought(tmp_path: Path, lib: Path) -> None:
    archive = packed(tmp_path / "p.zip", ("aXb", b""))
    archive.write_bytes(archive.read_bytes().replace(b"aXb", b"a\0b"))
    refused(archive, lib, "would leave its folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_what_is_no_file(tmp_path: Path, lib: Path, kind: int) -> None:
    refused(packed(tmp_path / "p.zip", (entry("x", kind | 0o777), b"/etc/passwd")), lib, "neither file nor folder")


@pytest.mark.parametrize("names", [["x", "x"], ["a/", "a"], ["bin/x", "bin/x"]])
def test_names_that_are_there_twice(tmp_path: Path, lib: Path, names: list[str]) -> None:
    refused(packed(tmp_path / "p.zip", *((name, b"") for name in names)), lib, "two entries of one name")


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b/c", "a/b"]])
def test_a_file_that_is_a_folder_too(tmp_path: Path, lib: Path, names: list[str]) -> None:
    refused(packed(tmp_path / "p.zip", *((name, b"") for name in names)), lib, "below a file")


def test_encrypted_entries(tmp_path: Path, lib: Path) -> None:
    archive = packed(tmp_path / "p.zip", ("secret", b"text"))
    content = bytearray(archive.read_bytes())
    at = content.rindex(b"PK\1\2")
    content[at + 8] |= 1
    archive.write_bytes(content)
    refused(archive, lib, "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods(tmp_path: Path, lib: Path, method: int) -> None:
    refused(packed(tmp_path / "p.zip", (entry("x", method=method), b"text")), lib, "other than deflate")


def test_the_limit(tmp_path: Path, lib: Path) -> None:
    archive = packed(tmp_path / "p.zip", ("x", b"x" * 1000))
    assert unpack(archive, lib, 1000 + len(MANIFEST))["bytes"] == 1000 + len(MANIFEST)
    os.rename(lib / "Hawser.Demo-1.0.0", tmp_path / "away")
    refused(archive, lib, "unpacks to more than 1000 bytes", 1000)


def test_a_bomb(tmp_path: Path, lib: Path) -> None:
    archive = packed(tmp_path / "p.zip", ("x", b"\0" * (64 << 20)))
    refused(archive, lib, "unpacks to more than 200 times its length", 1 << 30)


def test_a_zip_that_says_less_than_it_holds(tmp_path: Path, lib: Path) -> None:
    archive = packed(tmp_path / "p.zip", ("x", b"\0" * (8 << 20)))
    content = bytearray(archive.read_bytes())
    at = content.rindex(b"PK\1\2")
    content[at + 24 : at + 28] = struct.pack("<L", 10)
    archive.write_bytes(content)
    with pytest.raises(errors.ExtensionNotAdded):
        unpack(archive, lib)
    assert not os.listdir(lib)


def test_entries_that_share_their_bytes(tmp_path: Path, lib: Path) -> None:
    """Many names in the directory for one stream: small in the file, big on the disk."""
    archive = packed(tmp_path / "p.zip", ("x", b"\0" * (4 << 20)))
    content = archive.read_bytes()
    at = content.rindex(b"PK\1\2")
    end = content.rindex(b"PK\5\6")
    one = content[at:end]
    more = b"".join(one.replace(b"x", bytes([letter])) for letter in b"abcdefghijklmno")
    directory = content.index(b"PK\1\2")
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 17, 17, end - directory + len(more), directory, 0)
    archive.write_bytes(content[:end] + more + tail)
    with pytest.raises(errors.ExtensionNotAdded):
        unpack(archive, lib, 1 << 30)
    assert not os.listdir(lib)


def test_too_many_entries(tmp_path: Path, lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ENTRIES_LIMIT", 5)
    refused(packed(tmp_path / "p.zip", *((f"f{n}", b"") for n in range(6))), lib, "more than 5 entries")


def test_a_directory_that_is_too_big_to_read(tmp_path: Path, lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "DIRECTORY_LIMIT", 100)
    refused(packed(tmp_path / "p.zip", ("x", b"")), lib, "entries")


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 100, b"PK\5\6" + b"\0" * 18])
def test_what_is_no_zip(tmp_path: Path, lib: Path, content: bytes) -> None:
    (tmp_path / "p.zip").write_bytes(content)
    refused(tmp_path / "p.zip", lib, "p.zip")


def test_a_zip_that_was_cut_off(tmp_path: Path, lib: Path) -> None:
    archive = packed(tmp_path / "p.zip", ("x", os.urandom(5000)))
    whole = archive.read_bytes()
    for length in range(0, len(whole), 97):
        archive.write_bytes(whole[:length])
        with pytest.raises(errors.ExtensionNotAdded):
            unpack(archive, lib)
        assert not os.listdir(lib)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_zip_is_refused_or_whole(tmp_path_factory: pytest.TempPathFactory, changes: Any) -> None:
    top = tmp_path_factory.mktemp("damaged")
    archive, lib = packed(top / "p.zip", ("bin/x", b"#!/bin/sh\n" * 20)), top / "lib"
    content = bytearray(archive.read_bytes())
    for at, value in changes:
        content[at % len(content)] = value
    archive.write_bytes(content)
    try:
        unpack(archive, lib)
    except errors.ExtensionNotAdded:
        assert not lib.exists() or not os.listdir(lib)
    assert sorted(os.listdir(top)) in (["lib", "p.zip"], ["p.zip"])


def test_what_was_there_is_replaced(tmp_path: Path, lib: Path) -> None:
    into = lib / "Hawser.Demo-1.0.0"
    (into / "old").mkdir(parents=True)
    (lib / ".unpack-Hawser.Demo-1.0.0" / "left").mkdir(parents=True)
    archive = packed(tmp_path / "p.zip", ("new", b""))
    unpack(archive, lib)
    assert sorted(os.listdir(into)) == ["HandlerManifest.json", "new"]
    assert os.listdir(lib) == ["Hawser.Demo-1.0.0"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keep").write_text("")
    for kind in ("link", "file"):
        os.rename(into, tmp_path / kind)
        if kind == "link":
            into.symlink_to(tmp_path / "elsewhere")
        else:
            into.write_text("")
        unpack(archive, lib)
        assert sorted(os.listdir(into)) == ["HandlerManifest.json", "new"]
    assert os.listdir(tmp_path / "elsewhere") == ["keep"]


def test_what_was_there_stays_when_a_package_is_refused(tmp_path: Path, lib: Path) -> None:
    unpack(packed(tmp_path / "p.zip", ("one", b"")), lib)
    with pytest.raises(errors.ExtensionNotAdded):
        unpack(packed(tmp_path / "q.zip", ("../two", b"")), lib)
    assert sorted(os.listdir(lib / "Hawser.Demo-1.0.0")) == ["HandlerManifest.json", "one"]


def test_noexec_is_said_before_anything(tmp_path: Path, lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "forbids_programs", lambda _: True)
    with pytest.raises(errors.NotInitialised, match="noexec") as caught:
        unpack(packed(tmp_path / "p.zip"), lib)
    assert caught.value.code == "AZCM0006"
    assert not os.listdir(lib)


def test_no_archive_and_no_folder(tmp_path: Path, lib: Path) -> None:
    with pytest.raises(errors.ExtensionFailed, match="No such file"):
        unpack(tmp_path / "none.zip", lib)
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ExtensionFailed):
        unpack(packed(tmp_path / "p.zip"), tmp_path / "file")

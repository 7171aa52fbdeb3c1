# SPDX-License-Identifier: Apache-2.0
"""Which packages the hub takes, and what it calls them."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from control_plane.artefacts import package
from control_plane.errors import OperatorError
from tests.unit.agent.test_unpacking_zip64 import widened

COMMANDS = {f"{name}Command": f"./run.sh {name}" for name in ("install", "enable", "disable", "update", "uninstall")}


def refused(path: Path, words: str, **more: Any) -> None:
    asked = {"publisher": None, "kind": None, "version": None, "system": "linux", "arch": "any", **more}
    with pytest.raises(OperatorError) as caught:
        package.inspect(path, **asked)
    assert words in caught.value.message
    assert caught.value.remedy


def zipped(path: Path, *entries: tuple[Any, bytes]) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        warnings.simplefilter("ignore")
        for name, content in entries:
            made.writestr(name, content)
    return path


def manifest(**more: Any) -> bytes:
    return json.dumps([{"handlerManifest": COMMANDS, **more}]).encode()


SIGNED = {"signingInfo": {"publisher": "P.Q", "type": "T", "version": "1.2"}}


def test_what_a_package_says_of_itself(tmp_path: Path) -> None:
    xml = (
        b'<ExtensionImage xmlns="http://schemas.microsoft.com/windowsazure"><ProviderNameSpace>X.Y</ProviderNameSpace>'
        b"<Type>Z</Type><Version>3.1.4</Version></ExtensionImage>"
    )
    path = zipped(tmp_path / "p.zip", ("HandlerManifest.json", b"\xef\xbb\xbf" + manifest()), ("manifest.xml", xml))
    found = package.inspect(path, None, None, None, "linux", "x86_64")
    assert found.target == "extensions/X.Y.Z/3.1.4/linux-x86_64.zip"
    path = zipped(tmp_path / "p.zip", ("sub/HandlerManifest.json", manifest(**SIGNED)), ("manifest.xml", xml))
    assert package.inspect(path, None, None, None, "linux", "any").target == "extensions/P.Q.T/1.2/linux.zip"
    found = package.inspect(path, "A", "B", "9.0.0.1", "windows", "aarch64")
    assert found.target == "extensions/A.B/9.0.0.1/windows-aarch64.zip"
    for value, multiple in ((True, True), ("True", True), ("false", False), (1, False), (None, False)):
        commands = {**COMMANDS, "supportsMultipleExtensions": value}
        body = json.dumps([{"handlerManifest": commands, **SIGNED}]).encode()
        path = zipped(tmp_path / "p.zip", ("HandlerManifest.json", body))
        assert package.inspect(path, None, None, None, "linux", "any").custom["supportsMultipleExtensions"] is multiple


def test_a_package_without_a_name(tmp_path: Path) -> None:
    path = zipped(tmp_path / "p.zip", ("HandlerManifest.json", manifest()))
    refused(path, "does not say what its publisher is")
    refused(path, "does not say what its version is", publisher="P", kind="T")
    for publisher in ("a b", "../x", "a/b", "", ".", "x."):
        refused(path, "", publisher=publisher or None, kind="T", version="1.0")
    for version in ("1", "1.0.0.0.0", "1.a", "v1.0", "1.0-1"):
        refused(path, "cannot be a version", publisher="P", kind="T", version=version)
    entities = b'<!DOCTYPE x [<!ENTITY a "b">]><x><Type>&a;</Type></x>'
    refused(zipped(path, ("HandlerManifest.json", manifest()), ("manifest.xml", entities)), "does not say")
    refused(zipped(path, ("HandlerManifest.json", manifest()), ("manifest.xml", b"<x")), "does not say")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "has no HandlerManifest.json"),
        ([("a/HandlerManifest.json", b"[]"), ("b/HandlerManifest.json", b"[]")], "has more than one"),
        ([("HandlerManifest.json", b"{")], "that is no JSON"),
        ([("HandlerManifest.json", b"[" * 100_000)], "that is no JSON"),
        ([("HandlerManifest.json", b"{}")], "no array of handlers"),
        ([("HandlerManifest.json", b"[]")], "no array of handlers"),
        ([("HandlerManifest.json", b'[{"handlerManifest": {}}]')], "without installCommand"),
        ([("HandlerManifest.json", b"\xff\xfe")], "is no zip that can be unpacked"),
        ([("../x", b"")], "would leave its folder"),
        ([("/x", b"")], "would leave its folder"),
        ([("a\\x", b"")], "a backslash in the name of an entry"),
        ([("x", b""), ("x", b"")], "two entries of one name"),
        ([("x", b""), ("x/y", b"")], "below a file"),
        ([("x", b"\0" * (64 << 20))], "more than agents take"),
    ],
)
def test_packages_that_are_refused(tmp_path: Path, entries: list[tuple[str, bytes]], words: str) -> None:
    refused(zipped(tmp_path / "p.zip", *entries), words)


@pytest.mark.parametrize(
    ("names", "words"), [(["c:x"], "a colon in the name of an entry"), (["x", "X"], "two entries of one name")]
)
def test_names_that_one_system_takes_and_the_other_does_not(tmp_path: Path, names: list[str], words: str) -> None:
    entries = [("HandlerManifest.json", manifest(**SIGNED)), *((name, b"") for name in names)]
    path = zipped(tmp_path / "p.zip", *entries)
    assert package.inspect(path, None, None, None, "linux", "any").target == "extensions/P.Q.T/1.2/linux.zip"
    refused(path, words, system="windows")


def test_files_that_are_no_packages(tmp_path: Path) -> None:
    refused(tmp_path / "none.zip", "cannot be read")
    (tmp_path / "p.zip").write_bytes(b"text")
    refused(tmp_path / "p.zip", "is no zip")
    link = zipfile.ZipInfo("x")
    link.external_attr = 0o120777 << 16
    refused(zipped(tmp_path / "p.zip", (link, b"/etc")), "neither file nor folder")
    path = zipped(tmp_path / "p.zip", ("HandlerManifest.json", manifest(**SIGNED)), (zipfile.ZipInfo("x"), b"content"))
    path.write_bytes(path.read_bytes().replace(b"content", b"contend"))
    refused(path, "does not have its checksum")


def test_packages_with_a_zip64_record(tmp_path: Path) -> None:
    path = widened(zipped(tmp_path / "p.zip", ("HandlerManifest.json", manifest(**SIGNED))))
    assert package.inspect(path, None, None, None, "linux", "any").target == "extensions/P.Q.T/1.2/linux.zip"

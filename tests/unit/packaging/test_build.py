# SPDX-License-Identifier: Apache-2.0
"""The builder of packages."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_packages", ROOT / "packaging" / "build_packages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder = _load()


@pytest.mark.parametrize(
    ("source", "version"), [('VERSION = "1.0.0.1"\n', "1.0.0.1"), ('"""Doc."""\nVERSION = "1.20.3.44"', "1.20.3.44")]
)
def test_the_version_is_read_and_replaced(source: str, version: str) -> None:
    assert builder.parse_version(source) == version
    assert builder.parse_version(builder.with_version(source, "9.8.7.6")) == "9.8.7.6"


@pytest.mark.parametrize("source", ["", 'VERSION = "1.0"', "VERSION = 1", 'OTHER = "1.0.0.1"'])
def test_a_missing_version_is_one_sentence_and_a_remedy(source: str) -> None:
    with pytest.raises(builder.BuildError, match=r"no VERSION of four numbers\. Write"):
        builder.parse_version(source)


def _archive(moment: float, names: list[str]) -> bytes:
    contents = {name: name.encode() for name in names}
    files = {"files": [{"name": name, "ftype": "file"} for name in names], "format": 1}
    contents["FILES.json"] = json.dumps(files).encode()
    digest = hashlib.sha256(contents["FILES.json"]).hexdigest()
    contents["MANIFEST.json"] = json.dumps({"file_manifest_file": {"chksum_sha256": digest}}).encode()
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname, member.mode = len(content), int(moment), "somebody", 0o644
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def test_archives_differ_only_in_what_they_hold() -> None:
    first = builder.normalised(_archive(2000, ["a", "b"]), 1000)
    second = builder.normalised(_archive(9000, ["b", "a"]), 1000)
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(first))) as tar:
        assert tar.getnames() == ["FILES.json", "MANIFEST.json", "a", "b"]
        assert {(member.mtime, member.uname) for member in tar.getmembers()} == {(1000, "")}
        contents = {name: file.read() for name in tar.getnames() if (file := tar.extractfile(name))}
    assert contents["a"] == b"a"
    named = json.loads(contents["MANIFEST.json"])["file_manifest_file"]["chksum_sha256"]
    assert named == hashlib.sha256(contents["FILES.json"]).hexdigest()


def test_the_same_checkout_gives_the_same_packages(tmp_path: Path) -> None:
    sums = []
    for name in ("one", "two"):
        argv = [sys.executable, str(ROOT / "packaging" / "build_packages.py"), "--out", str(tmp_path / name)]
        subprocess.run([*argv, "--only", "deb", "rpm", "hub-deb", "hub-rpm"], check=True, stdout=subprocess.DEVNULL)
        sums.append((tmp_path / name / "SHA256SUMS").read_text())
    assert sums[0] == sums[1]
    assert len(sums[0].splitlines()) == 4

# SPDX-License-Identifier: Apache-2.0
"""The packages of our extensions."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.unit.packaging.test_build import ROOT, builder

ROOMS = {path.parent.name for path in (ROOT / "handlers").glob("*/HandlerManifest.json")}


def test_the_same_checkout_gives_the_same_packages(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        argv = [sys.executable, str(ROOT / "packaging" / "build_packages.py"), "--out", str(tmp_path / name)]
        subprocess.run([*argv, "--only", "handlers"], check=True, stdout=subprocess.DEVNULL)
        found.append((tmp_path / name / "SHA256SUMS").read_text())
    assert found[0] == found[1]
    assert len(found[0].splitlines()) == len(ROOMS) == 2


def test_a_package_holds_its_folder_and_what_links_lead_to(tmp_path: Path) -> None:
    builder.build(tmp_path, kinds=["handlers"])
    for product in tmp_path.glob("*.zip"):
        with zipfile.ZipFile(product) as archive:
            manifest = json.loads(archive.read("HandlerManifest.json"))[0]
            signing = manifest["signingInfo"]
            room = ROOT / "handlers" / signing["type"]
            assert product.name == f"{signing['publisher']}.{signing['type']}_{signing['version']}_linux.zip"
            assert set(archive.namelist()) == {path.name for path in room.iterdir() if path.is_file()}
            for member in archive.infolist():
                assert archive.read(member) == (room / member.filename).read_bytes()
                assert member.external_attr >> 16 == (0o100755 if member.filename == "handler.py" else 0o100644)
            for key, command in manifest["handlerManifest"].items():
                assert not key.endswith("Command") or command.split()[0] in archive.namelist()


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("", "no signingInfo"),
        ("[]", "no signingInfo"),
        ('[{"handlerManifest": {}}]', "no signingInfo"),
        ('[{"signingInfo": {"publisher": "Our-own", "type": "Thing", "version": "1.0"}}]', "Our-own.Thing 1.0"),
        ('[{"signingInfo": {"publisher": "Hawser", "type": "Other", "version": "1.0"}}]', "Hawser.Other 1.0"),
        ('[{"signingInfo": {"publisher": "Hawser", "type": "Thing", "version": "1"}}]', "Hawser.Thing 1"),
    ],
)
def test_a_manifest_that_names_nothing_is_one_sentence(manifest: str, words: str) -> None:
    with pytest.raises(builder.BuildError, match=words):
        builder.handler_name(manifest, "Thing")

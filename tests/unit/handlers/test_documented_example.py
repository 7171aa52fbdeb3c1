# SPDX-License-Identifier: Apache-2.0
"""The handler of docs/extensions.md, as it stands there, run as an agent runs handlers."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.unit.handlers.conftest import ROOT, Instance

TEXT = (ROOT / "docs" / "extensions.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The one block of a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def example(tmp_path: Path) -> Instance:
    package = tmp_path / "Example.Motd_1.0.0_linux.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("HandlerManifest.json", block("json"))
        archive.writestr("handler.sh", block("sh").replace("/etc/motd", str(tmp_path / "motd")))
    return Instance(tmp_path / "waagent", package)


def test_it_does_what_the_contract_says(example: Instance, tmp_path: Path) -> None:
    assert example.run("install") == (0, "")
    assert example.enable(0, {"text": "Welcome."}) == (0, "")
    assert example.status(0)["status"] == "success"
    assert (tmp_path / "motd").read_text() == "Welcome.\n"
    (tmp_path / "motd").write_text("changed by hand\n")
    assert example.run("enable", 0) == (0, "")
    assert (tmp_path / "motd").read_text() == "changed by hand\n"
    code, _said = example.enable(1, {})
    assert code == 53
    assert (example.status(1)["status"], example.status(1)["code"]) == ("error", 53)
    for operation in ("disable", "update", "uninstall"):
        assert example.run(operation, 1) == (0, "")


def test_it_has_nothing_that_a_linter_finds() -> None:
    done = subprocess.run(["shellcheck", "-"], input=block("sh"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

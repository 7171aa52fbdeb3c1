# SPDX-License-Identifier: Apache-2.0
"""Environments of big client programs below .cache/clients, each from its own lock in requirements/, and the variables
that they are run with."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.demo import handout
from lab.demo.layout import Layout
from tests.integration.hub_process import HubProcess

ROOT = Path(__file__).resolve().parents[2]
PLACES = ROOT / ".cache" / "clients"


def newest_python(*versions: str) -> str:
    """The first interpreter of `versions` ('3.13', ..) on this machine."""
    for version in versions:
        homes = Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")
        for candidate in (shutil.which(f"python{version}"), *map(str, homes)):
            if candidate and subprocess.run([candidate, "-c", ""], check=False, capture_output=True).returncode == 0:
                return candidate
    pytest.skip(f"there is no Python {' or '.join(versions)} on this machine")


def environment(name: str, python: str) -> Path:
    """The folder `bin` of the environment with what requirements/NAME.txt locks; made anew when the lock changed."""
    lock = ROOT / "requirements" / f"{name}.txt"
    place, stamp = PLACES / name, PLACES / name / ".lock"
    wanted = hashlib.sha256(lock.read_bytes() + python.encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        uv = str(Path(sys.executable).with_name("uv"))
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([uv, "venv", "--quiet", "--python", python, str(place)], check=True)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(place / "bin" / "python")]
        subprocess.run([*install, "--require-hashes", "-r", str(lock)], check=True)
        stamp.write_text(wanted)
    return place / "bin"


def demo_variables(hub: HubProcess, principal: dict[str, Any], folder: Path) -> dict[str, str]:
    """What `.demo/env.sh` sets, here about this hub, with the files of `folder` that clients read."""
    layout = Layout(top=folder)
    secret = str(principal["clientSecret"])
    for path, text in ((layout.ca_bundle, Path(hub.ca_file).read_text()), (layout.secret, f"{secret}\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    access = handout.Access(hub.url, hub.tenant_id, hub.subscription_id, principal["clientId"])
    return handout.variables(access, layout, secret)

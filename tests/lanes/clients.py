# SPDX-License-Identifier: Apache-2.0
"""Environments of big client programs below .cache/clients, each from its own lock in requirements/."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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

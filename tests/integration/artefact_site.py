# SPDX-License-Identifier: Apache-2.0
"""What tests of packages share: an operator's keys, packages, and the agent's workers as a real process."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.hub_process import REPOSITORY, HubProcess

WORKER = REPOSITORY / "agent_runtime" / "workers" / "__main__.py"
COMMANDS = {f"{name}Command": f"./run.sh {name}" for name in ("install", "enable", "disable", "update", "uninstall")}


def manifest(version: str = "1.0.0", name: str = "Demo", **more: Any) -> bytes:
    """A HandlerManifest.json."""
    signing = {"publisher": "Hawser", "type": name, "version": version}
    return json.dumps([{"version": 1.0, "handlerManifest": {**COMMANDS, **more}, "signingInfo": signing}]).encode()


def make_package(path: Path, version: str = "1.0.0", name: str = "Demo", extra: bytes = b"") -> Path:
    """A handler's package; with `extra`, a file of those bytes beside."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("HandlerManifest.json", manifest(version, name))
        package.writestr("run.sh", "#!/bin/sh\nexit 0\n")
        if extra:
            package.writestr(zipfile.ZipInfo("extra.bin"), extra)
    return path


def work(verb: str, arguments: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
    """What the worker answers."""
    done = subprocess.run(
        [sys.executable, "-I", str(WORKER), verb],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@dataclass
class Site:
    """A hub with a repository, the operator's keys, and the folders of one machine."""

    hub: HubProcess
    keys: Path
    machine: Path

    def begin(self) -> None:
        """Make keys and a repository, sign and publish."""
        self.hub.run("artefacts", "keys", self.keys)
        self.hub.run(
            "artefacts", "init", "--root-key", self.keys / "root.pub", "--targets-key", self.keys / "targets.pub"
        )
        self.settle()

    def settle(self) -> None:
        """Sign what is staged, and publish it."""
        self.hub.run("artefacts", "sign", "--keys", self.keys)
        self.hub.run("artefacts", "publish")

    def offer(self, package: Path, *options: str) -> str:
        """Add, sign, publish; the target's path."""
        found = self.hub.json("artefacts", "add", str(package), *options)
        self.settle()
        return str(found["path"])

    def profile(self) -> dict[str, Any]:
        """The cloud profile of now."""
        found: dict[str, Any] = json.loads(self.hub.run("cloud-profile").stdout)
        return found

    def arguments(self, target: str, **more: Any) -> dict[str, Any]:
        """Of fetch-package, as extd would give them."""
        profile = self.profile()
        return {
            "artefacts": profile["artefacts"],
            "caPem": profile["ca_pem"],
            "tufRoot": profile["tuf_root"],
            "proxy": None,
            "metadata": str(self.machine / "tuf"),
            "downloads": str(self.machine / "downloads"),
            "target": target,
            **more,
        }

    def fetch(self, target: str, **more: Any) -> dict[str, Any]:
        """Run fetch-package."""
        return work("fetch-package", self.arguments(target, **more))

    @property
    def repository(self) -> Path:
        """DATA/artefacts."""
        return self.hub.data / "artefacts"

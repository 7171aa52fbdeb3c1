# SPDX-License-Identifier: Apache-2.0
"""Windows programs under Wine 10, in a root of Debian 13 that is made once and never changed.

Each `run` is a fresh machine: an overlay in memory over the root, no network, everything ended with the command.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import base

SUITE = "trixie"
PACKAGES = ("ca-certificates", "wine", "wine64")
_ENVIRONMENT = {
    "HOME": "/root",
    "WINEPREFIX": "/opt/prefix",
    "WINEDEBUG": "-all",
    "XDG_RUNTIME_DIR": "/run",
    "WINEDLLOVERRIDES": "mshtml=",
}
DRIVE_C = "/opt/prefix/drive_c"
# Wine's first start makes its registry and C:\windows: once, into the root.
_CUSTOMIZE = f"""set -eu
export {" ".join(f"{name}='{value}'" for name, value in _ENVIRONMENT.items())}
chroot "$1" sh -c 'wineboot --init </dev/null >/dev/null 2>&1; wineserver --wait'
test -d "$1{DRIVE_C}/windows/system32"
"""


@dataclass(frozen=True)
class Ended:
    """How a Windows program ended; `output` holds both of its streams."""

    code: int
    output: str


def path(cache: Path) -> Path:
    """Where the root of this recipe lies in a cache directory."""
    recipe = json.dumps({"suite": SUITE, "packages": PACKAGES, "customize": _CUSTOMIZE, "version": 1}, sort_keys=True)
    return cache / f"wine-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Wine:
    """`cache`: where the root is kept. `folders`: folders of this machine by where Windows sees them (below C:, with
    slashes), read only."""

    cache: Path
    folders: Mapping[str, Path] = field(default_factory=dict)

    def ensure(self) -> None:
        """Make the root when it is not there yet (about a minute and the distribution's mirror)."""
        base.made(path(self.cache), SUITE, PACKAGES, _CUSTOMIZE)

    def run(self, *argv: str, environment: Mapping[str, str] | None = None, seconds: float = 120) -> Ended:
        """Run a program by its Windows path or name with standard input from /dev/null.

        Errors: subprocess.TimeoutExpired.
        """
        binds = [
            f"--bind-ro={source}:{_escaped(f'{DRIVE_C}/{target}')}" for target, source in sorted(self.folders.items())
        ]
        told = {**_ENVIRONMENT, **(environment or {})}
        command = [
            "systemd-nspawn",
            "--quiet",
            f"--directory={path(self.cache)}",
            f"--machine=wine-{secrets.token_hex(4)}",
            "--volatile=overlay",
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--as-pid2",
            "--pipe",
            *(f"--setenv={name}={value}" for name, value in told.items()),
            *binds,
            "--",
            *_shell(argv),
        ]
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,  # standard error holds systemd-nspawn's own words alone
            timeout=seconds,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
        output = done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
        return Ended(done.returncode, output)


def _shell(argv: Sequence[str]) -> list[str]:
    """CPython ends at once on Wine's standard streams unless they are files or pipes."""
    return ["/bin/sh", "-c", 'wine "$@" </dev/null 2>&1', "wine", *argv]


def _escaped(target: str) -> str:
    return target.replace("\\", "\\\\").replace(":", "\\:")

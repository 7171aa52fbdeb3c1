# SPDX-License-Identifier: Apache-2.0
"""Packages of the agent that are not what they should be: a built deb, taken apart, changed and put together again."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

LAUNCHER = "opt/azcmagent/bin/himds"


def variant(deb: Path, version: str, folder: Path, spoil: Callable[[Path], None] = lambda _: None) -> Path:
    """The package as another version; `spoil` is given the tree before it is packed."""
    tree = folder / f"tree-{version}"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    module = tree / "opt/azcmagent/lib/agent_runtime/version.py"
    module.write_text(re.sub(r'VERSION = "[\d.]+"', f'VERSION = "{version}"', module.read_text()))
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    (tree / "DEBIAN/md5sums").unlink(missing_ok=True)
    spoil(tree)
    made = folder / f"azcmagent_{version}_all.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "--build", tree, made], check=True, stdout=subprocess.DEVNULL)
    return made


def mute(tree: Path) -> None:
    """A himds that never starts."""
    (tree / LAUNCHER).write_text("#!/bin/sh\nexit 1\n")


def unconfigurable(tree: Path) -> None:
    """A package whose postinst fails."""
    script = tree / "DEBIAN/postinst"
    script.write_text(
        "#!/bin/sh\n[ \"$1\" != configure ] || { echo 'no such luck' >&2; exit 7; }\n" + script.read_text()
    )

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


# What a newer version may do to state that the former one must read again: members that only the newer one knows.
NEWER = """
import glob, json, os
for top in ("/var/opt/azcmagent", "/var/lib/GuestConfig"):
    for path in glob.glob(f"{top}/**/*.json", recursive=True):
        if os.path.islink(path) or "/tuf/" in path:
            continue
        known = os.stat(path)
        with open(path) as file:
            content = json.load(file)
        with open(path + ".newer", "w") as file:
            json.dump({**content, "of the newer version": {"a": [1]}}, file)
        os.chown(path + ".newer", known.st_uid, known.st_gid)
        os.chmod(path + ".newer", known.st_mode & 0o7777)
        os.replace(path + ".newer", path)  # services and tests read meanwhile
        print("newer:", path)
"""


def mute(tree: Path) -> None:
    """A himds that never starts, of a version that has more to say in every file of state."""
    (tree / LAUNCHER).write_text("#!/bin/sh\nexit 1\n")
    (tree / "usr/share/azcmagent/newer").write_text(NEWER)
    script = tree / "DEBIAN/postinst"
    script.write_text(script.read_text() + '[ "$1" != configure ] || python3 /usr/share/azcmagent/newer >/root/newer\n')


def unconfigurable(tree: Path) -> None:
    """A package whose postinst fails."""
    script = tree / "DEBIAN/postinst"
    script.write_text(
        "#!/bin/sh\n[ \"$1\" != configure ] || { echo 'no such luck' >&2; exit 7; }\n" + script.read_text()
    )

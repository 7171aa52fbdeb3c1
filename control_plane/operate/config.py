# SPDX-License-Identifier: Apache-2.0
"""A look at a configuration before a hub is given it."""

from __future__ import annotations

from pathlib import Path

from control_plane import config
from control_plane.fleet import targets
from control_plane.storage import address


def check(data: Path, file: Path | None) -> tuple[Path, list[str]]:
    """What a start would refuse in `file`, else in the config.yaml of `data`. Files that it names are not opened: they
    are the host's, and may come later. Returns the file and the names of its sections.

    Errors: OperatorError.
    """
    path = file or data / config.CONFIG_FILE
    sections = config.read(path) if file is not None else config.load(data)
    targets.read(sections)
    database = sections.get("database", {})
    if "url" in database:
        address.url({"url": database["url"]})
    return path, [name for name in sections if sections[name]]

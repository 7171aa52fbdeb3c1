# SPDX-License-Identifier: Apache-2.0
"""Extension packages for measurements: a handler in shell, and as much ballast as is asked for."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

PUBLISHER, TYPE = "Bench", "Measured"
_COMMANDS = ("install", "enable", "disable", "update", "uninstall")
# What a handler must do and no more; its own part of enable comes first.
_HANDLER = """#!/bin/sh
case $1 in
enable)
{enable}
    echo '[{{"status": {{"status": "success"}}}}]' >"status/$ConfigSequenceNumber.status"
    ;;
disable)
{disable}
    ;;
esac
"""
_BLOCK = 1 << 20


def write(path: Path, version: str, *, enable: str = ":", disable: str = ":", ballast: int = 0) -> Path:
    """A package of a version at `path`, which is returned. `enable`, `disable`: shell of the handler, in its folder;
    `ballast`: bytes that cannot be compressed, in an entry that is stored as it is."""
    manifest = {
        "handlerManifest": {f"{name}Command": f"handler.sh {name}" for name in _COMMANDS},
        "signingInfo": {"publisher": PUBLISHER, "type": TYPE, "version": version},
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("HandlerManifest.json", json.dumps([manifest]))
        archive.writestr("handler.sh", _HANDLER.format(enable=enable, disable=disable))
        if ballast:
            with archive.open("ballast", "w", force_zip64=True) as entry:
                for start in range(0, ballast, _BLOCK):
                    entry.write(os.urandom(min(_BLOCK, ballast - start)))
    return path


def wish(version: str, **settings: object) -> dict[str, object]:
    """The body of a PUT of the extension; its location is the machine's."""
    properties = {"publisher": PUBLISHER, "type": TYPE, "typeHandlerVersion": version, "settings": settings}
    return {"properties": properties}

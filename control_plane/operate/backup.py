# SPDX-License-Identifier: Apache-2.0
"""`hawser-hub backup`: one file with everything that a hub is, taken while it runs.

A gzipped tar, 0600: hub.json, config.yaml, keys/, tables/ (storage/archive.py) and, last, manifest.json:
{format, taken, revision, url, lasts, files: {name: SHA-256}}. The tables are one snapshot; keys are read after it, so
that no key is older than a row that needs it. Whoever has the file is the hub: keep it as you keep the keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from control_plane import config, keyring
from control_plane.clock import now
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.settings import SETTINGS_FILE, sync

FORMAT = 1
MANIFEST = "manifest.json"
TABLES = "tables"
KEYS = "keys"


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def create(data: Path, target: Path) -> dict[str, Any]:
    """Write the backup of the hub in `data` to `target`, which must not exist. Returns its manifest.

    Errors: OperatorError; there is no file then.
    """
    exists = OperatorError(f"{target} exists.", "Name a file that does not; a backup is never overwritten.")
    if target.exists():
        raise exists  # before the work
    try:
        staging = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=".backup-"))
    except OSError as error:
        raise OperatorError(f"{target.parent} cannot be written ({error.strerror}).", "Name another place.") from error
    try:
        manifest = _collect(data, staging)
        partial = staging / "backup.tar.gz"
        _pack(staging, manifest, partial)
        os.link(partial, target)  # a rename would overwrite what has come there meanwhile
        sync(target.absolute().parent)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise OperatorError(
            f"The backup cannot be written ({error.strerror}).", "Free some space, or name another place."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _collect(data: Path, staging: Path) -> dict[str, Any]:
    (staging / TABLES).mkdir()
    (staging / KEYS).mkdir()
    with opened(data, any_revision=True) as (database, settings):
        taken = now()
        revision, lasts = database.dump(staging / TABLES)
    shutil.copyfile(data / SETTINGS_FILE, staging / SETTINGS_FILE)
    if (data / config.CONFIG_FILE).exists():
        shutil.copyfile(data / config.CONFIG_FILE, staging / config.CONFIG_FILE)
    for path in keyring.folder(data).iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, staging / KEYS / path.name)
            shutil.copymode(path, staging / KEYS / path.name)
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    named = {path.relative_to(staging).as_posix(): digest(path) for path in files}
    return {
        "format": FORMAT,
        "taken": taken,
        "revision": revision,
        "url": settings.url,
        "lasts": lasts,
        "files": named,
    }


def _pack(staging: Path, manifest: dict[str, Any], target: Path) -> None:
    """The manifest comes last: what it names was written before it."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as packed:
            for name in manifest["files"]:
                packed.add(staging / name, arcname=name, recursive=False)
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=1))
            packed.add(staging / MANIFEST, arcname=MANIFEST, recursive=False)
        stream.flush()
        os.fsync(stream.fileno())

# SPDX-License-Identifier: Apache-2.0
"""`hawser-hub restore`: a hub out of a backup. It is made whole beside what is there before anything of that moves;
hub.json leaves first and comes last, so that what is left by an interruption counts as no hub, and the command can be
run again."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from control_plane import config, settings
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.operate.backup import FORMAT, KEYS, MANIFEST, TABLES, digest
from control_plane.serve import lock
from control_plane.settings import SETTINGS_FILE
from control_plane.setup import operator
from control_plane.storage import address, audit, restored
from control_plane.storage.archive import SUFFIX
from control_plane.storage.database import DATABASE_FILE, Database, revisions
from control_plane.storage.engines import UNAVAILABLE, described

STAGING = ".restoring"
ASIDE = "aside.json"
"""In STAGING, once a hub makes way: the folder that it moves to, and the names of what it has."""
SQLITE = "sqlite"
_MAX_FILE = 64 << 30
_MADE = (KEYS, DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm", config.CONFIG_FILE)
_KEPT = frozenset({"hub.lock", "lost+found", "artefacts"})


def restore(
    data: Path, source: Path, *, force: bool = False, database: str | None = None, password_file: Path | None = None
) -> tuple[dict[str, Any], Path | None]:
    """Make the hub of the backup `source` in `data`. Returns the manifest, and where a hub that was there has gone.

    `force`: a hub that is in `data` is moved to DATA/replaced-TIME, and tables that are in a PostgreSQL are removed.
    `database`: another one than that of the backup's configuration: a URL of PostgreSQL, or `sqlite`.
    Errors: OperatorError; in `data` is then what was there before.
    """
    if database not in (None, SQLITE):
        address.url({"url": database})
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(data, 0o700)
    staging = data / STAGING
    with _locked(data):
        _recover(data, staging)
        _check_empty(data, force=force)
        try:
            staging.mkdir(mode=0o700)
            manifest = _unpack(source, staging)
            _name_database(staging, database, password_file)
            where = address.of(staging, config.load(staging))
            _fill(Database(where), staging, manifest, force=force)
            aside = _settle(data, staging)
        except OSError as error:
            _recover(data, staging)
            raise OperatorError(
                f"{error.filename or data} cannot be written ({error.strerror}).", "Free some space; run it again."
            ) from error
        except BaseException:
            _recover(data, staging)
            raise
    return manifest, aside


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    held = lock(data)
    try:
        yield
    finally:
        os.close(held)


def _check_empty(data: Path, *, force: bool) -> None:
    """Errors: OperatorError."""
    if settings.is_initialised(data):
        if not force:
            raise OperatorError(
                f"There is a hub in {data}.", "Name an empty directory with --data, or move it away with --force."
            )
        return
    names = {path.name for path in data.iterdir()} - _KEPT
    if any(not name.startswith("replaced-") for name in names):
        raise OperatorError(
            f"{data} is not empty: {', '.join(sorted(names)[:5])}.", "Name an empty directory with --data."
        )


def _recover(data: Path, staging: Path) -> None:
    """Undo what an interrupted restore has done; may be interrupted itself. A hub that made way is there again."""
    if not staging.exists():
        return
    aside, had = _set_aside(data, staging)
    if not settings.is_initialised(data):
        for name in _MADE:
            if name not in had or (aside / name).exists():
                _remove(data / name)
        for name in (*had, SETTINGS_FILE) if had else ():
            if (aside / name).exists():
                os.replace(aside / name, data / name)
        settings.sync(data)
    if had:
        with suppress(OSError):  # a hub that made way is in it, or it was never made
            aside.rmdir()
    shutil.rmtree(staging)


def _set_aside(data: Path, staging: Path) -> tuple[Path, list[str]]:
    """Where the hub that was there goes, and what it has; nothing where there is none."""
    try:
        found = json.loads((staging / ASIDE).read_bytes())
    except FileNotFoundError:
        return staging, []
    return data / found["folder"], found["names"]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _allowed(name: str) -> bool:
    folder, _, rest = name.rpartition("/")
    plain = bool(rest) and not rest.startswith(".") and "\\" not in rest and "\0" not in rest
    if folder == TABLES:
        return plain and rest.endswith(SUFFIX)
    return plain and (folder == KEYS or (not folder and rest in (SETTINGS_FILE, config.CONFIG_FILE, MANIFEST)))


def _unpack(source: Path, staging: Path) -> dict[str, Any]:
    """Errors: OperatorError unless every file of the backup is there, whole, and nothing else."""
    damaged = OperatorError(f"{source} is damaged or no backup of a hub.", "Use another backup.")
    (staging / TABLES).mkdir()
    (staging / KEYS).mkdir(mode=0o700)
    found: dict[str, str] = {}
    try:
        with tarfile.open(source, mode="r:gz") as packed:
            for member in packed:
                if not member.isreg() or not _allowed(member.name) or member.name in found or member.size > _MAX_FILE:
                    raise damaged
                stream = packed.extractfile(member)
                if stream is None:
                    raise damaged
                mode = 0o644 if member.mode & 0o044 else 0o600
                with open(os.open(staging / member.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as target:
                    shutil.copyfileobj(stream, target)
                    target.flush()
                    os.fsync(target.fileno())
                found[member.name] = digest(staging / member.name)
        manifest: dict[str, Any] = json.loads((staging / MANIFEST).read_bytes())
        found.pop(MANIFEST)
        if manifest["files"] != found or SETTINGS_FILE not in found:
            raise damaged
        taken, revision = int(manifest["taken"]), str(manifest["revision"])
        lasts = {str(name): int(last) for name, last in manifest["lasts"].items()}
    except FileNotFoundError:
        if not source.exists():
            raise OperatorError(f"There is no file {source}.", "Name a backup.") from None
        raise damaged from None
    except (
        tarfile.TarError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        gzip.BadGzipFile,
        zlib.error,
    ) as error:
        raise damaged from error
    if manifest.get("format") != FORMAT or revision not in revisions():
        raise OperatorError(
            f"This program does not know format {manifest.get('format')} and revision {revision} of the backup.",
            "Restore it with the hawser-hub that made it, or a newer one.",
        )
    settings.load(staging)
    return {**manifest, "taken": taken, "revision": revision, "lasts": lasts}


def _name_database(staging: Path, database: str | None, password_file: Path | None) -> None:
    if database is None:
        return
    path = staging / config.CONFIG_FILE
    sections = (yaml.safe_load(path.read_bytes()) if path.exists() else None) or {}
    sections.pop("database", None)
    if database != SQLITE:
        sections["database"] = {"url": database}
        if password_file is not None:
            sections["database"]["password_file"] = str(password_file.absolute())
    settings.write_file(path, yaml.safe_dump(sections, sort_keys=False).encode())


def _fill(database: Database, staging: Path, manifest: dict[str, Any], *, force: bool) -> None:
    """Errors: OperatorError; a PostgreSQL is as it was then, unless `force` has emptied it."""
    try:
        database.check()
        database.load(staging / TABLES, manifest["revision"], manifest["lasts"], clear=force)
        database.migrate()
        if database.path is not None:
            os.chmod(database.path, 0o600)
        with database.write() as session:
            restored.mark(session, manifest["taken"], now())
            audit.record(session, operator(), "hub/restore", manifest["url"], detail={"taken": manifest["taken"]})
    except UNAVAILABLE as error:
        raise OperatorError(
            f"The database cannot be filled ({described(error)}).", "Check rights and free space; run it again."
        ) from error
    finally:
        database.close()


def _settle(data: Path, staging: Path) -> Path | None:
    """Everything to its place; hub.json, which makes it a hub, last. Returns where a hub that was there has gone."""
    aside = _make_way(data, staging) if settings.is_initialised(data) else None
    for name in (KEYS, DATABASE_FILE, config.CONFIG_FILE):
        if (staging / name).exists():
            os.replace(staging / name, data / name)
    settings.sync(data)
    os.replace(staging / SETTINGS_FILE, data / SETTINGS_FILE)
    settings.sync(data)
    shutil.rmtree(staging)
    return aside


def _make_way(data: Path, staging: Path) -> Path:
    aside = data / f"replaced-{rfc3339(now()).replace(':', '')}"
    names = [name for name in _MADE if (data / name).exists()]
    settings.write_file(staging / ASIDE, json.dumps({"folder": aside.name, "names": names}).encode())
    aside.mkdir(mode=0o700)
    for name in (SETTINGS_FILE, *names):
        os.replace(data / name, aside / name)
    settings.sync(aside)
    return aside

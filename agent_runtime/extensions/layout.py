# SPDX-License-Identifier: Apache-2.0
"""Folders and files of handlers on this machine (docs/protocol.md section 15.4)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional

from agent_runtime.extensions import environment, events, manifest, settings, status
from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic

_LAST = (manifest.NAME, environment.FILE)
# Where handlers keep the number that they ran last; those of several extensions NAME.mrseq.
_SEQUENCE = "mrseq"


class Layout:
    """Where a handler's files lie; `handler` is its full name."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def folder(self, handler: str, version: str) -> str:
        return os.path.join(self._paths.handlers, f"{handler}-{version}")

    def logs(self, handler: str, version: str) -> str:
        return os.path.join(self._paths.extension_logs, f"{handler}-{version}")

    def status(self, handler: str, version: str, sequence: int, extension: Optional[str]) -> str:
        name = settings.file_name(sequence, extension, "status")
        return os.path.join(self.folder(handler, version), "status", name)

    def settings(self, handler: str, version: str, sequence: int, extension: Optional[str]) -> str:
        name = settings.file_name(sequence, extension)
        return os.path.join(self.folder(handler, version), "config", name)

    def manifest_of(self, handler: str, version: str) -> manifest.Manifest:
        """Of an unpacked version. Errors: OSError, ValueError."""
        return manifest.parse(atomic.read_bytes(os.path.join(self.folder(handler, version), manifest.NAME)))

    def is_whole(self, handler: str, version: str) -> bool:
        """Whether the version is there as it was unpacked, as far as a look tells."""
        return os.path.isfile(os.path.join(self.folder(handler, version), manifest.NAME))

    def furnish(self, handler: str, version: str) -> manifest.Manifest:
        """Puts into a freshly unpacked folder what handlers expect, and reads its manifest. Errors: OSError;
        FileNotFoundError when there is no manifest, ValueError when it cannot be used."""
        folder, logs = self.folder(handler, version), self.logs(handler, version)
        place = os.path.join(folder, manifest.NAME)
        content = atomic.read_bytes(_find(folder))
        found = manifest.parse(content)
        if not os.path.isfile(place) or manifest.without_mark(content) != content:
            atomic.write_bytes(place, manifest.without_mark(content))
        for name in ("config", "status"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
            os.chmod(os.path.join(folder, name), 0o700)
        os.chmod(folder, 0o700)
        os.makedirs(logs, mode=0o750, exist_ok=True)
        os.makedirs(os.path.join(logs, events.FOLDER), mode=0o700, exist_ok=True)
        atomic.write_bytes(
            os.path.join(folder, environment.FILE), environment.text(handler, folder, logs).encode("ascii")
        )
        return found

    def keep(self, handler: str, old: str, new: str) -> None:
        """Brings the results of the old version to the new one before others are written over them, and notes what it
        has brought. Errors: OSError."""
        source = os.path.join(self.folder(handler, old), "status")
        for folder in (self._memory(handler), self.folder(handler, new)):
            _copy(source, os.path.join(folder, "status"), _names(source))

    def carry(self, handler: str, old: str, new: str) -> None:
        """Brings sequence memory, what has no result yet and what has got one since `keep` to the new version, so that
        it runs nothing again, and keeps all of it outside of either. Errors: OSError."""
        source, target, memory = self.folder(handler, old), self.folder(handler, new), self._memory(handler)
        _copy(source, target, (_SEQUENCE,))
        said, taken, noted = (os.path.join(folder, "status") for folder in (source, target, memory))
        _copy(said, taken, [name for name in _names(said) if _is_due(name, said, taken, noted)])
        # Those of several extensions are brought over by their handler's own update, or not, when it fails.
        _copy(source, memory, [name for name in _names(source) if name == _SEQUENCE or name.endswith(f".{_SEQUENCE}")])
        _copy(taken, noted, _names(taken))

    def recall(self, handler: str, version: str) -> None:
        """Brings what `carry` has kept to a version that was unpacked after it: another try, or the former one again.
        Errors: OSError."""
        memory, target = self._memory(handler), self.folder(handler, version)
        _copy(memory, target, _names(memory))
        noted = os.path.join(memory, "status")
        _copy(noted, os.path.join(target, "status"), _names(noted))

    def forget(self, handler: str) -> None:
        """Removes what `carry` has kept. Errors: OSError."""
        _remove(self._memory(handler))

    def drop(self, handler: str, version: Optional[str], extension: str) -> None:
        """Removes what is left of one extension of a handler that has several, in the installed version (None: there is
        none) and in what `carry` has kept. Errors: OSError."""
        for folder in (self._memory(handler), *([self.folder(handler, version)] if version is not None else ())):
            atomic.unlink(os.path.join(folder, f"{extension}.{_SEQUENCE}"))
            for below, ending in (("config", ".settings"), ("status", ".status")):
                for name in _names(os.path.join(folder, below)):
                    middle = name[len(extension) + 1 : -len(ending)]
                    if name.startswith(f"{extension}.") and name.endswith(ending) and middle.isdigit():
                        atomic.unlink(os.path.join(folder, below, name))
            atomic.unlink(os.path.join(folder, "config", f"{extension}.HandlerState"))

    def _memory(self, handler: str) -> str:
        return os.path.join(self._paths.extensions, "memory", handler.lower())

    def delete(self, handler: str, version: str) -> None:
        """Removes an unpacked version. What an uninstall that goes on by itself removes meanwhile is no error; manifest
        and environment go last: without them nobody could remove the rest. Errors: OSError."""
        folder = self.folder(handler, version)
        if os.path.islink(folder):
            os.unlink(folder)
            return
        with contextlib.suppress(FileNotFoundError), _opened(folder) as at:
            for name in [name for name in os.listdir(at) if name not in _LAST] + list(_LAST):
                _remove(name, at)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(folder)

    def trim_events(self, handlers: Iterable[tuple[str, str]]) -> None:
        """Removes what is too much of the events of these handlers and versions, and of those that old libraries of
        handlers write beside the handlers."""
        for handler, version in handlers:
            events.trim(os.path.join(self.logs(handler, version), events.FOLDER))
        events.trim(os.path.join(self._paths.handlers, events.FOLDER))

    def certificate(self, thumbprint: str) -> tuple[str, str]:
        """Certificate and key that a handler opens its protected settings with."""
        base = os.path.join(self._paths.handlers, thumbprint)
        return f"{base}.crt", f"{base}.prv"

    def forget_certificate(self, thumbprint: str) -> None:
        """Errors: OSError."""
        for path in self.certificate(thumbprint):
            atomic.unlink(path)

    def mirror(
        self, handler: str, version: str, state: str, health: Mapping[str, Any], several: Mapping[str, bool]
    ) -> None:
        """What our own store says, for tools that look where the reference host keeps it (extension-handler.md sections
        10, 14 and 16). `health`: status, code and message of the handler; `several`: whether each of several extensions
        is enabled, by name."""
        told = {"HandlerState": state, "HandlerStatus": json.dumps({"name": handler, "version": version, **health})}
        told |= {f"{name}.HandlerState": "enabled" if is_on else "disabled" for name, is_on in several.items()}
        folder = os.path.join(self.folder(handler, version), "config")
        with contextlib.suppress(OSError):
            for name, text in told.items():
                atomic.write_bytes(os.path.join(folder, name), text.encode("ascii"), durable=False)


def _find(folder: str) -> str:
    """The manifest's path: at the root, or at the one place where it lies nested. Errors: FileNotFoundError."""
    root = os.path.join(folder, manifest.NAME)
    if os.path.isfile(root):
        return root
    found = [os.path.join(at, manifest.NAME) for at, _, names in os.walk(folder) if manifest.NAME in names]
    if len(found) != 1:
        raise FileNotFoundError(2, "there is no manifest in the package" if not found else "it has several", root)
    return found[0]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _copy(source: str, target: str, names: Iterable[str]) -> None:
    """Copies plain files durably; anything else, and what is longer than anybody reads, stays behind. Errors:
    OSError."""
    os.makedirs(target, mode=0o700, exist_ok=True)
    for name in names:
        path = os.path.join(source, name)
        if atomic.is_temporary(name) or os.path.islink(path) or not os.path.isfile(path):
            continue
        try:
            content = atomic.read_bytes(path)
        except (FileNotFoundError, ValueError):
            continue
        atomic.write_bytes(os.path.join(target, name), content)


def _is_due(name: str, said: str, taken: str, noted: str) -> bool:
    """Whether the old version's status file `name`, in `said`, is to be taken: in `taken` the new one has none, or the
    one that was noted, which says that work goes on that has ended since. What the new version has written is its
    own."""
    kept = _content(taken, name)
    if kept is None:
        return not os.path.lexists(os.path.join(taken, name))
    before, now = _verdict(kept), _verdict(_content(said, name))
    is_going_on = before is None or before.state == "transitioning"
    if not is_going_on or now is None or now.state == "transitioning" or kept != _content(noted, name):
        return False
    # What a handler says of its being disabled is no result of what it was enabled for.
    return str((now.status or {}).get("operation")).lower() != "disable"


def _content(folder: str, name: str) -> Optional[bytes]:
    try:
        return atomic.read_bytes(os.path.join(folder, name))
    except (OSError, ValueError):
        return None


def _verdict(content: Optional[bytes]) -> Optional[status.Verdict]:
    """What a status file says; None when nobody can understand it."""
    with contextlib.suppress(status.NotYet):
        found = status.verdict(content or b"")
        return found if found.status is not None else None
    return None


def _remove(name: str, at: Optional[int] = None) -> None:
    """Removes a file, or a folder with what is in it; `at`: the open folder that it is in, for a name alone. What
    another user's processes swap meanwhile leads nowhere else: no link is followed, and nothing in a folder is looked
    up by its path. Errors: OSError."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=at)
        except IsADirectoryError:
            with _opened(name, at) as below:
                for inner in os.listdir(below):
                    _remove(inner, below)
            os.rmdir(name, dir_fd=at)


@contextlib.contextmanager
def _opened(name: str, at: Optional[int] = None) -> Iterator[int]:
    """A descriptor of a folder that is no link. Errors: OSError."""
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(name, flags, dir_fd=at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

# SPDX-License-Identifier: Apache-2.0
"""Files from the hub for workers: one trusted CA, a proxy by CONNECT, a limit to each wait, and packages that go on
where the connection broke. Memory stays flat, whatever the length."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import os
import random
import shutil
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Optional
from urllib.parse import unquote, urlsplit

from agent_runtime import errors
from agent_runtime.hub import backoff
from agent_runtime.hub.proxy import reason
from agent_runtime.platform import local
from agent_runtime.state import atomic

WAIT_SECONDS = 60.0
"""For a connection, and for the next bytes of an answer."""
TRIES = 10
PROGRESS = 1 << 20
"""A try that brought so many bytes is not counted."""
BLOCK = 1 << 16
LAST_PAUSE = 30.0
STALE_SECONDS = 86400.0
_SLOW = "Nothing: it goes on by itself where it was left"


class Broken(Exception):
    """There was no whole answer. The text says why in a few words."""


def pause(failures: int) -> None:
    """Wait before the next try."""
    time.sleep(backoff.delay(failures, random.random(), last=LAST_PAUSE))


class Answer:
    """The head of an answer, and its body in blocks."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.range = response.headers.get("Content-Range", "")

    def blocks(self) -> Iterator[bytes]:
        """The body. Errors: Broken, also when it ends early."""
        while True:
            try:
                block = self._response.read(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise Broken(_why(error)) from None
            if not block:
                # http.client ends quietly where the connection does, and knows what it was promised.
                if self._response.length:
                    raise Broken("the connection broke")
                return
            yield block


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        # What a proxy refuses has no number.
        return reason(error)
    return "the answer is no HTTP, or ended early"


class Line:
    """The way to the hub. `proxy`: `http://[user:password@]host:port` or None."""

    def __init__(self, context: ssl.SSLContext, proxy: Optional[str]) -> None:
        self._context, self._proxy = context, proxy

    @contextlib.contextmanager
    def get(self, url: str, start: int = 0) -> Iterator[Answer]:
        """GET an https URL, from a byte on. Errors: Broken."""
        parts = urlsplit(url)
        connection = self._connection(parts.hostname or "", parts.port or 443)
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            try:
                connection.request("GET", parts.path, headers=headers)
                answer = Answer(connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                raise Broken(_why(error)) from None
            yield answer
        finally:
            connection.close()

    def _connection(self, host: str, port: int) -> http.client.HTTPSConnection:
        if self._proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=WAIT_SECONDS, context=self._context)
        at = urlsplit(self._proxy)
        connection = http.client.HTTPSConnection(
            at.hostname or "", at.port or 80, timeout=WAIT_SECONDS, context=self._context
        )
        fields = {}
        if at.username is not None:
            pair = f"{unquote(at.username)}:{unquote(at.password or '')}".encode()
            fields["Proxy-Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
        connection.set_tunnel(host, port, fields)
        return connection


@dataclass(frozen=True)
class Wanted:
    """A package: where it may be had, where it shall be, and what it is. `until`: when it is left for now, as
    time.monotonic() counts."""

    urls: list[str]
    path: str
    length: int
    sha256: str
    until: float = float("inf")

    @property
    def part(self) -> str:
        """As far as it has come. It names what it is a part of, for another package may have had the name."""
        return f"{self.path}.{self.sha256[:16]}.part"


class _Wrong(Exception):
    """The bytes are others than those that were signed. `whole`: all of them came in this very try."""

    def __init__(self, whole: bool) -> None:
        super().__init__("wrong")
        self.whole = whole


class _LateError(Exception):
    """The time is over, and the package is not there."""


class _Refused(Exception):
    """The hub answered, and has not got it."""


def package(line: Line, wanted: Wanted) -> None:
    """Have the package at its place, whole and verified. Errors: NetworkFailed after TRIES tries, and when its time is
    over, with a `retry_after` of 0 when much has come in that time; ExtensionNotAdded when its bytes are wrong;
    OSError."""
    _sweep(os.path.dirname(wanted.path), os.path.basename(wanted.part))
    if _is(wanted.path, wanted):
        return
    failures = 0
    told = ""
    begun = _size(wanted.part)
    while failures < TRIES:
        url = wanted.urls[failures % len(wanted.urls)]
        before = _size(wanted.part)
        try:
            _attempt(line, url, wanted)
        except _Wrong as wrong:
            atomic.unlink(wanted.part)
            if wrong.whole and failures + 1 >= len(wanted.urls):
                raise errors.ExtensionNotAdded(
                    f"{url} is not the package that was signed: its SHA-256 is another one",
                    "Publish the package again at the hub",
                ) from None
            told = "its content was damaged"
        except _LateError:
            there = _size(wanted.part)
            message = f"{url} takes long: {there} of {wanted.length} bytes are there"
            moves = there - begun >= PROGRESS
            raise errors.NetworkFailed(message, _SLOW, 0.0 if moves else None) from None
        except (Broken, _Refused) as problem:
            told = str(problem)
            if _size(wanted.part) - before >= PROGRESS:
                failures = 0
        else:
            os.replace(wanted.part, wanted.path)
            local.sync_folder(os.path.dirname(wanted.path))
            return
        failures += 1
        if failures < TRIES:
            pause(failures)
    raise errors.NetworkFailed(f"{wanted.urls[0]} could not be downloaded in {TRIES} tries: {told}")


def _attempt(line: Line, url: str, wanted: Wanted) -> None:
    """Go on with the part, to its end. Errors: Broken, _Refused, _Wrong, _LateError, OSError; the part is as long as it
    got."""
    if time.monotonic() > wanted.until:
        raise _LateError
    digest = hashlib.sha256()
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(wanted.part, flags, 0o600), "r+b") as file:
        start = _hashed(file, digest, wanted.length)
        _check_room(wanted, start)
        if start < wanted.length or not wanted.length:
            with line.get(url, start) as answer:
                if answer.status == 200 and start:  # it does not know ranges
                    start, digest = 0, hashlib.sha256()
                    file.seek(0)
                    file.truncate()
                elif answer.status == 206 and not answer.range.startswith(f"bytes {start}-"):
                    raise _Refused(f"it answered with other bytes than those asked for ({answer.range})")
                elif answer.status != (206 if start else 200):
                    raise _Refused(f"it answered with status {answer.status}")
                _receive(answer, file, digest, wanted.length - start, wanted.until)
        file.flush()
        os.fsync(file.fileno())
        if digest.hexdigest() != wanted.sha256:
            raise _Wrong(start == 0)


def _receive(answer: Answer, file: BinaryIO, digest: hashlib._Hash, left: int, until: float) -> None:
    try:
        for block in answer.blocks():
            left -= len(block)
            if left < 0:
                raise _Wrong(True)
            file.write(block)
            digest.update(block)
            if left and time.monotonic() > until:
                raise _LateError
    finally:
        file.flush()
    if left:
        raise Broken("the connection broke")


def _hashed(file: BinaryIO, digest: hashlib._Hash, limit: int) -> int:
    """Feed what is there already; how much it is. What is beyond the package's length is cut off."""
    file.truncate(min(os.fstat(file.fileno()).st_size, limit))
    size = 0
    while True:
        block = file.read(BLOCK)
        if not block:
            return size
        digest.update(block)
        size += len(block)


def _is(path: str, wanted: Wanted) -> bool:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != wanted.length:
                return False
            digest = hashlib.sha256()
            while True:
                block = file.read(BLOCK)
                if not block:
                    return digest.hexdigest() == wanted.sha256
                digest.update(block)
    except FileNotFoundError:
        return False


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _check_room(wanted: Wanted, there: int) -> None:
    folder = os.path.dirname(wanted.path)
    free = shutil.disk_usage(folder).free
    if free < wanted.length - there:
        raise errors.ExtensionFailed(
            f"the package needs {wanted.length - there} bytes more in {folder}, where {free} are free"
        )


def _sweep(folder: str, mine: str) -> None:
    """Parts that nobody goes on with."""
    before = time.time() - STALE_SECONDS
    for entry in os.scandir(folder):
        stale = entry.stat(follow_symlinks=False).st_mtime < before or _same_package(entry.name, mine)
        if entry.name.endswith(".part") and entry.name != mine and stale:
            atomic.unlink(entry.path)


def _same_package(name: str, mine: str) -> bool:
    """Whether a part is of other bytes for the same place."""
    return name.rsplit(".", 2)[0] == mine.rsplit(".", 2)[0]


def unkept(error: OSError, folder: str) -> errors.AgentError:
    """What is told when a file cannot be made, read or written."""
    path = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.ExtensionFailed(f"there is no space left for {path}")
    return errors.ExtensionFailed(
        f"{path} cannot be read or written: {error.strerror or error}", "See that root may write there"
    )

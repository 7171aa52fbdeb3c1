# SPDX-License-Identifier: Apache-2.0
"""The local socket: frames of a length and JSON, and who may ask for what (docs/protocol.md section 10)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from agent_runtime import errors
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop, Timeout, TimeoutExpired, readable, sleep, writable

FRAME_LIMIT = 1024 * 1024
CONNECTIONS = 64
CONNECTIONS_PER_USER = 8
REQUEST_SECONDS = 10.0
ACCEPT_PAUSE = 5.0
PUBLIC = frozenset({"status"})
HIMDS_LOG = "himds.log"

Progress = Callable[[int, str], None]


class Stream:
    """Frames over a connected, non-blocking socket."""

    def __init__(self, connection: socket.socket, uid: int = -1) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.uid = uid
        self.closed = False
        self._buffer = b""
        self._out: list[bytes] = []
        self._draining = False

    async def receive(self) -> dict[str, Any] | None:
        """The next frame; None when the peer has closed. Errors: ValueError for what is no frame."""
        while True:
            if len(self._buffer) >= 4:
                (length,) = struct.unpack(">I", self._buffer[:4])
                if length > FRAME_LIMIT:
                    raise ValueError("the frame is too long")
                if len(self._buffer) >= 4 + length:
                    body, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
                    try:
                        found = json.loads(body)
                    except RecursionError:
                        raise ValueError("the frame is nested too deeply") from None
                    if not isinstance(found, dict):
                        raise ValueError("the frame is not a JSON object")
                    return found
            await readable(self.socket)
            try:
                block = self.socket.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                return None
            if not block:
                return None
            self._buffer += block

    def queue(self, message: dict[str, Any]) -> None:
        """Put a frame behind those that wait; `drain` or the next `send` takes it along."""
        body = json.dumps(message).encode("ascii")
        self._out.append(struct.pack(">I", len(body)) + body)

    async def send(self, message: dict[str, Any]) -> None:
        """Send a frame; frames of concurrent senders keep their order. Errors: OSError when the peer is gone."""
        self.queue(message)
        await self.drain()

    async def drain(self) -> None:
        """Send what waits, unless somebody does already. Errors: OSError when the peer is gone."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._out:
                view = memoryview(self._out[0])
                while view:
                    try:
                        view = view[self.socket.send(view) :]
                    except BlockingIOError:
                        await writable(self.socket)
                self._out.pop(0)
        except BaseException:
            self._out.clear()
            raise
        finally:
            self._draining = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.socket.close()


Handler = Callable[[Stream, dict[str, Any], Progress], Awaitable[dict[str, Any]]]


class Server:
    """Listens at `path` and answers verbs out of `handlers`."""

    def __init__(self, loop: Loop, path: str, handlers: dict[str, Handler], log: Log) -> None:
        self._loop = loop
        self._path = path
        self._handlers = handlers
        self._log = log
        self._streams: set[Stream] = set()
        self._kept: dict[Stream, Callable[[], None]] = {}

    def keep(self, stream: Stream, gone: Callable[[], None]) -> None:
        """A service said hello: its connection stays open between requests; `gone` is called when it ends."""
        self._kept[stream] = gone

    async def serve(self) -> None:
        """Accept until cancelled."""
        if sys.platform == "win32":
            raise errors.NotSupported("this release has no services on Windows")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self._path)
            os.chmod(self._path, 0o666)  # noqa: S103 - who may do what is decided by peer credentials
            listener.listen(64)
            listener.setblocking(False)
            while True:
                await readable(listener)
                try:
                    self._admit(listener.accept()[0])
                except (BlockingIOError, ConnectionError):
                    continue
                except OSError as problem:  # no descriptors left: those that are open end in time
                    self._log.error(f"the local socket cannot accept: {problem.strerror}")
                    await sleep(ACCEPT_PAUSE)
        finally:
            listener.close()
            for stream in list(self._streams):
                stream.close()

    def _admit(self, connection: socket.socket) -> None:
        uid = peer(connection)
        others = sum(1 for stream in self._streams if stream.uid == uid)
        if uid != 0 and (others >= CONNECTIONS_PER_USER or len(self._streams) >= CONNECTIONS):
            connection.close()
            return
        stream = Stream(connection, uid)
        self._streams.add(stream)
        self._loop.spawn(self._attend(stream), f"local socket, uid {uid}")

    async def _attend(self, stream: Stream) -> None:
        try:
            while True:
                try:
                    if stream in self._kept:
                        request = await stream.receive()
                    else:
                        with Timeout(self._loop, REQUEST_SECONDS):
                            request = await stream.receive()
                except (ValueError, TimeoutExpired):
                    return
                if request is None:
                    return
                await self._answer(stream, request)
        except OSError:
            return
        finally:
            self._streams.discard(stream)
            stream.close()
            gone = self._kept.pop(stream, None)
            if gone is not None:
                gone()

    async def _answer(self, stream: Stream, request: dict[str, Any]) -> None:
        number = request.get("id")

        def progress(percent: int, step: str) -> None:
            report = {"v": 1, "id": number, "progress": {"percent": percent, "step": step}}
            stream.queue(report)  # at once, so that it never comes after the answer
            self._loop.spawn(_quietly(stream.drain()), "progress")

        try:
            handler = self._permitted(stream, request)
            arguments = request.get("args")
            answer = {
                "ok": True,
                "result": await handler(stream, arguments if isinstance(arguments, dict) else {}, progress),
            }
        except errors.AgentError as error:
            answer = {"ok": False, "error": error.as_dict()}
        except Exception as problem:  # noqa: BLE001 - whoever asked gets an answer, whatever happened
            self._log.error(f"AZCM0002: {request.get('verb')}: {type(problem).__name__}: {problem}")
            why = problem.strerror if isinstance(problem, OSError) and problem.strerror else type(problem).__name__
            failed = errors.InternalError(f"himds failed: {why}", f"Look into {HIMDS_LOG}, then run the command again")
            answer = {"ok": False, "error": failed.as_dict()}
        await stream.send({"v": 1, "id": number, **answer})

    def _permitted(self, stream: Stream, request: dict[str, Any]) -> Handler:
        if request.get("v") != 1:
            raise errors.ParameterInvalid(
                "this himds speaks version 1 of the local socket", "Use the CLI of its package"
            )
        verb = request.get("verb")
        handler = self._handlers.get(verb) if isinstance(verb, str) else None
        if handler is None:
            raise errors.ParameterInvalid(f"himds knows no verb {str(verb)[:40]!r}", "Use the CLI of its package")
        if verb not in PUBLIC and stream.uid != 0:
            self._log.warning(f"uid {stream.uid} asked for {verb} and was refused")
            raise errors.NotPrivileged(f"only root may ask himds for {verb}", "Run the command as root")
        return handler


async def _quietly(sending: Awaitable[None]) -> None:
    with contextlib.suppress(OSError):
        await sending


def peer(connection: socket.socket) -> int:
    """The user at the other end, told by the kernel."""
    if sys.platform == "win32":
        raise errors.NotSupported("this release has no services on Windows")
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


async def connect(path: str) -> Stream:
    """A stream to the server at `path`. Errors: OSError."""
    if sys.platform == "win32":
        raise errors.NotSupported("this release has no services on Windows")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return Stream(connection)

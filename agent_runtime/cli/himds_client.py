# SPDX-License-Identifier: Apache-2.0
"""The command line's end of the local socket (docs/protocol.md section 10): one request, progress, one answer."""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from typing import Any, Callable

from agent_runtime import errors

FRAME_LIMIT = 1024 * 1024
STATUS_TIMEOUT = 10.0
# A connect as a whole has 600 s (protocol section 13); himds answers before that.
LONG_TIMEOUT = 660.0
_LONG = ("connect", "disconnect", "set_tags", "checkin")
REMEDY = "Start it with: systemctl start himdsd; and see himds.log"


class ConnectionLost(errors.HimdsUnreachable):
    """himds went away after it had the request: what came of it is not known."""


class HimdsClient:
    """Asks himds at `path`. Errors of every call: AZCM0061, and those that himds answers with."""

    def __init__(self, path: str):
        self._path = path

    def status(self) -> dict[str, Any]:
        """The object of protocol section 12, `status`."""
        return self.call("status", {})

    def call(
        self,
        verb: str,
        args: dict[str, Any],
        progress: Callable[[int, str], None] | None = None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """The `result` of `verb`. `seconds`: in which it must be there; what they are for a verb unless they are
        given."""
        limit = seconds or (LONG_TIMEOUT if verb in _LONG else STATUS_TIMEOUT)
        ends = time.monotonic() + limit
        with self._connect() as stream:
            body = json.dumps({"v": 1, "id": 1, "verb": verb, "args": args}).encode()
            try:
                stream.sendall(struct.pack(">I", len(body)) + body)
            except OSError as problem:
                raise _away(problem) from None
            while True:
                answer = self._receive(stream, ends)
                step = answer.get("progress")
                if isinstance(step, dict):
                    if progress is not None:
                        progress(int(step.get("percent") or 0), str(step.get("step") or ""))
                    continue
                if answer.get("ok") is True:
                    result = answer.get("result")
                    return result if isinstance(result, dict) else {}
                error = answer.get("error")
                told = error if isinstance(error, dict) else {}
                raise errors.from_dict({"code": "AZCM0002", "message": "himds gave no reason", **told})

    def _connect(self) -> socket.socket:
        if sys.platform == "win32":
            raise errors.NotSupported(
                "the agent's services do not run on Windows in this release", "See docs/windows.md"
            )
        else:  # noqa: RET506 - mypy judges each system's branch by itself
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stream.settimeout(STATUS_TIMEOUT)
            try:
                stream.connect(self._path)
            except OSError as problem:
                stream.close()
                raise _away(problem) from None
            return stream

    def _receive(self, stream: socket.socket, ends: float) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._exactly(stream, 4, ends))
        if length > FRAME_LIMIT:
            raise ConnectionLost("himds sent a frame that is too long", REMEDY)
        try:
            found = json.loads(self._exactly(stream, length, ends))
        except (ValueError, RecursionError):
            raise ConnectionLost("himds sent something that is not JSON", REMEDY) from None
        return found if isinstance(found, dict) else {}

    @staticmethod
    def _exactly(stream: socket.socket, count: int, ends: float) -> bytes:
        content = b""
        while len(content) < count:
            try:
                stream.settimeout(max(0.001, ends - time.monotonic()))
                block = stream.recv(min(count - len(content), 1 << 16))
            except socket.timeout:
                raise ConnectionLost("himds did not answer in time", REMEDY) from None
            except OSError as problem:
                raise ConnectionLost(f"the connection to himds broke: {problem.strerror}", REMEDY) from None
            if not block:
                raise ConnectionLost("himds closed the connection without an answer", REMEDY)
            content += block
        return content


def _away(problem: OSError) -> errors.AgentError:
    if isinstance(problem, (FileNotFoundError, ConnectionRefusedError)):
        return errors.HimdsUnreachable("himds is not running", REMEDY)
    return errors.HimdsUnreachable(f"himds cannot be reached: {problem.strerror or 'no answer in time'}", REMEDY)

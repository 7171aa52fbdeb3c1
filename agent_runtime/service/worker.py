# SPDX-License-Identifier: Apache-2.0
"""Short-lived workers: what needs more than the standard library runs in a process of its own and ends.

JSON on its standard input, one JSON object on its standard output. It inherits no other descriptor, gets no
environment of ours, and is killed at its deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from agent_runtime import errors
from agent_runtime.service.loop import Loop, Timeout, TimeoutExpired, readable, writable

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "workers", "__main__.py")
OUTPUT_LIMIT = 4 * 1024 * 1024


async def run(loop: Loop, verb: str, arguments: dict[str, Any], seconds: float = 60.0) -> dict[str, Any]:
    """The answer of the worker's `verb`. Errors: the AgentError it answers; InternalError when it fails or takes too
    long."""
    if sys.platform == "win32":
        raise errors.NotSupported("this release has no services on Windows")
    to_worker, ours = os.pipe()
    theirs, from_worker = os.pipe()
    try:
        pid = os.posix_spawn(  # noqa: ASYNC221 - it returns when the worker has begun
            sys.executable or "/usr/bin/python3",
            ["python3", "-I", PROGRAM, verb],
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, to_worker, 0),
                (os.POSIX_SPAWN_DUP2, from_worker, 1),
            ],
            setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGINT],
        )
    except OSError as error:
        for descriptor in (to_worker, ours, theirs, from_worker):
            os.close(descriptor)
        raise errors.InternalError(f"a worker could not be started: {error.strerror}") from None
    os.close(to_worker)
    os.close(from_worker)
    try:
        with Timeout(loop, seconds):
            output = await _talk(ours, theirs, json.dumps(arguments).encode("ascii"))
    except TimeoutExpired:
        raise errors.InternalError(f"the worker {verb} took longer than {seconds:g} s") from None
    finally:
        # Either it has closed its output and is ending, or it must.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it has been killed
    return answer_of(verb, output)


async def _talk(ours: int, theirs: int, content: bytes) -> bytes:
    try:
        if sys.platform != "win32":
            os.set_blocking(ours, False)
            os.set_blocking(theirs, False)
        view = memoryview(content)
        try:
            while view:
                try:
                    view = view[os.write(ours, view) :]
                except BlockingIOError:
                    await writable(ours)
        except BrokenPipeError:
            pass  # it answers without having read all, or has died; its output tells
        finally:
            os.close(ours)
            ours = -1
        output = b""
        while len(output) <= OUTPUT_LIMIT:
            await readable(theirs)
            block = os.read(theirs, 65536)
            if not block:
                break
            output += block
        return output
    finally:
        os.close(theirs)
        if ours >= 0:
            os.close(ours)


def ask(verb: str, arguments: Mapping[str, Any], seconds: float = 60.0, program: str = PROGRAM) -> dict[str, Any]:
    """As `run`, for a program without a loop; `program`: the worker's, of an installed agent."""
    import subprocess  # residents have no need of it

    try:
        done = subprocess.run(
            [sys.executable or "/usr/bin/python3", "-I", program, verb],
            input=json.dumps(arguments).encode("ascii"),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise errors.InternalError(f"the worker {verb} could not be started, or took too long") from None
    return answer_of(verb, done.stdout)


def answer_of(verb: str, output: bytes) -> dict[str, Any]:
    """The object in a worker's output. Errors: the AgentError it answers; InternalError."""
    try:
        answer = json.loads(output)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise errors.InternalError(f"the worker {verb} failed")
    if "error" in answer:
        raise errors.from_dict(answer["error"])
    return answer

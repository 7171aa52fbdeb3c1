# SPDX-License-Identifier: Apache-2.0
"""The local socket: answers, refusals and limits, over a real socket."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import errors
from agent_runtime.service import ipc
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop


async def _echo(stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
    progress(40, "Half way")
    return {"uid": stream.uid, **args}


async def _refuse(stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
    raise errors.NameTaken("the name web01 is taken")


async def _stumble(stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
    raise {"disk": OSError(28, "No space left on device"), "bug": KeyError("secret")}[args["how"]]


def _ask(folder: Path, *requests: bytes) -> list[dict[str, Any] | None]:
    """All frames that one connection gets for what it sends; None is the end of the connection."""
    path, found, problems = str(folder / "s"), [], []
    loop = Loop(lambda name, error: problems.append((name, error)))
    server = ipc.Server(loop, path, {"echo": _echo, "refuse": _refuse, "stumble": _stumble}, Log(str(folder / "log")))

    async def ask() -> None:
        try:
            stream = await ipc.connect(path)
            for request in requests:
                stream.socket.sendall(request)
                while True:
                    frame = await stream.receive()
                    found.append(frame)
                    if frame is None or "ok" in frame:
                        break
            stream.close()
        finally:
            loop.stop()

    loop.spawn(server.serve(), "server")
    loop.spawn(ask(), "client")  # its first turn comes after the server's, which listens then
    loop.run()
    assert problems == []
    return found


def _frame(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode()


def test_progress_comes_before_the_answer(tmp_path: Path) -> None:
    assert _ask(tmp_path, _frame('{"v": 1, "id": 7, "verb": "echo", "args": {"a": 1}}')) == [
        {"v": 1, "id": 7, "progress": {"percent": 40, "step": "Half way"}},
        {"v": 1, "id": 7, "ok": True, "result": {"uid": os.geteuid(), "a": 1}},
    ]


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ('{"v": 1, "id": 1, "verb": "refuse"}', "AZCM0044"),
        ('{"v": 2, "id": 1, "verb": "echo"}', "AZCM0023"),
        ('{"v": 1, "id": 1, "verb": "nonsense"}', "AZCM0023"),
        ('{"v": 1, "id": 1, "verb": ["echo"]}', "AZCM0023"),
        ('{"v": 1, "id": 1, "verb": "stumble", "args": {"how": "disk"}}', "AZCM0002"),
        ('{"v": 1, "id": 1, "verb": "stumble", "args": {"how": "bug"}}', "AZCM0002"),
    ],
)
def test_whoever_asks_gets_an_answer_and_may_ask_again(tmp_path: Path, request_text: str, code: str) -> None:
    again = _frame('{"v": 1, "id": 2, "verb": "echo"}')
    answers = [frame for frame in _ask(tmp_path, _frame(request_text), again) if frame and "ok" in frame]
    assert [answer["ok"] for answer in answers] == [False, True]
    assert answers[0]["error"]["code"] == code
    assert set(answers[0]["error"]) == {"code", "message", "remedy"}


def test_an_error_inside_says_no_more_than_its_kind(tmp_path: Path) -> None:
    answer = _ask(tmp_path, _frame('{"v": 1, "id": 1, "verb": "stumble", "args": {"how": "bug"}}'))[-1]
    assert answer is not None
    assert "secret" not in str(answer)


@pytest.mark.parametrize(
    "noise", [struct.pack(">I", ipc.FRAME_LIMIT + 1), _frame("[]"), _frame("{"), _frame("[" * 100000), _frame("")]
)
def test_noise_ends_the_connection(tmp_path: Path, noise: bytes) -> None:
    assert _ask(tmp_path, noise) == [None]

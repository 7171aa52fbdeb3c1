# SPDX-License-Identifier: Apache-2.0
"""A wish of the hub's that waits for the machine's clock."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_runtime.platform import paths as places
from agent_runtime.service import worker
from agent_runtime.service.loop import Loop, sleep
from agent_runtime.upgrade import plan, wishes

MACHINE = "5b629c8e-6089-4b7c-a2d3-1cb7c00fb7c2"


def test_a_wish_that_has_expired_by_a_clock_that_is_ahead_waits_until_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wishes, "CLOCK_SECONDS", 0.05)
    begun: list[str] = []

    async def begin(_loop: Any, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        begun.append(verb)
        return {
            "journal": {**plan.begun(plan.Wish(**arguments["wish"], format="deb"), "i", "p", "now"), "state": "failed"}
        }

    monkeypatch.setattr(worker, "run", begin)
    loop = Loop(lambda _name, error: pytest.fail(str(error)))
    content = {"desiredVersion": "9.0.0.1", "correlationId": "c"}
    payload = {"machine": MACHINE, "generation": 3, "content": content, "exp": time.time() - 1}
    host: Any = SimpleNamespace(
        paths=places.linux(str(tmp_path)),
        loop=loop,
        log=SimpleNamespace(info=lambda _text: None, error=lambda _text: None),
        kept=lambda _kind: payload,
        profile=lambda: {"name": "lab"},
        config=lambda: ({}, {"automaticupgrade.enabled": True, "extensions.enabled": True}),
        report=lambda _kind, _data: None,
    )
    upgrades = wishes.Upgrades(host)

    async def life() -> None:
        await sleep(0.2)
        assert begun == []
        payload["exp"] = time.time() + 3600  # what a clock that is set right comes to
        while not begun:
            await sleep(0.01)
        loop.stop()

    loop.spawn(upgrades.run(), "upgrades")
    loop.spawn(life(), "life")
    loop.run()
    assert begun == ["begin-upgrade"]

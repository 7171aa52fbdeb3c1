# SPDX-License-Identifier: Apache-2.0
"""Reports that wait while the hub is away are sent when it answers again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent_runtime import errors
from agent_runtime.himds import reports
from agent_runtime.hub import backoff
from agent_runtime.service.loop import Loop, sleep


def test_reports_do_not_wait_once_the_hub_answers_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "delay", lambda *_: 3600.0)  # as after an outage of some hours
    sent: list[str] = []
    is_away = True

    async def call(_credential: Any, _verb: str, body: dict[str, Any]) -> dict[str, Any]:
        if is_away:
            raise errors.NetworkFailed("the hub cannot be reached")
        sent.extend(report["kind"] for report in body["reports"])
        return {"accepted": [report["id"] for report in body["reports"]]}

    loop = Loop(lambda _name, error: pytest.fail(str(error)))
    log = SimpleNamespace(warning=lambda _text: None)
    paths = SimpleNamespace(outbox=str(tmp_path / "outbox"))
    known: Any = SimpleNamespace(paths=paths, log=log, state="connected", credential=dict)
    hub: Any = SimpleNamespace(call=call)
    made = reports.Reports(loop, known, lambda: hub)

    async def life() -> None:
        nonlocal is_away
        made.put("extensions", {})
        await sleep(0.05)
        made.put("runcommands", {})
        await sleep(0.05)
        assert sent == []
        is_away = False
        made.answers_again()
        while len(sent) < 2:
            await sleep(0.01)
        loop.stop()

    loop.spawn(made.send(), "reports")
    loop.spawn(life(), "life")
    loop.run()
    assert sent == ["extensions", "runcommands"]

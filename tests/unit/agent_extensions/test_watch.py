# SPDX-License-Identifier: Apache-2.0
"""How often what handlers write is looked at, by itself (extension-handler.md section 15)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_runtime.extensions import plan, status
from agent_runtime.extensions.layout import Layout
from agent_runtime.extensions.timing import Timing
from agent_runtime.extensions.watch import Watch
from agent_runtime.platform import paths as places
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop
from tests.unit.agent_extensions.kit import watching
from tests.unit.agent_extensions.test_odd_handlers import STATUS


def test_a_look_that_fails_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    paths = places.linux(str(tmp_path))
    told: list[str] = []

    def ended(name: str, _: BaseException) -> None:
        told.append(f"{name} has ended")
        loop.stop()

    def judged(key: str, ident: str, _: status.Verdict) -> None:
        told.append(ident)
        if {"one", "two"} <= set(told):
            loop.stop()
        if ident == "one":
            raise LookupError(key)

    loop = Loop(ended)
    timing, log = Timing(status_first=0.01), Log(str(tmp_path / "log"))
    watch = Watch(loop, log, Layout(paths), timing, judged, lambda *_: None, lambda *_: None)
    known = {"sequence": 0, "enabled": True}
    record = {**plan.blank("Test", "Fake"), "version": "1.0", "state": plan.ENABLED, "multi": True}
    record["extensions"] = {name: {**known, "name": name} for name in ("one", "two")}
    watch.follow({"test.fake": record})
    loop.spawn(watch.run(), "status")
    loop.run()
    assert set(told) == {"one", "two"}


def test_what_a_handler_writes_after_a_long_silence_is_heard_of_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script of six minutes, a probe that flips after days: the looks grow rarer, but minutes do not pass."""
    clock = [1000.0]
    told: list[str] = []
    problems: list[BaseException] = []
    loop, watch = watching(tmp_path, problems, judged=lambda _key, _ident, verdict: told.append(verdict.state))
    monkeypatch.setattr("agent_runtime.extensions.watch.time", SimpleNamespace(monotonic=lambda: clock[0]))
    record = {**plan.blank("Test", "Fake"), "version": "1.0", "state": plan.ENABLED}
    record["extensions"] = {"fake": {"sequence": 0, "enabled": True, "name": "fake"}}
    watch.follow({"test.fake": record})
    ((place, entry),) = watch._entries.items()
    file = Path(place.path)
    file.parent.mkdir(parents=True)

    def write(word: str) -> None:
        file.write_text(STATUS % (word, 0, "as it stands"))

    write("transitioning")

    async def look() -> None:
        clock[0] = entry.at
        await watch._look(place, entry)

    async def changes(word: str, within: float) -> None:
        for _ in range(100):  # as rare as looks become
            await look()
        write(word)
        written = clock[0]
        await look()
        assert clock[0] - written <= within

    async def scenario() -> None:
        await look()
        await changes("success", 10)
        await changes("error", 30)
        assert told == ["transitioning", "succeeded", "failed"]
        loop.stop()

    loop.spawn(scenario(), "scenario")
    loop.run()
    assert problems == []

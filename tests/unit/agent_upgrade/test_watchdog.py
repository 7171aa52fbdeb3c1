# SPDX-License-Identifier: Apache-2.0
"""What the watchdog makes of a download that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import errors
from agent_runtime.platform import paths as places
from agent_runtime.service import worker
from agent_runtime.service.log import Log
from agent_runtime.upgrade import packages, plan, watchdog
from agent_runtime.upgrade.watchdog import Watchdog

FROM, TO = "1.0.0.1", "1.0.0.2"


class Manager:
    """One that has nothing to do yet."""

    format = "deb"

    def installed(self) -> packages.Found:
        return packages.Found(FROM, True)


@pytest.mark.parametrize(
    ("problem", "by", "state"),
    [
        (errors.InternalError("the worker fetch-package failed"), "hub", "downloading"),
        (errors.InternalError("the worker fetch-package failed"), "command", "failed"),
        (errors.NetworkFailed("nobody answers"), "hub", "downloading"),
        (errors.ExtensionNotAdded("there is no such package"), "hub", "failed"),
    ],
)
def test_what_may_pass_is_tried_again_where_the_hub_wishes_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, problem: errors.AgentError, by: str, state: str
) -> None:
    paths = places.linux(str(tmp_path))
    Path(paths.clouds).mkdir(parents=True)
    profile = {"artefacts": ["https://hub/artefacts"], "ca_pem": "x", "tuf_root": "{}"}
    with open(f"{paths.clouds}/lab.json", "w", encoding="utf-8") as file:
        json.dump(profile, file)
    asked: list[tuple[float, float]] = []

    def ask(_verb: str, arguments: dict[str, Any], seconds: float, _program: str) -> dict[str, Any]:
        asked.append((arguments["seconds"], seconds))
        raise problem

    monkeypatch.setattr(worker, "ask", ask)
    wish = plan.Wish(by, "m", "lab", FROM, TO, "deb")
    journal = plan.begun(wish, "i", "program", watchdog.stamp())
    manager: Any = Manager()
    after = Watchdog(paths, manager, Log(str(tmp_path / "log")))._fetch(journal)
    assert (after["state"], after["tries"]) == (state, 1 if state == "downloading" else 0)
    ((given, limit),) = asked
    assert given < limit, "a slow download is left in time, and gone on with"

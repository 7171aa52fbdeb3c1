# SPDX-License-Identifier: Apache-2.0
"""Removes extensions by hand while the extension service stands still (agent-surface.md section 5.6).

The same plan and the same hands as the service's. It does not last: what the hub still wishes is installed again once
the service runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from agent_runtime import errors
from agent_runtime.extensions import carrier as carriers
from agent_runtime.extensions import plan, runner
from agent_runtime.extensions.carrier import Carrier
from agent_runtime.extensions.layout import Layout
from agent_runtime.extensions.steps import Steps
from agent_runtime.extensions.store import Store
from agent_runtime.extensions.timing import Timing
from agent_runtime.extensions.watch import Watch
from agent_runtime.platform import local
from agent_runtime.platform.paths import Paths
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop
from agent_runtime.state import config


class _Listening(Log):
    """The service's log, and what went wrong for whoever waits."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.problems: list[str] = []

    def error(self, message: str) -> None:
        self.problems.append(message)
        super().error(message)


def known(paths: Paths) -> dict[str, plan.Record]:
    """Records of the handlers on this machine by key. Errors: AZCM0072 when they cannot be read."""
    store = Store(paths.extensions)
    if not os.path.isdir(paths.extensions):
        return {}
    try:
        store.read()
    except (OSError, ValueError) as problem:
        raise errors.ExtensionFailed(f"what is installed cannot be read: {problem}", "Start the service extd") from None
    return store.records


def matching(records: Mapping[str, plan.Record], name: str) -> Optional[tuple[str, Optional[str]]]:
    """The key of the handler that `name` means (its type, its full name, the name of its only extension), or key and
    ident of one extension among several; None when it means nothing. Pure."""
    wanted = name.lower()
    for key, record in records.items():
        if wanted in (key, str(record["type"]).lower(), f"{record['publisher']}/{record['type']}".lower()):
            return key, None
    for key, record in records.items():
        if wanted in record["extensions"]:
            return key, wanted if record["multi"] and len(record["extensions"]) > 1 else None
    return None


def remove(paths: Paths, meant: Iterable[tuple[str, Optional[str]]], timing: Timing) -> list[str]:
    """Removes handlers, or single extensions, by key and ident; what went wrong on the way. Errors: AZCM0072 while the
    service or a command of an extension runs; OSError."""
    try:
        with local.alone(paths.extensions):
            return _remove(paths, meant, timing)
    except BlockingIOError:
        raise errors.ExtensionFailed(
            "the extension service is running",
            "Run 'systemctl stop extd', then this command again, then 'systemctl start extd'",
        ) from None


def _remove(paths: Paths, meant: Iterable[tuple[str, Optional[str]]], timing: Timing) -> list[str]:
    log = _Listening(paths.gc_ext_log)
    loop = Loop(lambda *_: None)
    store = Store(paths.extensions)
    store.open()
    hands = runner.Runner(loop, *runner.places(paths, "running"), log, **runner.systemd())
    if hands.is_running():
        raise errors.ExtensionFailed(
            "a command of an extension is still running", "Wait until it has ended, or start the service extd again"
        )
    # What the service was doing is not gone on with: it plans anew from what is there.
    store.drop_plan()
    own = dict(config.load(paths))
    values = (own, dict(config.effective(own)))
    steps = Steps(paths, log, hands, _no_worker, lambda: None, lambda: values, timing)
    watch = Watch(loop, log, Layout(paths), timing, _nothing, _nothing, _nothing)
    carrier = Carrier(loop, log, store, steps, hands, watch, timing, _nothing, lambda: False, lambda _: None)
    chains = [plan.part(store.records[key], ident) for key, ident in meant]
    task = loop.spawn(carrier.carry_out(carriers.journal(store.machine, store.generation, chains)), "removal")
    loop.spawn(_then_stop(loop, task.finished.wait()), "end")
    loop.run()
    if task.error is not None:
        raise task.error
    return log.problems


async def _then_stop(loop: Loop, waiting: Any) -> None:
    await waiting
    loop.stop()


async def _no_worker(verb: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
    raise errors.InternalError(f"a removal has no need of the worker {verb}")


def _nothing(*_: object) -> None:
    """Nobody is reported to: the service does that when it runs again."""

# SPDX-License-Identifier: Apache-2.0
"""Begins an upgrade of the agent, and sees that one goes on (agent_runtime/upgrade). Run in a worker by extd, and by
the command line in its own process."""

from __future__ import annotations

import uuid
from typing import Any

from agent_runtime import errors
from agent_runtime.platform import local
from agent_runtime.platform import paths as places
from agent_runtime.service import worker
from agent_runtime.upgrade import packages, plan, unit
from agent_runtime.upgrade.journal import Files
from agent_runtime.upgrade.watchdog import stamp


def begin_upgrade(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"root", "wish": the members of plan.Wish but format}` → `{"journal"}`. What cannot be upgraded is a journal
    that has failed. Errors: AZCM0027 while another is under way; AZCM0002; OSError."""
    wish = plan.Wish(**arguments["wish"], format="")
    files = Files(places.here(arguments["root"]))
    files.make()
    files.check_idle()
    # At its end the watchdog tidies up for a moment; of two that begin at once the second finds the first's journal.
    with local.alone(files.folder, waits=True):
        files.check_idle()
        return {"journal": _begin(files, wish)}


def _begin(files: Files, wish: plan.Wish) -> plan.Journal:
    try:
        files.read()
    except ValueError:
        files.put_aside()
    ident, now = str(uuid.uuid4()), stamp()
    try:
        manager = packages.here()
        if manager.installed() != (wish.installed, True):
            raise errors.ConfigurationConflict(
                f"version {wish.installed} runs, and it is not what the package manager has installed",
                "Restart the agent's services, or repair the package",
            )
    except errors.AgentError as problem:
        journal = plan.refused(plan.begun(wish, ident, worker.PROGRAM, now), problem.as_dict(), now)
        files.write(journal)
        return journal
    journal = plan.begun(wish._replace(format=manager.format), ident, worker.PROGRAM, now)
    unit.begin(files, journal)
    return journal


def resume_upgrade(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"root"}` → `{}`: an upgrade that has not ended goes on. Errors: AZCM0002; OSError."""
    files = Files(places.here(arguments["root"]))
    try:
        journal = files.read()
    except ValueError:
        return {}  # whoever begins the next one puts it aside
    if journal is not None and not plan.is_final(journal):
        unit.ensure(files)
    return {}

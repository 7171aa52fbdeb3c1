# SPDX-License-Identifier: Apache-2.0
"""Carries an upgrade of the agent out, from the download to its good or bad end; the program of the unit
azcmagent-upgrade (unit.py). Decisions are plan.py's; each is written down before it is acted upon.

It runs from a copy of the former version's modules while the package is exchanged beneath it.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Optional

from agent_runtime import errors
from agent_runtime.cli.himds_client import HimdsClient
from agent_runtime.hub.proxy import proxy_for
from agent_runtime.identity import trust
from agent_runtime.platform import local, processes
from agent_runtime.platform import paths as places
from agent_runtime.platform.paths import Paths
from agent_runtime.service import root as roots
from agent_runtime.service import worker
from agent_runtime.service.log import Log
from agent_runtime.state import atomic, config
from agent_runtime.upgrade import packages, plan, unit
from agent_runtime.upgrade.journal import Files, digest
from agent_runtime.upgrade.packages import Manager

LOOK_SECONDS = 5.0
CHECKIN_SECONDS = 30.0
DOWNLOAD_SECONDS = 1800.0
DOWNLOAD_PART = 0.9
"""Of them, after which the worker leaves the rest of a slow download for another try."""


def stamp() -> str:
    """Now, RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Watchdog:
    """One run of it."""

    def __init__(self, paths: Paths, manager: Manager, log: Log) -> None:
        self._paths = paths
        self._files = Files(paths)
        self._manager = manager
        self._log = log
        self._himds = HimdsClient(paths.socket)

    def run(self, journal: plan.Journal) -> None:
        """To the end of the upgrade. Errors: OSError, AgentError: whoever starts it again goes on with the journal."""
        self._log.info(f"upgrade from {journal['from']} to {journal['to']}: {journal['state']}")
        while not plan.is_final(journal):
            journal = self._step(journal)
        self._ended(journal)

    def _step(self, journal: plan.Journal) -> plan.Journal:
        if journal["state"] == plan.DOWNLOADING:
            time.sleep(plan.pause(journal, random.random()))
            return self._noted(journal, self._fetch(journal))
        seen = self._look(journal)
        if not seen.whole:
            # Asked now alone: who looks at the locks of others holds them for a moment.
            if self._manager.is_held():
                # Somebody else is at it: what he leaves counts, not what is there for a moment.
                time.sleep(LOOK_SECONDS)
                return journal
            seen = self._look(journal)  # he may have ended in between
        made, action = plan.decide(journal, seen, stamp())
        self._noted(journal, made)
        if action == plan.WAIT:
            time.sleep(LOOK_SECONDS)
        elif action in (plan.INSTALL, plan.RESTORE):
            made = self._noted(made, self._install(made, action, packages.Found(seen.package, seen.whole)))
        return made

    def _noted(self, before: plan.Journal, after: plan.Journal) -> plan.Journal:
        if after != before:
            self._files.write(after)
        if after["state"] != before["state"]:
            self._log.info(f"{after['state']}: {after['message']}")
        return after

    # -- packages

    def _fetch(self, journal: plan.Journal) -> plan.Journal:
        """Both packages, or why there will be no upgrade."""
        try:
            found = self._manager.installed()
            if found != (journal["from"], True):
                raise errors.ConfigurationConflict(
                    f"version {journal['from']} is not what is installed any more", "Run the command again"
                )
            new = self._package(journal, journal["to"])
            old = self._former(journal)
            before = self._himds.status()
        except errors.AgentError as problem:
            self._log.error(f"{problem.code}: {problem.message}")
            # A worker that is killed for memory says no more than that it failed.
            may_pass = isinstance(problem, (errors.NetworkFailed, errors.HimdsUnreachable, errors.InternalError))
            ended = plan.postponed if may_pass or problem.retry_after is not None else plan.refused
            return ended(journal, problem.as_dict(), stamp())
        connected = before.get("identityState") == "connected"
        return plan.fetched(journal, new, old, connected, _services(before), stamp())

    def _former(self, journal: plan.Journal) -> dict[str, str]:
        """The package of the installed version. Errors: AgentError."""
        kept = self._files.kept_package(journal["from"])
        if kept is not None:
            return kept
        try:
            return self._package(journal, journal["from"])
        except errors.ExtensionNotAdded as problem:
            raise errors.ExtensionNotAdded(
                f"there would be no way back: the package of version {journal['from']}, which is installed, cannot be "
                f"had ({problem.message})",
                f"Publish azcmagent_{journal['from']}_all.deb too at the hub: hawser-hub artefacts add, sign, publish",
            ) from None

    def _package(self, journal: plan.Journal, version: str) -> dict[str, str]:
        """Fetch and verify the package of a version. Errors: AgentError."""
        question = {
            **question_of(self._paths, self._files, journal["cloud"]),
            "downloads": self._files.packages,
            "target": target(version, self._manager.format),
            "seconds": DOWNLOAD_PART * DOWNLOAD_SECONDS,
        }
        answer = worker.ask("fetch-package", question, DOWNLOAD_SECONDS, journal["program"])
        path = str(answer["path"])
        told = (answer["custom"].get("kind"), answer["custom"].get("version"))
        if told != ("agent", version) or self._manager.describe(path) != (packages.NAME, version):
            atomic.unlink(path)
            raise errors.ExtensionNotAdded(f"the package that was published as version {version} is another one")
        return {"path": path, "sha256": str(answer["sha256"])}

    def _install(self, journal: plan.Journal, action: str, found: packages.Found) -> plan.Journal:
        """Give a package to the package manager, unless something else than `found` is installed by the time that
        nobody else uses it; the journal afterwards."""
        if action == plan.RESTORE:
            time.sleep(plan.pause(journal, random.random()))
        begun = journal

        def ready() -> bool:
            nonlocal begun
            if self._manager.installed() != found:
                return False
            begun = self._noted(begun, plan.tried(begun))
            return True

        try:
            if action == plan.RESTORE:
                begun = self._noted(begun, {**begun, "old": self._way_back(begun)})
            package = begun["new" if action == plan.INSTALL else "old"]
            why: Optional[str] = "its package was changed on the disk"
            if digest(package["path"]) == package["sha256"]:
                waits = partial(self._log.info, "waiting for the package manager")
                why = self._manager.install(package["path"], waits, ready, self._files.output)
        except OSError as problem:
            why = f"{problem.filename or 'a file'}: {problem.strerror}"
        except errors.AgentError as problem:
            why = problem.message
        if why is None:
            return begun
        if begun["tries"] == journal["tries"]:
            begun = plan.tried(begun)
        if why:
            self._log.error(why)
        return plan.ran(begun, why, stamp())

    def _way_back(self, journal: plan.Journal) -> dict[str, str]:
        """The former package; fetched once more where somebody has removed it. Errors: AgentError."""
        known: dict[str, str] = journal["old"]
        try:
            if digest(known["path"]) == known["sha256"]:
                return known
        except OSError as problem:
            self._log.error(f"{known['path']}: {problem.strerror}")
        return self._package(journal, journal["from"])

    # -- looking

    def _look(self, journal: plan.Journal) -> plan.Seen:
        package = self._manager.installed()
        answers, beat, services, trouble = "", False, frozenset[str](), ""
        if journal["state"] in (plan.WAITING, plan.ROLLING_BACK):
            wanted = journal["to"] if journal["state"] == plan.WAITING else journal["from"]
            try:
                status = self._himds.status()
                answers, services = str(status.get("agentVersion") or "")[:64], _services(status)
                if answers == wanted and journal["connected"] and journal["state"] == plan.WAITING:
                    beat, trouble = self._beat(status, journal.get("well") is not None)
            except errors.AgentError as problem:
                trouble = problem.message[:300]
            except Exception as problem:  # noqa: BLE001 - whatever a broken himds says, the deadline goes on
                trouble = f"himds answers what cannot be understood ({type(problem).__name__})"
        return plan.Seen(
            package.version,
            package.whole,
            answers,
            beat,
            services,
            trouble,
            processes.boot_id(),
            time.monotonic(),  # since the boot, for every process, without the time that the machine slept
        )

    def _beat(self, status: dict[str, Any], before: bool) -> tuple[bool, str]:
        """Whether the new version has had a heartbeat answered, and its trouble. One that the hub has put off is not
        hurried. Errors: AgentError."""
        trouble = str(status.get("agentErrorDetails") or status.get("agentErrorCode") or "")[:300]
        if trouble or before:
            return not trouble, trouble
        self._himds.call("checkin", {}, seconds=CHECKIN_SECONDS)
        status = self._himds.status()
        return not status.get("agentErrorCode"), str(status.get("agentErrorDetails") or "")[:300]

    def _ended(self, journal: plan.Journal) -> None:
        """Keep the package that is in force, tell the services, and leave nothing else behind. Errors: OSError."""
        in_force = {plan.SUCCEEDED: ("to", "new"), plan.ROLLED_BACK: ("from", "old")}.get(journal["state"])
        if in_force is not None:
            version, package = in_force
            self._files.keep(journal[version], journal[package])
        with contextlib.suppress(errors.AgentError):
            # extd looks at the journal again, and reports.
            self._himds.call("config_changed", {})
        unit.end(self._files)


def _services(status: dict[str, Any]) -> frozenset[str]:
    known = status.get("services")
    found = [item for item in known if isinstance(item, dict)] if isinstance(known, list) else []
    return frozenset(str(item.get("serviceName")) for item in found if item.get("status") == "active")


def target(version: str, form: str) -> str:
    """Where the package of a version is among the targets (docs/protocol.md section 15.6). Pure."""
    return f"agent/{version}/linux.{form}"


def question_of(paths: Paths, files: Files, cloud: str) -> dict[str, Any]:
    """What workers need to ask the repository of a cloud. Errors: AZCM0075 when there is no such cloud; AZCM0070."""
    try:
        if os.path.basename(cloud) != cloud:
            raise ValueError("a path")
        profile = {**atomic.read_json(os.path.join(paths.clouds, f"{cloud}.json")), "name": cloud}
    except (OSError, ValueError):
        raise errors.CloudNotObtained(f"the profile of the cloud {cloud!r} cannot be read") from None
    profile = trust.read(paths, profile)
    artefacts = [str(url) for url in profile.get("artefacts") or ()]
    effective = config.effective(config.load(paths))
    return {
        "artefacts": artefacts,
        "caPem": profile.get("ca_pem"),
        "tufRoot": profile.get("tuf_root"),
        "proxy": proxy_for("Arc", effective, os.environ, artefacts[0])[0] if artefacts else None,
        "metadata": files.metadata,
    }


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Exit code 0 at the end of the upgrade, whichever it was; 1: start it again."""
    folder, _ = roots.take(list(sys.argv[1:] if arguments is None else arguments))
    paths = places.here(folder)
    files = Files(paths)
    files.make()
    log = Log(files.log)
    try:
        with local.alone(files.folder, waits=True):
            try:
                journal = files.read()
            except ValueError as problem:
                log.error(str(problem))
                files.put_aside()
                unit.end(files)
                return 0
            if journal is not None:
                Watchdog(paths, packages.of_format(journal["format"]), log).run(journal)
    except (OSError, errors.AgentError) as problem:
        log.error(getattr(problem, "message", None) or str(problem))
        return 1
    return 0

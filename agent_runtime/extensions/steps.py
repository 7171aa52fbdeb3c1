# SPDX-License-Identifier: Apache-2.0
"""Carries out one step of a plan: the hands of the extension service. What a step changes is `plan.applied`'s."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Optional

from agent_runtime import errors
from agent_runtime.extensions import commandlog, endings, environment, governance, manifest, plan, settings, versions
from agent_runtime.extensions.layout import Layout
from agent_runtime.extensions.ownkey import key_path
from agent_runtime.extensions.runner import Command, Ended, Runner
from agent_runtime.extensions.timing import Timing
from agent_runtime.extensions.wishes import Wish
from agent_runtime.platform import local
from agent_runtime.platform.paths import Paths
from agent_runtime.service.log import Log
from agent_runtime.service.loop import sleep
from agent_runtime.state import atomic

# A call of a worker: verb, arguments, seconds.
Call = Callable[[str, dict[str, Any], float], Awaitable[dict[str, Any]]]
# The host's own codes (extension-handler.md section 9).
GENERAL, NO_MANIFEST, BAD_MANIFEST, DOWNLOAD, UNPACK, TIME_OUT = 1000, 1002, 1003, 1004, 1005, 1011
NOEXEC = 64
"""As a handler that is started in such a folder would end (extension-handler.md section 9)."""
CODES = {"install": 1007, "update": 1008, "enable": 1009, "disable": 1010, "uninstall": GENERAL}
COMMANDS = tuple(CODES)
UNPACKED_LIMIT = 2 * 1024 * 1024 * 1024
# Of the time for a download, before its worker is ended: it says how far it has come.
DOWNLOAD_PART = 0.9
DELETE_TRIES, DELETE_PAUSE = 3, 1.0


class Outcome(NamedTuple):
    """How a step ended. `code`, `message`: for the report, where it did not go well; `exit_code` of the handler's
    command, -1 where it has none; `facts` that later steps of the chain need; `is_passing`: worth another try;
    `is_moving`: and this one has brought something."""

    is_well: bool
    code: int = 0
    message: str = ""
    exit_code: Optional[int] = None
    facts: Mapping[str, Any] = {}
    is_passing: bool = False
    is_moving: bool = False


class Scene(NamedTuple):
    """What a step happens in: its chain with the facts found so far, the handler's record, wishes by ident."""

    chain: plan.Chain
    facts: Mapping[str, Any]
    record: plan.Record
    wishes: Mapping[str, Wish]
    own: tuple[str, ...]
    certificates: Mapping[str, str]

    @property
    def handler(self) -> str:
        return f"{self.chain['publisher']}.{self.chain['type']}"

    @property
    def multi(self) -> bool:
        """Whether the version that is coming, or the one that is there, has several extensions."""
        return bool(self.facts.get("multi", self.record["multi"]))

    def wish(self, ident: Optional[str], version: str) -> Optional[Wish]:
        found = self.wishes.get(ident or "")
        return found if found is None or versions.same(found.version, version) else found.at(version)


class Steps:
    """`profile` gives the cloud profile with the anchors in force, `config` own and effective values."""

    def __init__(
        self,
        paths: Paths,
        log: Log,
        runner: Runner,
        call: Call,
        profile: Callable[[], Optional[Mapping[str, Any]]],
        config: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]],
        timing: Timing,
    ) -> None:
        self._paths = paths
        self._log = log
        self._runner = runner
        self._call = call
        self._profile = profile
        self._config = config
        self._timing = timing
        self.layout = Layout(paths)
        self._limited: dict[str, governance.Limits] = {}
        self._own_limit = 0

    async def do(self, step: plan.Step, scene: Scene, run: str) -> Outcome:
        """The outcome of a step; one that was begun as `run` goes on. Whatever goes wrong is an outcome too."""
        verb, version = step["do"], step["version"]
        try:
            if verb in COMMANDS:
                return await self._command(step, scene, run)
            if verb == "download":
                return await self._download(version, scene)
            if verb == "unpack":
                return await self._unpack(version, scene)
            if verb == "settings":
                return await self._settings(step, scene)
            if verb == "delete":
                await self._delete(scene.handler, version)
            elif verb == "keep":
                self.layout.keep(scene.handler, version, scene.chain["to"])
            elif verb == "carry":
                self.layout.carry(scene.handler, version, scene.chain["to"])
            elif verb == "drop":
                self._drop(step, scene)
            elif verb in ("tidy", "forget"):
                return Outcome(await self._tidy(verb, scene, version))
            return Outcome(True)
        except OSError as problem:
            why = (problem.strerror or str(problem)).lower()
            where = f"{problem.filename}: " if isinstance(problem.filename, str) else ""
            return Outcome(False, GENERAL, f"{verb} of {scene.handler} failed: {where}{why}", -1)
        except Exception as problem:  # noqa: BLE001 - what one handler brings about must not keep us from all the others
            why = f"{type(problem).__name__}: {problem}"
            return Outcome(False, GENERAL, f"{verb} of {scene.handler} failed: {why}", -1)

    # -- packages

    async def _download(self, version: str, scene: Scene) -> Outcome:
        from agent_runtime.hub.proxy import proxy_for  # not before there is something to fetch

        profile = self._profile()
        wish = scene.wish(scene.chain["names"][0], version)
        if profile is None or wish is None:
            return Outcome(False, DOWNLOAD, "the cloud profile of this machine is gone")
        if not profile.get("tuf_root"):
            return Outcome(False, DOWNLOAD, f"cloud {profile.get('name')} names no root of trust for packages")
        metadata = os.path.join(self._paths.extensions, "tuf")
        for folder in (metadata, self._paths.downloads):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        artefacts = [str(url) for url in profile.get("artefacts") or ()]
        _, effective = self._config()
        question = {
            "artefacts": artefacts,
            "caPem": profile.get("ca_pem"),
            "tufRoot": profile["tuf_root"],
            "proxy": proxy_for("Arc", effective, os.environ, artefacts[0])[0] if artefacts else None,
            "metadata": metadata,
            "downloads": self._paths.downloads,
            "target": wish.package["path"],
            "seconds": DOWNLOAD_PART * self._timing.download,
        }
        try:
            answer = await self._call("fetch-package", question, self._timing.download)
            path, wrong = str(answer["path"]), _other_package(answer, wish)
        except errors.AgentError as problem:
            message = f"{problem.message}. {problem.remedy}"
            is_passing = isinstance(problem, errors.NetworkFailed) or problem.retry_after is not None
            is_moving = is_passing and problem.retry_after == 0
            return Outcome(False, DOWNLOAD, message, is_passing=is_passing, is_moving=is_moving)
        if wrong:
            atomic.unlink(path)
            return Outcome(False, DOWNLOAD, f"the package {wish.package['path']} is refused: {wrong}")
        return Outcome(True, facts={"archive": path})

    async def _unpack(self, version: str, scene: Scene) -> Outcome:
        handler = scene.handler
        folder = self.layout.folder(handler, version)
        os.makedirs(self._paths.handlers, exist_ok=True)
        # What lies there was not installed: half unpacked, or of an attempt that failed.
        await self._delete(handler, version)
        question = {"archive": scene.facts["archive"], "into": folder, "limit": UNPACKED_LIMIT}
        try:
            await self._call("unpack-package", question, self._timing.unpack)
        except errors.AgentError as problem:
            code = NOEXEC if isinstance(problem, errors.NotInitialised) else UNPACK
            return Outcome(False, code, f"{problem.message}. {problem.remedy}")
        outcome = self._furnish(version, scene)
        if not outcome.is_well:
            await self._delete(handler, version)
        elif scene.record["extensions"]:
            self.layout.recall(handler, version)
        else:
            self.layout.forget(handler)
        return outcome

    def _furnish(self, version: str, scene: Scene) -> Outcome:
        """Errors: OSError."""
        handler = scene.handler
        try:
            found = self.layout.furnish(handler, version)
        except FileNotFoundError as problem:
            return Outcome(False, NO_MANIFEST, f"{handler} {version}: {problem.strerror}")
        except ValueError as problem:
            return Outcome(False, BAD_MANIFEST, f"{handler} {version}: {problem}")
        for warning in found.warnings:
            self._log.warning(f"{handler} {version}: {warning}")
        several = sum(1 for wish in scene.wishes.values() if wish.handler.lower() == handler.lower()) > 1
        if several and not found.multi:
            return Outcome(False, GENERAL, f"{handler} {version} takes one extension at a time")
        return Outcome(True, facts=_told(found))

    async def _delete(self, handler: str, version: str) -> None:
        """Errors: OSError, when something goes on writing there."""
        for rest in range(DELETE_TRIES, 0, -1):
            try:
                self.layout.delete(handler, version)
                return
            except OSError:
                if rest == 1:
                    raise
                await sleep(DELETE_PAUSE)

    async def _tidy(self, verb: str, scene: Scene, kept: Optional[str]) -> bool:
        """Removes packages that nobody needs any more. Before the new version is enabled, the former one's may yet be
        needed; one given up never is. Errors: OSError."""
        record = scene.record
        if verb == "tidy" and record["state"] != plan.ENABLED and scene.chain["kind"] != "drop":
            return False
        for version, path in record["archives"].items():
            if (verb == "forget" or version != kept) and str(path).startswith(self._paths.downloads + os.sep):
                atomic.unlink(str(path))
        if verb == "forget":
            self.layout.forget(scene.handler)
            if all(step["do"] != "uninstall" for step in scene.chain["steps"]):
                # It was never installed, or has lost its files: no command has come by that lifts its limits.
                await self._lift(scene.handler, scene)
        return True

    # -- settings

    async def _settings(self, step: plan.Step, scene: Scene) -> Outcome:
        version = step["version"]
        wish = scene.wish(step["name"], version)
        if wish is None:
            return Outcome(False, GENERAL, "there are no settings for this extension")
        thumbprint = wish.thumbprint
        if thumbprint is not None and not (
            thumbprint in scene.own and await self._place_certificate(thumbprint, scene.certificates[thumbprint])
        ):
            text = "the protected settings are not for a key of this machine"
            return Outcome(False, GENERAL, f"{text}: certificate {thumbprint}; set them again")
        known = scene.record["extensions"].get(wish.ident)
        extension = wish.name if scene.multi else None
        path = self.layout.settings(scene.handler, version, wish.sequence, extension)
        same = known and (known["sequence"], known["digest"]) == (wish.sequence, wish.digest)
        is_kept = same and (known["enabled"] or wish.standing) and scene.chain["kind"] == "enable"
        if not (is_kept and os.path.exists(path)):
            atomic.write_bytes(path, settings.content(wish.settings))
        return Outcome(True)

    async def _place_certificate(self, thumbprint: str, pem: str) -> bool:
        """Puts certificate and key where the handler looks; False, and nothing is put, where they do not belong
        together. Errors: OSError, AgentError of the worker."""
        path = key_path(self._paths)
        own = atomic.read_bytes(path, 65536)
        places = zip(self.layout.certificate(thumbprint), (pem.encode("ascii", "replace"), own))
        missing = [(place, content) for place, content in places if not _holds(place, content)]
        if missing:
            # Since the plan was made root may have bound another machine, which has a key of its own.
            answer = await self._call("own-certificates", {"key": path, "certificates": {thumbprint: pem}}, 60.0)
            if thumbprint not in answer["own"] or not _holds(path, own):
                return False
        for place, content in missing:
            atomic.write_bytes(place, content)
        return True

    def _drop(self, step: plan.Step, scene: Scene) -> None:
        known = scene.record["extensions"].get(step["name"])
        if known is not None and scene.record["multi"]:
            self.layout.drop(scene.handler, step["version"], known["name"])
        elif known is not None:
            self.layout.forget(scene.handler)

    # -- commands

    async def _command(self, step: plan.Step, scene: Scene, run: str) -> Outcome:
        verb, version, handler = step["do"], step["version"], scene.handler
        folder = self.layout.folder(handler, version)
        try:
            found = self.layout.manifest_of(handler, version)
        except FileNotFoundError:
            if self._runner.started(run) is None:
                return Outcome(False, NO_MANIFEST, f"{handler} {version} has lost its manifest", -1)
            # It was begun before this process, and has removed its own folder, as uninstall may.
            return await self._finished(step, scene, folder, run)
        except ValueError as problem:
            return Outcome(False, BAD_MANIFEST, f"{handler} {version}: {problem}", -1)
        own, effective = self._config()
        limits = governance.limits(scene.chain["type"], _told(found)["resources"], own)
        # Services of the handler are there once it is installed.
        await self._limit(handler, limits if verb == "enable" else limits._replace(services=()))
        operation = self._operation(step, scene, folder, found)
        told = environment.variables(operation)
        variables = {**environment.surroundings(os.environ, effective, scene.chain["publisher"]), **told}
        seconds = getattr(self._timing, verb)
        text = f"{shlex.quote(folder)}/{found.commands[verb]}"
        ended = await self._runner.run(run, Command(handler, text, folder, variables, seconds))
        extension = operation.extension if found.multi else None
        commandlog.write(self.layout.logs(handler, version), extension, text, told, ended)
        if verb == "uninstall":
            await self._lift(handler, scene)
        elif ended.code == 0 and verb != "disable" and not self.layout.is_whole(handler, version):
            return Outcome(False, NO_MANIFEST, f"{verb} of {handler} {version} has removed its own files", 0)
        elif ended.code == 0 and verb == "enable":
            with contextlib.suppress(OSError):  # it has its own now; the next change of version writes anew
                self.layout.forget(handler)
        return _judged(verb, f"{handler} {version}", folder, text, ended, seconds)

    async def _finished(self, step: plan.Step, scene: Scene, folder: str, run: str) -> Outcome:
        """The outcome of a command that was begun already, and of which no manifest says any more what it is."""
        verb, version, handler = step["do"], step["version"], scene.handler
        seconds = getattr(self._timing, verb)
        ended = await self._runner.run(run, Command(handler, "", folder, {}, seconds))
        known = scene.record["extensions"].get(step["name"] or "")
        extension = known["name"] if known is not None and scene.record["multi"] else None
        commandlog.write(self.layout.logs(handler, version), extension, f"{verb} in {folder}", {}, ended)
        if verb == "uninstall":
            await self._lift(handler, scene)
        return _judged(verb, f"{handler} {version}", folder, "", ended, seconds)

    def _operation(self, step: plan.Step, scene: Scene, folder: str, found: manifest.Manifest) -> environment.Operation:
        verb, version, chain = step["do"], step["version"], scene.chain
        known = scene.record["extensions"]
        ident = step["name"] or next(iter(chain["names"]), None)
        wish = scene.wish(ident, version)
        if verb in ("disable", "uninstall") or wish is None:
            one = known.get(ident or "") or next(iter(known.values()), None)
            name, sequence = (one["name"], one["sequence"]) if one else (None, 0)
        else:
            name, sequence = wish.name, wish.sequence
        if found.multi and step["name"] is None:
            name, sequence = None, 0
        old, new = (chain["from"], chain["to"]) if chain["kind"] == "update" else (None, None)
        return environment.Operation(
            verb,
            folder,
            version,
            sequence,
            name,
            found.multi,
            old,
            new,
            bool(old and new and versions.is_newer(old, new)),
            scene.facts.get("disabled"),
            scene.facts.get("uninstalled"),
        )

    async def govern(self, records: Iterable[plan.Record]) -> None:
        """Puts the limits of installed handlers in force that are not yet, and that of this service: after a start, and
        when the user sets another."""
        own, _ = self._config()
        if governance.own_limit(own) != self._own_limit:
            self._own_limit = governance.own_limit(own)
            await self._runner.limit(governance.enforcing_own(self._own_limit))
        for record in records:
            if plan.is_installed(record):
                limits = governance.limits(record["type"], record["resources"], own)
                await self._limit(f"{record['publisher']}.{record['type']}", limits)

    async def _limit(self, handler: str, limits: governance.Limits) -> None:
        if self._limited.get(handler.lower()) != limits:
            self._limited[handler.lower()] = limits
            await self._runner.limit(governance.enforcing(handler, limits))

    async def _lift(self, handler: str, scene: Scene) -> None:
        limits = governance.limits(scene.chain["type"], scene.record["resources"], {})
        self._limited.pop(handler.lower(), None)
        await self._runner.limit(governance.lifting(handler, limits))


def _holds(path: str, content: bytes) -> bool:
    try:
        return atomic.read_bytes(path, 65536) == content
    except (OSError, ValueError):
        return False


def _told(found: manifest.Manifest) -> dict[str, Any]:
    """What of a manifest is kept in the record, and what the rest of the chain asks."""
    resources = {"cpu": found.cpu, "memory": found.memory, "services": [list(item) for item in found.services]}
    return {
        "multi": found.multi,
        "heartbeat": found.heartbeat,
        "resources": resources,
        "withInstall": found.with_install,
        "goOn": found.go_on,
    }


def _judged(verb: str, what: str, folder: str, command: str, ended: Ended, seconds: float) -> Outcome:
    if ended.code == 0:
        return Outcome(True, exit_code=0)
    message = endings.sentence(verb, what, folder, command, ended, seconds)
    if ended.code is None:
        return Outcome(False, TIME_OUT, message, -1)
    return Outcome(False, CODES[verb], message, ended.code)


def _other_package(answer: Mapping[str, Any], wish: Wish) -> str:
    """Why what was fetched is not what was wished; empty when it is. The signed metadata says what a package is, the
    document says which one it means (docs/protocol.md section 15)."""
    custom = answer.get("custom")
    custom = custom if isinstance(custom, dict) else {}
    named = (str(custom.get("publisher")).lower(), str(custom.get("type")).lower())
    if custom.get("kind") != "extension" or named != (wish.publisher.lower(), wish.type.lower()):
        return "its signed metadata is that of another extension"
    version = str(custom.get("version"))
    if not versions.FORM.fullmatch(version) or not versions.same(version, wish.version):
        return "its signed metadata is that of another version"
    machine = local.architecture()
    if custom.get("os") != "linux" or custom.get("arch", "any") not in ("any", _ARCHITECTURES.get(machine, machine)):
        return "it is for another system"
    for name in ("length", "sha256"):
        if name in wish.package and wish.package[name] != answer.get(name):
            return f"its {name} is not that of the signed document"
    return ""


_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}

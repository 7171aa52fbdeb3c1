# SPDX-License-Identifier: Apache-2.0
"""himds: puts its parts together and answers the verbs of the local socket (docs/protocol.md section 10)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Mapping
from typing import Any

from agent_runtime import errors, support
from agent_runtime.himds import connecting
from agent_runtime.himds.challenges import Challenges
from agent_runtime.himds.checkin import Keeper
from agent_runtime.himds.endpoint import Endpoint
from agent_runtime.himds.identity import Known
from agent_runtime.himds.tokens import Tokens
from agent_runtime.hub import backoff
from agent_runtime.hub.client import Hub, HubRefusal, as_agent_error
from agent_runtime.identity import machine, trust
from agent_runtime.platform.base import Machine
from agent_runtime.platform.paths import Paths
from agent_runtime.service import ipc
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Event, Loop, sleep
from agent_runtime.state import atomic, config
from agent_runtime.state.outbox import REPORTS, Outbox
from agent_runtime.version import RELEASED, VERSION

SERVICE_KINDS = {"gcad": ("policy", "trust"), "extd": ("extensions", "runcommands", "agent", "trust")}
SERVICE_NAMES = {"gcad": "GC Service", "extd": "Extension Service"}
REPORT_KINDS = ("services", "extensions", "policy", "runcommands", "trust")


class Himds:
    """The service. `run` ends when the loop is stopped."""

    def __init__(self, loop: Loop, paths: Paths, computer: Machine, port: int, log: Log) -> None:
        self._loop = loop
        self._log = log
        self._computer = computer
        self._known = Known(paths, log)
        self._known.inventory = self._inventory()
        self._outbox = Outbox(paths.outbox)
        self._waiting_reports = Event()
        self._reported: dict[str, str] = {}
        self._hub: Hub | None = None
        self._busy = False
        self._services: dict[str, ipc.Stream] = {}
        self._settings_csr: str | None = None
        self._keeper = Keeper(
            loop, self._known, computer, self._deliver, self._look_at_the_machine, self._waiting_reports.set
        )
        self._tokens = Tokens(self._ask_token, lambda: (self._known.state, self._known.identity), self._clock_offset)
        self._endpoint = Endpoint(
            loop,
            port,
            Challenges(paths.tokens),
            self._tokens,
            self._known.compute,
            self._known.local_status,
            log,
        )
        self._server = ipc.Server(
            loop,
            paths.socket,
            {
                "status": self._status,
                "connect": self._connect,
                "disconnect": self._disconnect,
                "set_tags": self._set_tags,
                "config_changed": self._config_changed,
                "checkin": self._checkin,
                "hello": self._hello,
                "report": self._report,
            },
            log,
        )

    def start(self) -> None:
        """Open the endpoints and go on with the identity there is. Errors: OSError when the port is taken."""
        for number, listener in enumerate(self._endpoint.listen()):
            self._loop.spawn(self._endpoint.serve(listener), f"endpoint {number}")
        self._loop.spawn(self._server.serve(), "local socket")
        self._loop.spawn(self._send_reports(), "reports")
        if self._known.state in machine.BOUND:
            try:
                self._hub = self._open_hub(self._known.profile(str(self._known.identity["cloud"])))
            except errors.AgentError as error:
                self._log.error(f"{error.code}: {error.message}. {error.remedy}.")
                return
            self._keeper.start(self._hub)

    def _open_hub(self, profile: Mapping[str, Any]) -> Hub:
        return Hub(self._loop, profile, lambda: self._known.config)

    def _clock_offset(self) -> float:
        return self._hub.offset if self._hub is not None else 0.0

    async def _ask_token(self, resource: str) -> dict[str, Any]:
        if self._hub is None:
            raise errors.CloudNotObtained("the cloud profile of this machine is gone")
        body = {"slot": int(self._known.identity["slot"]), "resource": resource}
        return await self._hub.call(self._known.credential(), "tokens", body)

    # What flows between the hub and the services

    def _deliver(self, kind: str) -> None:
        for service, kinds in SERVICE_KINDS.items():
            if kind in kinds and service in self._services:
                self._push(self._services[service], self._desired(kind))

    def _desired(self, kind: str) -> dict[str, Any]:
        generation = self._known.lease.get("generations", {}).get(kind, 0)
        return {
            "v": 1,
            "push": "desired",
            "kind": kind,
            "generation": generation,
            "document": self._known.documents[kind],
        }

    def _push(self, stream: ipc.Stream, message: dict[str, Any]) -> None:
        async def send() -> None:
            with contextlib.suppress(OSError):
                await stream.send(message)

        self._loop.spawn(send(), "push")

    def _tell_services(self, message: dict[str, Any]) -> None:
        for stream in self._services.values():
            self._push(stream, message)

    def _inventory(self) -> dict[str, Any]:
        return {**self._computer.inventory(VERSION), "agentReleased": RELEASED}

    def _look_at_the_machine(self) -> None:
        self._known.inventory = self._inventory()
        self._report_if_changed("inventory", self._known.inventory)
        try:
            local = config.load(self._known.paths)
        except errors.AgentError:
            return
        self._report_if_changed("configuration", config.agent_configuration(local))

    def _report_if_changed(self, kind: str, data: dict[str, Any]) -> None:
        text = json.dumps(data, sort_keys=True)
        if self._known.state not in ("connecting", "connected") or self._reported.get(kind) == text:
            return
        try:
            self._outbox.put(kind, data)
        except OSError as error:
            self._log.warning(f"a report cannot be stored: {error.strerror}")
            return
        self._reported[kind] = text
        self._waiting_reports.set()

    async def _send_reports(self) -> None:
        """Send what waits, whenever there is something and an identity to send it with."""
        failures = 0
        while True:
            await self._waiting_reports.wait()
            self._waiting_reports.clear()
            if self._known.state != "connected" or self._hub is None:
                continue
            limit = REPORTS
            try:
                while True:
                    batch = self._outbox.batch(limit)
                    if not batch:
                        break
                    try:
                        answer = await self._hub.call(self._known.credential(), "report", {"reports": batch})
                    except HubRefusal as refusal:
                        if refusal.status not in (400, 413):
                            raise
                        limit = 1
                        if len(batch) == 1:
                            # The hub will never take it, and those behind it must not wait for ever.
                            self._log.error(f"the hub refused a report of kind {batch[0]['kind']}: {refusal.message}")
                            self._outbox.acknowledge([str(batch[0]["id"])])
                        continue
                    self._outbox.acknowledge([str(number) for number in answer.get("accepted", [])])
                    if not answer.get("accepted"):
                        raise errors.InternalError("the hub acknowledged none of the reports")
                failures = 0
            except (HubRefusal, errors.AgentError, OSError) as problem:
                failures += 1
                self._log.warning(f"reports wait: {getattr(problem, 'message', problem)}")
                await sleep(max(5.0, backoff.delay(failures, random.random())))
                if failures < 5:
                    self._waiting_reports.set()

    # Verbs

    async def _status(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        services = [{"displayName": "Agent Service", "serviceName": "himdsd", "status": "active"}]
        for name, display in SERVICE_NAMES.items():
            state = "active" if name in self._services else "inactive"
            services.append({"displayName": display, "serviceName": name, "status": state})
        now = self._hub.now() if self._hub is not None else time.time()
        return {**self._known.status(), **support.status(now), "services": services}

    @contextlib.contextmanager
    def _alone(self) -> Any:
        if self._busy:
            raise errors.ConfigurationConflict(
                "another command is changing this machine's connection", "Wait until it has ended"
            )
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def _connect(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        with self._alone():
            steps = connecting.Connecting(
                self._loop, self._known, self._computer, self._settings_csr, self._open_hub, progress
            )
            self._reported.clear()
            hub, result = await steps.run(args, self._keeper.once)
            if self._hub is not None:
                self._hub.close()
            self._hub = hub
            self._tokens.forget()
            self._keeper.start(hub)
            self._waiting_reports.set()
            self._tell_services({"v": 1, "push": "identity", "state": self._known.state})
            return result

    async def _disconnect(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        with self._alone():
            token, local_only = args.get("accessToken"), args.get("forceLocalOnly") is True
            self._keeper.stop()
            try:
                result = await connecting.disconnect(self._known, self._hub, token, local_only)
            except BaseException:
                if self._known.state in machine.BOUND and self._hub is not None:
                    self._keeper.start(self._hub)
                raise
            if self._hub is not None:
                self._hub.close()
                self._hub = None
            self._tokens.forget()
            self._reported.clear()
            self._tell_services({"v": 1, "push": "identity", "state": self._known.state})
            return result

    async def _set_tags(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        with self._alone():
            if self._hub is None or self._known.state != "connected":
                raise errors.ConfigurationConflict("this machine is not connected", "Connect it first")
            token, tags = args.get("accessToken"), args.get("tags")
            if not isinstance(token, str) or not isinstance(tags, dict):
                raise errors.ParameterMissing("set_tags needs accessToken and tags")
            try:
                resource = await self._hub.patch_tags(str(self._known.identity["resourceId"]), token, tags)
            except HubRefusal as refusal:
                raise as_agent_error(refusal, errors.MachineNotCreated) from None
            self._known.resource = {**self._known.resource, "tags": resource.get("tags") or {}}
            return {"tags": self._known.tags()}

    async def _config_changed(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        before = self._known.config
        self._known.read_config()
        names = ("proxy.url", "proxy.bypass")
        if self._hub is not None and any(before.get(name) != self._known.config.get(name) for name in names):
            self._keeper.wake()  # by the new way
        self._look_at_the_machine()
        self._tell_services({"v": 1, "push": "config"})
        return {}

    async def _checkin(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        if self._known.state not in ("connected", "parked", "quarantined"):
            raise errors.ConfigurationConflict("this machine is not connected", "Connect it first")
        before = self._known.last_heartbeat
        self._keeper.wake()
        for _ in range(6):
            await sleep(0.2 if self._known.last_heartbeat == before else 0)
            if self._known.last_heartbeat != before:
                return {"lastHeartbeat": self._known.status()["lastHeartbeat"]}
            await sleep(1)
        error = self._known.store.record.error or {}
        raise errors.NetworkFailed(str(error.get("message") or "the hub has not answered yet"))

    async def _hello(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        service = args.get("service")
        if service not in SERVICE_KINDS:
            raise errors.ParameterInvalid("hello is for gcad and extd")
        if isinstance(args.get("settingsCsr"), str):
            self._settings_csr = args["settingsCsr"]
            self._loop.spawn(self._settings_certificate(), "settings certificate")
        self._services[service] = stream
        self._server.keep(stream, lambda: self._gone(service, stream))
        for kind in SERVICE_KINDS[service]:
            if kind in self._known.documents:
                self._push(stream, self._desired(kind))
        return {"state": self._known.state, "cloud": self._known.identity.get("cloud")}

    def _gone(self, service: str, stream: ipc.Stream) -> None:
        if self._services.get(service) is stream:
            del self._services[service]

    async def _settings_certificate(self) -> None:
        """extd's certificate, if it said hello only after the machine was connected."""
        path = os.path.join(self._known.paths.own, "settings.crt")
        if self._known.state != "connected" or self._hub is None or os.path.lexists(path):
            return
        body = {"slot": int(self._known.identity["slot"]), "settingsCsr": self._settings_csr}
        try:
            answer = await self._hub.call(self._known.credential(), "renew", body)
            if isinstance(answer.get("settingsCertificate"), str):
                atomic.write_bytes(path, answer["settingsCertificate"].encode("ascii"))
        except (HubRefusal, errors.AgentError, OSError) as problem:
            self._log.warning(f"extd has no certificate yet: {getattr(problem, 'message', problem)}")

    async def _report(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        kind, data = args.get("kind"), args.get("data")
        if kind not in REPORT_KINDS or not isinstance(data, dict):
            raise errors.ParameterInvalid(f"a report has one of the kinds {', '.join(REPORT_KINDS)} and data")
        try:
            number = self._outbox.put(kind, data)
        except OSError as error:
            raise errors.InternalError(
                f"the report cannot be stored: {error.strerror}", "Make room on the disk"
            ) from None
        self._waiting_reports.set()
        if kind == "trust":
            self._trust_again()
        return {"id": number}

    def _trust_again(self) -> None:
        """One of root's services has said that it put other anchors in force, or refused to."""
        if self._hub is None or self._known.state not in machine.BOUND:
            return
        try:
            profile = self._known.profile(str(self._known.identity["cloud"]))
            if trust.anchors(profile) != trust.anchors(self._hub.profile):
                self._hub.trust(profile)
                self._log.info("the trust anchors of the cloud were renewed")
        except errors.AgentError as error:
            self._log.error(f"{error.code}: {error.message}. {error.remedy}.")

# SPDX-License-Identifier: Apache-2.0
"""himds: puts its parts together and answers the verbs of the local socket (docs/protocol.md section 10)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from agent_runtime import errors, support
from agent_runtime.himds import connecting
from agent_runtime.himds.challenges import Challenges
from agent_runtime.himds.checkin import Keeper
from agent_runtime.himds.endpoint import Endpoint
from agent_runtime.himds.extd import Certificate
from agent_runtime.himds.identity import Known
from agent_runtime.himds.reports import Reports
from agent_runtime.himds.tokens import Tokens
from agent_runtime.himds.watch import Watch
from agent_runtime.hub.client import Hub, HubRefusal, as_agent_error
from agent_runtime.identity import birth, machine
from agent_runtime.platform.base import Machine
from agent_runtime.platform.paths import Paths
from agent_runtime.service import ipc
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Cancelled, Loop, sleep
from agent_runtime.state import atomic, config
from agent_runtime.version import RELEASED, VERSION

SERVICE_KINDS = {"gcad": ("policy", "trust"), "extd": ("extensions", "runcommands", "agent", "trust")}
SERVICE_NAMES = {"gcad": "GC Service", "extd": "Extension Service"}
ADOPTED = 4104
END_SECONDS = 5.0
REPORT_KINDS = ("services", "extensions", "policy", "runcommands", "agent", "trust")


class Himds:
    """The service. `run` ends when the loop is stopped."""

    def __init__(self, loop: Loop, paths: Paths, computer: Machine, port: int, log: Log) -> None:
        self._loop = loop
        self._log = log
        self._computer = computer
        self._known = Known(paths, log)
        self._known.inventory = self._inventory()
        self._hub: Hub | None = None
        self._reports = Reports(loop, self._known, lambda: self._hub)
        self._busy = False
        self._services: dict[str, ipc.Stream] = {}
        self._extd = Certificate(loop, self._known, lambda: self._hub, self._beat)
        self._known.store.changed = self._state_changed
        self._watch = Watch(self._known, computer, lambda items: self._reports.changed("evidence", {"items": items}))
        self._keeper = Keeper(
            loop,
            self._known,
            computer,
            self._watch,
            self._deliver,
            self._look_at_the_machine,
            self._reports.flush,
            self._reports.answers_again,
        )
        self._tokens = Tokens(self._ask_token, self._who, self._clock_offset, self._known.why_held)
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
                "look": self._look,
                "question": self._question,
            },
            log,
        )

    def start(self) -> None:
        """Open the endpoints and go on with the identity there is. Errors: OSError when the port is taken."""
        self._watch.look()  # before anybody can use the identity
        for number, listener in enumerate(self._endpoint.listen()):
            self._loop.spawn(self._endpoint.serve(listener), f"endpoint {number}")
        self._loop.spawn(self._server.serve(), "local socket")
        self._loop.spawn(self._reports.send(), "reports")
        if self._known.state in machine.BOUND and self._is_being_sealed():
            text = "sealing this machine was cut off; run 'azcmagent seal' again, or remove seal.json"
            self._known.hold("park", "sealing", text)
        self._go_on()

    def _is_being_sealed(self) -> bool:
        return os.path.lexists(self._known.paths.seal_journal)

    def _go_on(self) -> None:
        """Check in with the identity there is, by the profile of its cloud as it is now: a command may have written
        one where it was missing or other addresses, root's services may have put other anchors in force."""
        if self._known.state not in machine.BOUND or self._busy or self._is_being_sealed():
            return
        try:
            profile = self._known.profile(str(self._known.identity["cloud"]))
            if self._hub is None:
                self._hub = self._open_hub(profile)
                self._keeper.start(self._hub)
            elif profile != self._hub.profile:
                self._hub.go_by(profile)
                self._log.info("the cloud's profile was renewed")
                if self._known.store.record.error is not None:
                    self._keeper.wake()  # it may have been the old one's fault
        except errors.AgentError as error:
            self._log.error(f"{error.code}: {error.message}. {error.remedy}.")

    def _open_hub(self, profile: Mapping[str, Any]) -> Hub:
        return Hub(self._loop, profile, lambda: self._known.config, lambda: str(self._known.lease.get("nonce", "")))

    def _who(self) -> tuple[str, dict[str, Any]]:
        """State and public identity; after a sleep not before the machine was looked at."""
        if self._watch.slept():
            self._look_again()
        return self._known.state, self._known.identity

    def _look_again(self) -> None:
        """Compare the machine with what was connected, now; the hub is asked at once when they differ."""
        before = self._known.state
        self._watch.look()
        if self._known.state != before:
            self._keeper.wake()

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

    def _state_changed(self, state: str) -> None:
        """Root's services carry nothing out for an identity that is not in use."""
        self._tell_services({"v": 1, "push": "identity", "state": state})
        if state == "connected":
            self._extd.ask()

    def _inventory(self) -> dict[str, Any]:
        return {**self._computer.inventory(VERSION), "agentReleased": RELEASED}

    def _look_at_the_machine(self) -> None:
        self._known.inventory = self._inventory()
        self._reports.changed("inventory", self._known.inventory)
        try:
            local = config.load(self._known.paths)
        except errors.AgentError:
            return
        self._reports.changed("configuration", config.agent_configuration(local))

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
        if self._known.state == "connecting":
            self._known.store.apply("cut_off")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def _connect(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        with self._alone():
            adopt = args.get("adopt") is True
            steps = connecting.Connecting(
                self._loop, self._known, self._watch, self._extd, self._open_hub, progress, adopt
            )
            self._reports.forget()
            if adopt:
                self._keeper.stop()
            try:
                hub, result = await steps.run(args, self._keeper.once)
            except Cancelled:
                raise
            except BaseException:
                self._loop.spawn(self._after_failure(adopt), "the end of a connect")
                raise
            if adopt:
                atomic.unlink(self._known.paths.adoption)
                self._log.info(f"event {ADOPTED}: this machine has a name of its own: {result['resourceId']}")
            if self._hub is not None:
                self._hub.close()
            self._hub = hub
            self._tokens.forget()
            self._keeper.start(hub)
            self._reports.flush()
            return result

    async def _after_failure(self, adopt: bool) -> None:
        """A connect has failed: with `adopt` on with the identity that is held. Where the disk had no room to write the
        end down it is written once there is, or when another command comes."""
        while self._known.state == "connecting" and not self._busy:
            try:
                self._known.store.apply("cut_off")
            except OSError:
                await sleep(END_SECONDS)
        if adopt and self._hub is not None and not self._busy and self._known.state in machine.BOUND:
            self._keeper.start(self._hub)

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
            self._reports.forget()
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
        self._go_on()
        self._look_at_the_machine()
        self._tell_services({"v": 1, "push": "config"})
        return {}

    async def _checkin(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        if self._known.state not in ("connected", "parked", "quarantined"):
            raise errors.ConfigurationConflict("this machine is not connected", "Connect it first")
        await self._beat()
        return {"lastHeartbeat": self._known.status()["lastHeartbeat"]}

    async def _beat(self) -> None:
        """A heartbeat now. Errors: AZCM0026 when none is answered."""
        before = self._known.last_heartbeat
        self._keeper.wake()
        for _ in range(6):
            await sleep(0.2 if self._known.last_heartbeat == before else 0)
            if self._known.last_heartbeat != before:
                return
            await sleep(1)
        error = self._known.store.record.error or {}
        raise errors.NetworkFailed(str(error.get("message") or "the hub has not answered yet"))

    async def _look(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        self._look_again()
        return {"state": self._known.state}

    async def _question(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        """What root's programs need to ask the hub themselves: about a held identity, or for one (`tenantId`)."""
        known = self._known
        if known.state in machine.HELD:
            asking = self._keeper.asking
            body = asking.question()
            body["csr"] = await asking.request(body["reason"])
            return {"state": known.state, "credential": known.credential(), "body": body}
        tenant = args.get("tenantId")
        if known.state != "disconnected" or not isinstance(tenant, str) or not tenant.isascii():
            raise errors.ConfigurationConflict(f"the identity of this machine is {known.state}", "See 'azcmagent show'")
        items = self._watch.read(tenant)
        body = {
            "hostname": socket.gethostname(),
            "imageId": birth.image_id(known.paths),
            "evidence": {"digest": self._watch.digest, "items": items},
        }
        return {"state": known.state, "credential": None, "body": body}

    async def _hello(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        service = args.get("service")
        if service not in SERVICE_KINDS:
            raise errors.ParameterInvalid("hello is for gcad and extd")
        # What the service does goes by the answer: the machine that wakes up may be another.
        state, identity = self._who()
        self._services[service] = stream
        if service == "extd":
            self._extd.said(args)
        self._server.keep(stream, lambda: self._gone(service, stream))
        for kind in SERVICE_KINDS[service]:
            if kind in self._known.documents:
                self._push(stream, self._desired(kind))
        return {"state": state, "cloud": identity.get("cloud")}

    def _gone(self, service: str, stream: ipc.Stream) -> None:
        if self._services.get(service) is stream:
            del self._services[service]
            if service == "extd":
                self._extd.gone()

    async def _report(self, stream: ipc.Stream, args: dict[str, Any], progress: ipc.Progress) -> dict[str, Any]:
        kind, data = args.get("kind"), args.get("data")
        if kind not in REPORT_KINDS or not isinstance(data, dict):
            raise errors.ParameterInvalid(f"a report has one of the kinds {', '.join(REPORT_KINDS)} and data")
        try:
            number = self._reports.put(kind, data)
        except OSError as error:
            raise errors.InternalError(
                f"the report cannot be stored: {error.strerror}", "Make room on the disk"
            ) from None
        if kind == "trust":
            # One of root's services has put other anchors in force, or refused to.
            self._go_on()
        return {"id": number}

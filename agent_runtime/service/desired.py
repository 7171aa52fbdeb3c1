# SPDX-License-Identifier: Apache-2.0
"""The frame of root's services, gcad and extd: takes desired state from himds, verifies it, keeps it.

himds is a courier (docs/protocol.md sections 7 and 10). What it pushes is queued on disk, judged in a worker against
`binding.json` and the keys of the cloud profile, and kept or refused. What a service does with kept state is its own.
Standard library only; sleeps until the socket, a timer or a signal wakes it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Optional, Protocol

from agent_runtime import errors
from agent_runtime.platform import local
from agent_runtime.platform.paths import Paths
from agent_runtime.service import binding, ipc
from agent_runtime.service.desired_store import STATE, Store
from agent_runtime.service.judging import Judge, said
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop, Timeout, TimeoutExpired, sleep
from agent_runtime.service.telling import Teller
from agent_runtime.state import config
from agent_runtime.version import VERSION

RECONNECT_FIRST, RECONNECT_MOST = 5.0, 60.0
HELLO_SECONDS = 30.0


class Work(Protocol):
    """What a service does with the documents that it keeps."""

    async def run(self) -> None:
        """Works until it is cancelled."""

    def look(self) -> None:
        """A document that is kept, the local configuration or the binding may have changed."""


class Host(NamedTuple):
    """What the frame gives to a service's work.

    `kept`: payload of the kept document of a kind, None when there is none for the machine that this is, and unless
    himds has said last that the identity is in use, for a copied disk brings documents along; `profile`: the cloud
    profile with the anchors in force, None without a binding; `config`: own and effective values as they were read
    last, None before they could be read; `report`: hands the state of a kind to himds, kept until himds has it.
    """

    loop: Loop
    paths: Paths
    log: Log
    kept: Callable[[str], Optional[dict[str, Any]]]
    profile: Callable[[], Optional[dict[str, Any]]]
    config: Callable[[], Optional[tuple[dict[str, Any], dict[str, Any]]]]
    report: Callable[[str, dict[str, Any]], None]

    def serves(self, kind: str, machine: str) -> bool:
        """Whether the kept document of a kind is one for `machine`. What was carried out for the machine that this one
        was before is nobody's to be told."""
        payload = self.kept(kind)
        return payload is not None and str(payload["machine"]).lower() == machine


class Duty(NamedTuple):
    """What one service is. `kinds` of documents, `report_kind` of its verdicts, `enabled` over the effective config;
    `work` is made once the service runs. `request` gives the request for a certificate of the service's own key, as the
    machine of a vmId; None for services without a key."""

    service: str
    kinds: tuple[str, ...]
    report_kind: str
    folder: str
    log: str
    enabled: Callable[[Mapping[str, Any]], bool]
    request: Optional[Callable[[Loop, Paths, str], Awaitable[str]]] = None
    work: Optional[Callable[[Host], Work]] = None


# The vmId that a key is for, and the request for its certificate.
Offer = tuple[Optional[str], Optional[str]]


class Resident:
    """One running service."""

    def __init__(self, duty: Duty, paths: Paths, log: Log) -> None:
        self._duty = duty
        self._paths = paths
        self._log = log
        self._store = Store(duty.folder, duty.kinds)
        self._loop = Loop(self._task_failed)
        self._teller = Teller(self._loop, log, self._store, duty.report_kind)
        self._config: Optional[tuple[dict[str, Any], dict[str, Any]]] = None
        self._doing: Optional[Work] = None
        # As himds told it last; what is lost with the connection is not the identity.
        self._identity = ""
        self._offered: Offer = (None, None)
        self._judge = Judge(self._loop, paths, log, self._store, self._teller, duty.kinds, self._tell_work)

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        damage = self._store.open()
        if damage:
            self._log.error(damage)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self._loop.stop)
        self._read_config()
        self._drop_strangers()
        kept = [kind for kind in self._duty.kinds if self._store.kept(kind) is not None]
        self._log.info(f"{self._duty.service} {VERSION} started, keeps {', '.join(kept) or 'nothing yet'}")
        self._loop.spawn(self._judge.run(), "judging")
        self._loop.spawn(self._link_forever(), "link to himds")
        if self._duty.work is not None:
            self._doing = self._duty.work(self._host())
            self._loop.spawn(self._doing.run(), "work")
        self._judge.look()
        self._loop.run()
        self._log.info(f"{self._duty.service} stopped")

    def _task_failed(self, name: str, error: BaseException) -> None:
        # A task that is gone leaves a service that looks alive; the service manager starts a whole one.
        self._log.error(f"{name} ended: {type(error).__name__}: {error}")
        self._loop.failure = error

    # -- the way to himds

    async def _link_forever(self) -> None:
        pause, told = RECONNECT_FIRST, False
        while True:
            stream = None
            try:
                self._offered = await self._offer()
                stream = await ipc.connect(self._paths.socket)
                self._teller.linked(stream)
                await self._greet(stream)
                pause, told = RECONNECT_FIRST, False
                await self._listen(stream)
                self._log.warning("himds closed the connection")
            except (OSError, ValueError, TimeoutExpired, errors.AgentError) as problem:
                if not told:
                    self._log.warning(f"no connection to himds, trying again: {said(problem)}")
                told = True
            finally:
                if stream is not None:
                    stream.close()
                self._teller.linked(None)
            await sleep(pause * random.uniform(1.0, 1.2))
            pause = min(pause * 2, RECONNECT_MOST)

    async def _offer(self) -> Offer:
        """The machine that root has bound and the request for a certificate of its key; (None, None) where there is
        neither. Errors: OSError, AgentError of the worker."""
        bound = binding.read(self._paths) if self._duty.request is not None else None
        if self._duty.request is None or bound is None:
            return None, None
        return bound.vm_id, await self._duty.request(self._loop, self._paths, bound.vm_id)

    async def _hello(self, stream: ipc.Stream) -> int:
        """Says who this is; the number of the frame that was sent."""
        number = self._teller.number()
        machine, csr = self._offered
        hello = {"service": self._duty.service, "version": VERSION, "machine": machine, "settingsCsr": csr}
        await stream.send({"v": 1, "id": number, "verb": "hello", "args": hello})
        return number

    async def _greet(self, stream: ipc.Stream) -> None:
        number = await self._hello(stream)
        with Timeout(self._loop, HELLO_SECONDS):
            while True:
                answer = await stream.receive()
                if answer is None:
                    raise ValueError("himds closed the connection")
                if answer.get("id") == number:
                    break
                self._take(answer)
        if answer.get("ok") is not True:
            told = answer.get("error")
            raise errors.from_dict(told if isinstance(told, dict) else {"message": "himds refuses the service"})
        result = answer.get("result")
        state = result.get("state") if isinstance(result, dict) else None
        self._log.info(f"connected to himds, identity is {str(state)[:32]}")
        if str(state) != self._identity:
            self._identity_is(state)
        # Root may have connected another machine while there was nobody to say so.
        self._drop_strangers()
        await self._teller.send_kept()

    async def _listen(self, stream: ipc.Stream) -> None:
        while True:
            frame = await stream.receive()
            if frame is None:
                return
            self._take(frame)
            if frame.get("push") in ("config", "identity"):
                # Another machine may be bound now, with a key of its own.
                offer = await self._offer()
                if offer != self._offered:
                    self._offered = offer
                    await self._hello(stream)

    def _take(self, frame: dict[str, Any]) -> None:
        """One frame of himds: a push, or the answer to a report."""
        push = frame.get("push")
        if push == "desired":
            self._queue(frame.get("kind"), frame.get("document"))
        elif push == "config":
            self._read_config()
            self._drop_strangers()
            self._look()
        elif push == "identity":
            self._log.info(f"identity is {str(frame.get('state'))[:32]}")
            self._identity_is(frame.get("state"))
        else:
            self._teller.answered(frame)

    def _identity_is(self, state: Any) -> None:
        self._identity = str(state)
        self._drop_strangers()
        self._look()

    def _look(self) -> None:
        """What is done goes by configuration and binding, and they may have changed."""
        self._judge.look()
        self._tell_work()

    def _tell_work(self) -> None:
        if self._doing is not None:
            self._doing.look()

    def _queue(self, kind: Any, document: Any) -> None:
        if kind not in self._duty.kinds or not isinstance(document, str):
            self._log.warning(f"himds pushed desired state of kind {str(kind)[:32]!r}, which is not for this service")
            return
        if self._judge.knows(kind, document):
            return
        try:
            self._store.enqueue(kind, document)
        except OSError as problem:
            self._log.error(f"desired state {kind} is kept in memory alone until it is judged: {said(problem)}")
        self._judge.look()

    # -- what the service's own work is given

    def _host(self) -> Host:
        return Host(
            self._loop,
            self._paths,
            self._log,
            self._kept_payload,
            self._profile_in_force,
            lambda: self._config,
            self._report_state,
        )

    def _kept_payload(self, kind: str) -> Optional[dict[str, Any]]:
        if self._identity != "connected":
            return None
        kept, bound = self._store.kept(kind), binding.read(self._paths)
        payload = None if kept is None else binding.payload_of(kept)
        if bound is None or payload is None or str(payload.get("machine")).lower() != bound.vm_id:
            return None
        return payload

    def _profile_in_force(self) -> Optional[dict[str, Any]]:
        bound = binding.read(self._paths)
        return None if bound is None else bound.profile

    def _report_state(self, kind: str, data: dict[str, Any]) -> None:
        self._teller.keep(f"{STATE}{kind}", data)
        self._loop.spawn(self._teller.send(f"{STATE}{kind}", data), "report")

    def _drop_strangers(self) -> None:
        """Removes what was kept for a machine that this one is no longer."""
        bound = binding.read(self._paths)
        for kind in self._duty.kinds:
            kept = self._store.kept(kind)
            if kept is not None and (bound is None or binding.machine_of(kept) != bound.vm_id):
                self._store.drop_kept(kind)
                # What himds was not told in time is not told as another machine's.
                self._store.drop_state(kind)
                self._judge.forget(kind)
                self._log.info(f"desired state {kind} of a former connection removed")

    def _read_config(self) -> None:
        try:
            own = config.load(self._paths)
        except errors.AgentError as problem:
            self._log.error(f"{problem.code}: {problem.message}; going on as before")
            return
        self._config = (dict(own), dict(config.effective(own)))
        enabled = self._duty.enabled(self._config[1])
        if enabled != self._judge.enabled:
            self._log.info(f"the service is {'enabled' if enabled else 'disabled'} by the local configuration")
        self._judge.enabled = enabled


def serve(duty: Duty, paths: Paths) -> int:
    """Exit code 0 after a clean stop, 1 when another process already does this duty, 3 where the agent has no services
    yet."""
    if sys.platform == "win32":
        from agent_runtime.platform import windows

        return windows.refuse_service(duty.service)
    os.umask(0o077)
    for folder in (os.path.dirname(duty.log), duty.folder):
        os.makedirs(folder, mode=0o750 if folder != duty.folder else 0o700, exist_ok=True)
    log = Log(duty.log)
    try:
        with local.alone(duty.folder):
            Resident(duty, paths, log).run()
    except BlockingIOError:
        sys.stderr.write(f"another {duty.service} is running\n")
        return 1
    return 0

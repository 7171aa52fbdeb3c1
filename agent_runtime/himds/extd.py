# SPDX-License-Identifier: Apache-2.0
"""The certificate of extd's own key, to which protected settings are encrypted (docs/protocol.md sections 3 and 6).

extd makes a key for each machine that root binds, while himds connects as that machine: the enrolment takes its request
along. One that comes too late is certified by `renew`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent_runtime import errors
from agent_runtime.himds.identity import Known
from agent_runtime.hub.client import Hub, HubRefusal
from agent_runtime.platform.paths import Paths
from agent_runtime.service.loop import Event, Loop, Timeout, TimeoutExpired, sleep
from agent_runtime.state import atomic

REQUEST_SECONDS = 10.0
"""How long an enrolment waits for extd, which may be making its key."""
FIRST_SECONDS, LAST_SECONDS = 5.0, 900.0
"""Between two questions for the certificate: the first pause, and the longest."""
CERTIFICATE, REQUEST = "settings.crt", "settings.csr"


class Certificate:
    """`hub`: the client, None without a connection; `beat`: a heartbeat now, for the hub certifies for a holder that it
    has just heard."""

    def __init__(
        self, loop: Loop, known: Known, hub: Callable[[], Hub | None], beat: Callable[[], Awaitable[None]]
    ) -> None:
        self._loop = loop
        self._known = known
        self._hub = hub
        self._beat = beat
        self._machine, self._csr = "", ""
        self._is_there = False
        self._heard = Event()
        self._turn = 0

    def said(self, hello: Mapping[str, Any]) -> None:
        """extd says for which machine its key is, and asks for a certificate."""
        told, csr = hello.get("machine"), hello.get("settingsCsr")
        is_offer = isinstance(told, str) and isinstance(csr, str)
        self._machine, self._csr = (str(told).lower(), str(csr)) if is_offer else ("", "")
        self._is_there = True
        self._heard.set()
        if self._is_due():
            # What is there is of another key; a former version that is put back asks only where nothing is.
            with contextlib.suppress(OSError):
                forget(self._known.paths)
        self.ask()

    def gone(self) -> None:
        """extd has closed its connection."""
        self._is_there = False
        self._heard.set()

    async def request(self, vm_id: str) -> str | None:
        """The request for the certificate of extd as the machine `vm_id`; None when extd does not run, or is slow."""
        try:
            with Timeout(self._loop, REQUEST_SECONDS):
                while self._is_there and self._machine != vm_id.lower():
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutExpired:
            self._known.log.warning("extd has not made its key in time; its certificate is asked for later")
        return self._csr if self._machine == vm_id.lower() else None

    def keep(self, csr: str, certificate: object) -> None:
        """What the hub answered to a request; a certificate it need not be. Errors: OSError."""
        if isinstance(certificate, str):
            own = self._known.paths.own
            atomic.write_bytes(os.path.join(own, CERTIFICATE), certificate.encode("ascii"))
            atomic.write_bytes(os.path.join(own, REQUEST), csr.encode("ascii"))

    def ask(self) -> None:
        """Ask for the certificate until it is there: the hub may not be reached, or not be sure yet who asks."""
        self._turn += 1
        self._loop.spawn(self._ask(self._turn), "settings certificate")

    async def _ask(self, turn: int) -> None:
        pause = FIRST_SECONDS
        while turn == self._turn and self._is_due():
            hub = self._hub()
            try:
                if hub is not None:
                    await self._certify(hub)
                    return
            except (HubRefusal, errors.AgentError, OSError) as problem:
                self._known.log.warning(f"extd has no certificate yet: {getattr(problem, 'message', problem)}")
            await sleep(pause)
            pause = min(2 * pause, LAST_SECONDS)

    def _is_due(self) -> bool:
        known = self._known
        if known.state != "connected" or self._machine != str(known.identity["vmId"]).lower():
            return False
        try:
            return atomic.read_bytes(os.path.join(known.paths.own, REQUEST), 65536).decode("ascii") != self._csr
        except (OSError, ValueError):
            return True

    async def _certify(self, hub: Hub) -> None:
        await self._beat()
        csr = self._csr
        body = {"slot": int(self._known.identity["slot"]), "settingsCsr": csr}
        answer = await hub.call(self._known.credential(), "renew", body)
        self.keep(csr, answer.get("settingsCertificate"))


def forget(paths: Paths) -> None:
    """The machine is another, or none. Errors: OSError."""
    for name in (REQUEST, CERTIFICATE):
        atomic.unlink(os.path.join(paths.own, name))

# SPDX-License-Identifier: Apache-2.0
"""Judges documents of desired state that himds has brought: kept, refused, or judged again later (docs/protocol.md
section 7)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional

from agent_runtime import errors
from agent_runtime.identity import trust
from agent_runtime.platform.paths import Paths
from agent_runtime.service import binding, worker
from agent_runtime.service.binding import Bound
from agent_runtime.service.desired_store import TRUST, Store
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Event, Loop, Timer, sleep
from agent_runtime.service.telling import Teller

WORKER_SECONDS = 60.0
# A document whose judging fails this often (no memory, a broken installation) is given up until it is pushed again. One
# for which the disk alone has no room is not: it waits.
ATTEMPTS, ATTEMPT_PAUSE = 5, 60.0
REFUSAL_PAUSE = 5.0

_WHY = {
    "signature": "no key of the cloud profile has signed it",
    "malformed": "it is not a whole document",
    "machine": "it is for another machine",
    "kind": "it is of another kind",
    "generation": "it is older than one accepted before",
    "expired": "it has expired",
    "unbound": "this machine is not connected by its administrator",
    "unverifiable": "it could not be judged",
}


class Judge:
    """Of the documents of one service. `enabled`: whether it takes orders; `accepted` is told of each new document that
    is kept."""

    def __init__(
        self,
        loop: Loop,
        paths: Paths,
        log: Log,
        store: Store,
        teller: Teller,
        kinds: Iterable[str],
        accepted: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._paths = paths
        self._log = log
        self._store = store
        self._teller = teller
        self._kinds = tuple(kinds)
        self._accepted = accepted
        self._wanted = Event()
        self.enabled = True
        # For which machine the kept document of a kind was judged since this process began.
        self._judged: dict[str, tuple[str, str]] = {}
        # What was refused as expired, by kind. It stays queued: it may be this machine's clock that is wrong.
        self._expired: dict[str, str] = {}

    def look(self) -> None:
        """What is queued, the binding or the configuration may have changed."""
        self._wanted.set()

    def knows(self, kind: str, document: str) -> bool:
        """Whether this document is kept, and was judged for the machine that this is."""
        bound = binding.read(self._paths)
        is_judged = bound is not None and self._judged.get(kind) == (bound.vm_id, document)
        return is_judged and self._store.kept(kind) == document

    def forget(self, kind: str) -> None:
        """The kept document of a kind is gone."""
        self._judged.pop(kind, None)

    async def run(self) -> None:
        """Judges what is queued, for ever."""
        failures: dict[str, int] = {}
        timer: Optional[Timer] = None
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if timer is not None:
                timer.cancel()  # one is enough, whatever woke this up
            again = False
            for kind in self._kinds:
                document = self._store.queued(kind)
                # A service that is switched off takes no orders, but it keeps knowing who may give them.
                if document is None or not (self.enabled or kind == TRUST):
                    continue
                if self._is_still_expired(kind, document):
                    again = True
                    continue
                try:
                    if not await self._judge(kind, document):
                        # A himds gone bad must not keep root busy with forgeries.
                        await sleep(REFUSAL_PAUSE)
                    failures.pop(kind, None)
                    again = again or kind in self._expired
                except OSError as problem:
                    # No fault of the document's: it waits until the disk takes it.
                    self._log.error(f"desired state {kind} cannot be kept, trying again: {said(problem)}")
                    again = True
                except errors.AgentError as problem:
                    failures[kind] = failures.get(kind, 0) + 1
                    self._log.error(f"desired state {kind} could not be judged: {said(problem)}")
                    if failures[kind] >= ATTEMPTS:
                        failures.pop(kind)
                        await self._refuse(kind, document, "unverifiable")
                    again = True
            timer = self._loop.later(ATTEMPT_PAUSE, self._wanted.set) if again else None

    def _is_still_expired(self, kind: str, document: str) -> bool:
        """Whether a document was refused as expired before, and neither clock nor binding has been set since."""
        bound = binding.read(self._paths)
        payload = binding.payload_of(document) if self._expired.get(kind) == document else None
        if bound is None or payload is None or binding.machine_of(document) != bound.vm_id:
            return False
        return bool(payload["exp"] <= time.time())

    async def _judge(self, kind: str, document: str) -> bool:
        """Keeps (True) or refuses one document. Errors: OSError, AgentError of the worker; it stays queued then."""
        self._expired.pop(kind, None)
        bound = binding.read(self._paths)
        if bound is None:
            await self._refuse(kind, document, "unbound")
            return False
        question = {
            "document": document,
            "keys": bound.keys,
            "vmId": bound.vm_id,
            "kind": kind,
            "floor": self._store.floor(bound.vm_id, kind),
            "now": time.time(),
        }
        answer = await worker.run(self._loop, "verify-document", question, WORKER_SECONDS)
        payload = answer.get("payload")
        if not isinstance(payload, dict):
            await self._refuse(kind, document, str(answer.get("refused") or "unverifiable"))
            return False
        # While the worker ran, root may have connected this machine anew.
        if binding.read(self._paths) != bound:
            self._wanted.set()
            return True
        generation = int(payload["generation"])
        if kind == TRUST and not await self._adopt(bound, payload, answer.get("anchors"), document):
            return False
        is_new = self._store.kept(kind) != document
        self._store.accept(bound.vm_id, kind, generation, document)
        self._judged[kind] = (bound.vm_id, document)
        if is_new:
            self._log.info(f"desired state {kind} generation {generation} verified and kept")
            self._accepted()
        return True

    async def _adopt(self, bound: Bound, payload: Mapping[str, Any], told: Any, document: str) -> bool:
        """Put the anchors of a verified document in force, and say so. Errors: OSError; it stays queued then."""
        given = binding.profile(self._paths, bound.cloud)
        try:
            made = trust.overlay(given, int(payload["generation"]), payload["content"])
        except ValueError:
            await self._refuse(TRUST, document, "malformed")
            return False
        if trust.effective(given, made) != trust.read(self._paths, given):
            self._log.info(f"trust anchors of generation {made['generation']} are in force")
        trust.write(self._paths, bound.cloud, made)
        data = {"generation": made["generation"], **(told if isinstance(told, dict) else {})}
        self._teller.keep(TRUST, data)
        await self._teller.send(TRUST, data)
        return True

    async def _refuse(self, kind: str, document: str, reason: str) -> None:
        self._log.error(f"desired state {kind} is refused: {_WHY.get(reason, reason[:64])}")
        data = {"desired": {"kind": kind, "accepted": False, "reason": reason}}
        self._teller.keep(kind, data)
        if reason == "expired":
            self._expired[kind] = document
        else:
            try:
                self._store.dismiss(kind, document)
            except OSError as problem:
                self._log.error(f"desired state {kind} that is refused cannot be removed: {said(problem)}")
        await self._teller.send(kind, data)


def said(problem: BaseException) -> str:
    """A failure in a log's words."""
    if isinstance(problem, errors.AgentError):
        return f"{problem.code}: {problem.message}"
    return (problem.strerror or str(problem)) if isinstance(problem, OSError) else str(problem)

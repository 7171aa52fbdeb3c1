# SPDX-License-Identifier: Apache-2.0
"""Heartbeat and wake-up: one long request after another (docs/protocol.md section 6), and what the answers bring."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

from agent_runtime import errors
from agent_runtime.himds.asking import Asking
from agent_runtime.himds.identity import GONE_CODE, KINDS, Known
from agent_runtime.himds.watch import Watch
from agent_runtime.hub import backoff
from agent_runtime.hub.client import Hub, HubRefusal, refusal_of
from agent_runtime.hub.transport import Answer, Broken, Connection
from agent_runtime.identity import machine
from agent_runtime.identity.store import certificate_path, credential_of, descent_of, key_path, stamp
from agent_runtime.platform.base import Machine
from agent_runtime.service import worker
from agent_runtime.service.loop import Loop, Task, Timeout, TimeoutExpired, sleep
from agent_runtime.state import atomic
from agent_runtime.state.atomic import erase
from agent_runtime.version import VERSION

HEAD_SECONDS = 60.0
GRACE_SECONDS = 60.0
LOOK_SECONDS = 3600.0
RENEW_SECONDS = 45 * 86400.0
RENEW_AGAIN_SECONDS = 900.0
STALE_LEASE = "StaleLease"
GONE_SECONDS = 3600.0
QUICK_SECONDS = 5.0


class Woken(Exception):
    """A heartbeat is wanted now."""


def held_state(refusal: HubRefusal) -> str | None:
    """The event for an answer that takes the identity out of use (docs/protocol.md section 9); None for any other.
    Pure."""
    if refusal.code == "quarantined":
        return "quarantine"
    if refusal.code in ("superseded", "identity_conflict"):
        return "park"
    return None


class Keeper:
    """Checks in while the machine has an identity. `deliver` hands a document on, `flush` sends waiting reports,
    `answers_again` is told that the hub takes heartbeats after trouble."""

    def __init__(
        self,
        loop: Loop,
        known: Known,
        computer: Machine,
        watch: Watch,
        deliver: Callable[[str], None],
        look: Callable[[], None],
        flush: Callable[[], None],
        answers_again: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._known = known
        self._computer = computer
        self._watch = watch
        self.asking = Asking(loop, known, computer, watch)
        self._deliver = deliver
        self._look = look
        self._flush = flush
        self._answers_again = answers_again
        self._task: Task | None = None
        self._waiting = False
        self._again = False
        self._looked = 0.0
        self._renew_from = 0.0

    def start(self, hub: Hub) -> None:
        """Begin with an identity."""
        self.stop()
        self._task = self._loop.spawn(self._keep(hub), "check-in")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def wake(self) -> None:
        """A heartbeat now: ends the hold or the pause."""
        if self._task is not None and self._waiting:
            self._waiting = False
            self._task.interrupt(Woken())
        else:
            self._again = True

    async def once(self, hub: Hub, identity: dict[str, Any]) -> None:
        """The first check-in of a connect, without a hold, with the credential of `identity`. Errors: HubRefusal,
        AZCM0026."""
        slot = int(identity["slot"])
        credential = credential_of(self._known.paths, identity)
        self._watch.read(str(identity["tenantId"]))
        self._look_at_the_machine()
        try:
            answer = await self._exchange(hub, credential, slot, 0)
        except Broken as problem:
            raise errors.NetworkFailed(f"the hub cannot be reached: {problem}") from None
        except TimeoutExpired:
            raise errors.NetworkFailed("the hub did not answer the first check-in in time") from None
        await self._take_over(hub, credential, answer)

    async def _keep(self, hub: Hub) -> None:
        failures = cut_short = 0
        hurried = False
        hold = backoff.HOLD_LAST
        while True:
            pause: float | None = None
            try:
                if await self._expired(hub):
                    return
                if self._watch.slept() or time.monotonic() - self._looked > LOOK_SECONDS or not self._watch.digest:
                    self._watch.look()
                    self._look_at_the_machine()
                if self._known.state in machine.HELD:
                    await self._ask(hub)
                    continue
                self._flush()
                # A heartbeat that somebody waits for is not held, nor one that a renewal follows.
                asked, self._again = (0 if self._again or self._renewal_due(hub) else hold), False
                credential = self._known.credential()
                begun = time.monotonic()
                answer = await self._exchange(hub, credential, int(self._known.identity["slot"]), asked)
                if self._known.state in machine.HELD:
                    # Parked while the answer was on its way: its nonce proves this branch, no more is made of it.
                    self._known.keep_lease(epoch=answer["epoch"], slot=answer["slot"], nonce=answer["nonce"])
                    continue
                news = await self._take_over(hub, credential, answer)
                # The first early answer without news asks for another check-in: the machine may have been deleted. A
                # hub that goes on so sees a difference where there is none, and must not keep both sides busy.
                idle = bool(asked) and not news and time.monotonic() - begun < QUICK_SECONDS
                if idle and hurried:
                    pause = QUICK_SECONDS * (1 + random.random())
                hurried = idle
                hold, cut_short = backoff.next_hold(hold, cut_short, full=True)
                hold = min(hold, int(answer.get("holdSeconds", hold)))
                failures = 0
                await self._renew_if_due(hub, wanted=bool(answer.get("renew")))
            except Woken:
                self._again = True
                continue
            except HubRefusal as refusal:
                failures += 1
                pause = self._refused(refusal, failures)
            except (Broken, TimeoutExpired, errors.AgentError, OSError, ValueError, KeyError) as problem:
                failures += 1
                hold, cut_short = backoff.next_hold(hold, cut_short, full=False)
                if failures > 1:
                    hub.try_next_address()
                text = getattr(problem, "message", None) or str(problem) or type(problem).__name__
                self._trouble(getattr(problem, "code", "AZCM0026"), f"no check-in: {text}")
                pause = backoff.delay(failures, random.random())
            if pause is not None:
                await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(Woken):
            self._waiting = True
            await sleep(seconds)
        self._waiting = False

    async def _ask(self, hub: Hub) -> None:
        """The identity is held: ask about it, and wait until it is time to ask again."""
        pause = await self.asking.once(hub)
        if pause is not None and self._known.state in machine.HELD:
            again, self._again = self._again, False
            await self._pause(0 if again else pause)

    async def _exchange(self, hub: Hub, credential: dict[str, Any], slot: int, hold: int) -> dict[str, Any]:
        """One check-in. The heartbeat counts when the head of the answer is there."""
        lease = self._known.lease
        body = {
            "slot": slot,
            "epoch": int(lease.get("epoch", 0)),
            "nonce": str(lease.get("nonce", "")),
            "evidenceDigest": self._watch.digest,
            "agentVersion": VERSION,
            "holdSeconds": hold,
            "bootId": self._computer.boot_id(),
            "generations": self._known.generations(),
        }
        connection: Connection | None = None
        try:
            with Timeout(self._loop, HEAD_SECONDS):
                connection, response, give_back = await hub.begin_checkin(credential, body)
            if response.status != 200:
                with Timeout(self._loop, HEAD_SECONDS):
                    refusal = refusal_of(Answer(response.status, response.headers, await connection.body()))
                give_back()
                if hub.token_refused(refusal):
                    raise errors.CredentialInvalid(f"the hub refused the channel token: {refusal.message}")
                raise refusal
            self._known.beat()
            self._well()  # now, not after a hold of minutes: who waits for an upgrade goes by the error
            if hold and self._again:
                raise Woken  # while the request was on its way, when there was no hold to end yet
            self._waiting = True
            with Timeout(self._loop, hold + GRACE_SECONDS):
                content = await connection.body()
            self._waiting = False
            give_back()
        except BaseException:
            self._waiting = False
            if connection is not None:
                connection.close()
            raise
        self._known.beat()
        answer = json.loads(content)
        if not isinstance(answer, dict) or not isinstance(answer.get("generations"), dict):
            raise ValueError("the answer to the check-in is not what the protocol says")
        return answer

    async def _take_over(self, hub: Hub, credential: dict[str, Any], answer: dict[str, Any]) -> bool:
        """Fetch what changed or has grown old, then remember the lease: a crash between the two fetches again. True:
        there was news."""
        news = False
        mine = self._known.generations()
        for kind, generation in answer["generations"].items():
            if kind not in KINDS or int(generation) == 0:
                continue
            is_new = mine.get(kind) != int(generation)
            if not is_new and hub.now() < self._known.fetch_again.get(kind, 0.0):
                continue
            fetched = await hub.desired(credential, kind)
            self._known.keep_document(kind, str(fetched["document"]))
            mine[kind] = int(fetched["generation"])
            self._deliver(kind)
            news = news or is_new
        self._known.keep_lease(epoch=answer["epoch"], slot=answer["slot"], nonce=answer["nonce"], generations=mine)
        self._watch.accepted()
        return news

    def _look_at_the_machine(self) -> None:
        self._looked = time.monotonic()
        self._look()

    # Trouble

    def _well(self) -> None:
        if self._known.state in machine.HELD:
            return  # the error of a held identity says why it is held
        if self._known.store.record.error is not None:
            with contextlib.suppress(OSError):  # a full disk: with the next heartbeat once more
                self._known.store.apply("trouble", error=None)
                self._known.log.info("the hub answers again")
            self._answers_again()

    def _trouble(self, code: str, message: str) -> None:
        if self._known.state in machine.HELD:
            self._known.log.warning(f"{code}: {message}")
            return
        before = self._known.store.record.error
        if before is None or (before.get("code"), before.get("message")) != (code, message):
            self._known.log.warning(f"{code}: {message}")
            error = {"code": code, "message": message, "at": stamp(time.time())}
            with contextlib.suppress(OSError):
                self._known.store.apply("trouble", error=error)

    def _refused(self, refusal: HubRefusal, failures: int) -> float:
        """Note a refusal; the pause before the next check-in."""
        event = held_state(refusal)
        if event is not None:
            reason = refusal.code
            self._known.hold(event, reason, f"the hub took this identity out of use: {refusal.message} ({reason})")
            # Twins wake up together; the question is what they all ask next.
            return backoff.delay(2, random.random(), refusal.retry_after)
        if refusal.status == 404 or refusal.code == "unauthorized_client":
            self._trouble(GONE_CODE, f"the hub does not know this machine any more: {refusal.message}")
            return backoff.delay(failures, random.random(), backoff.LAST)
        self._trouble(
            "AZCM0041" if refusal.status in (400, 401, 403) else "AZCM0026", f"the hub refused: {refusal.message}"
        )
        return backoff.delay(failures, random.random(), refusal.retry_after)

    async def _expired(self, hub: Hub) -> bool:
        """By the hub's clock: a machine that wakes up in another year must not give its identity up."""
        ends = self._known.identity.get("certificateExpires")
        if ends is None or self._known.state in machine.HELD:
            return False  # whose a held identity is, is in question: who is told that it expired deletes the original
        if hub.now() < float(ends) and self._known.state != "expired":
            return False
        await hub.ask_clock(self._known.identity["tenantId"])
        if hub.now() < float(ends):
            if self._known.state == "expired":
                self._known.store.apply("resume")
                self._known.log.info("the identity has not expired by the hub's clock")
            return False
        if self._known.state == "expired":
            return True
        message = "the identity's certificate has expired; disconnect and connect this machine"
        self._known.log.error(f"AZCM0081: {message}")
        self._known.store.apply("expire", error={"code": "AZCM0081", "message": message, "at": stamp(time.time())})
        return True

    # Renewal

    def _renewal_due(self, hub: Hub, wanted: bool = False) -> bool:
        """Whether the certificate is to be renewed now. `wanted`: the hub asks for it."""
        ends = self._known.identity.get("certificateExpires")
        is_near = wanted or (ends is not None and float(ends) - hub.now() <= RENEW_SECONDS)
        return is_near and self._known.state not in machine.HELD and time.monotonic() >= self._renew_from

    async def _renew_if_due(self, hub: Hub, wanted: bool) -> None:
        if self._renewal_due(hub, wanted):
            await self._renew(hub)

    async def _renew(self, hub: Hub) -> None:
        """A new key and certificate in the next slot; the first check-in with it retires this one. Right after a
        heartbeat, because the hub renews for the holder that it has just heard alone."""
        known, paths = self._known, self._known.paths
        slot = int(known.identity["slot"])
        descent = descent_of(known.identity)
        # Whatever goes wrong: heartbeats go on meanwhile, held as usual, and there are weeks for it.
        self._renew_from = time.monotonic() + RENEW_AGAIN_SECONDS
        key, certificate = key_path(paths, slot + 1, descent), certificate_path(paths, slot + 1, descent)
        made = await worker.run(self._loop, "make-key", {"path": key, "name": known.identity["clientId"]})
        try:
            answer = await hub.call(known.credential(), "renew", {"slot": slot, "csr": made["csr"]})
        except HubRefusal as refusal:
            if refusal.code != STALE_LEASE:
                raise
            # Somebody else uses this identity: the hub finds out who, and renews for the machine itself afterwards.
            known.log.warning(f"the certificate is not renewed now: {refusal.message}")
            return
        if int(answer["slot"]) != slot + 1:
            raise ValueError(f"the hub renewed slot {answer['slot']}, not {slot + 1}")
        atomic.write_bytes(certificate, answer["certificate"].encode("ascii"))
        about = await worker.run(self._loop, "describe-certificate", {"certificate": certificate, "key": key})
        known.store.apply(
            "renewed", slot=slot + 1, certificateThumbprint=about["thumbprint"], certificateExpires=about["notAfter"]
        )
        self._renew_from = 0.0
        hub.forget_channel_token()
        for old in (key_path(paths, slot, descent), certificate_path(paths, slot, descent)):
            erase(old)
        known.log.info(f"the identity's certificate was renewed; credential slot {slot + 1}")

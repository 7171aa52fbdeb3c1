# SPDX-License-Identifier: Apache-2.0
"""A held identity: the hub is asked whose it is, and what it answers is done (docs/protocol.md section 14.2)."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from agent_runtime import errors
from agent_runtime.himds.identity import GONE_CODE, Known
from agent_runtime.himds.watch import Watch
from agent_runtime.hub import backoff
from agent_runtime.hub.client import Hub, HubRefusal
from agent_runtime.hub.transport import Broken
from agent_runtime.identity import birth
from agent_runtime.identity.store import certificate_path, descent_of, key_path, next_key_path, stamp
from agent_runtime.platform.base import Machine
from agent_runtime.service import worker
from agent_runtime.service.loop import Loop, Timeout, TimeoutExpired
from agent_runtime.state import atomic

REASONS = ("evidence", "superseded", "identity_conflict", "quarantined")
AGAIN_SECONDS = 3600.0
# Root's service takes up an offer within this time; then the hub is asked for another.
OFFER_SECONDS = 900.0
SHORTEST_SECONDS = 5.0
# The hub lets the other holder prove itself before it answers.
ANSWER_SECONDS = 60.0
_TEXT_LIMIT = 512


class Ruling(NamedTuple):
    """What an answer means. `event`: for the identity, None for none; `about`: what is kept of it; `pause`: seconds
    until the next question; `offer`: the resource id that the hub offers."""

    event: str | None
    message: str
    about: dict[str, Any]
    pause: float
    offer: str | None = None


def ruling(status: int, code: str, body: Mapping[str, Any], retry_after: float | None, failures: int) -> Ruling:
    """The meaning of an answer that is not 200. Nothing in it can do more than keep the identity out of use. Pure."""
    differs = [str(name)[:64] for name in body.get("differs") or [] if isinstance(name, str)][:16]
    about: dict[str, Any] = {"verdict": _short(body.get("verdict")), "differs": differs}
    names = f" ({', '.join(differs)} differ)" if differs else ""
    offered = body.get("enrolment")
    if status == 409 and code == "identity_conflict":
        if isinstance(offered, dict) and isinstance(offered.get("resourceId"), str):
            where = offered["resourceId"][:_TEXT_LIMIT]
            return Ruling("park", f"this machine is a clone{names}; it becomes {where}", about, OFFER_SECONDS, where)
        if about["verdict"] == "undecided":
            wait = _seconds(body.get("retryAfter"), 120.0)
            return Ruling("park", f"the hub has not decided yet whose identity this is{names}", about, wait)
        text = f"this machine is a clone{names}: its identity is in use elsewhere"
        return Ruling("park", text, about, AGAIN_SECONDS)
    if status == 403 and code == "quarantined":
        until, contact = _short(body.get("until")), _short(body.get("contact"))
        text = f"the hub has put this machine into quarantine{names}"
        text += f" until {until}" if until else " until somebody releases it"
        text += f"; ask {contact}" if contact else ""
        return Ruling("quarantine", text, {**about, "until": until, "contact": contact}, AGAIN_SECONDS)
    if status == 404 or code == "unauthorized_client":
        text = "the hub does not know this machine any more; disconnect it with --force-local-only"
        return Ruling("park", text, {"code": GONE_CODE}, AGAIN_SECONDS)
    limit = AGAIN_SECONDS if status in (400, 401, 403) else backoff.LAST
    return Ruling(None, "", {}, backoff.delay(failures, random.random(), retry_after, last=limit))


def _short(value: object) -> str | None:
    return value[:_TEXT_LIMIT] if isinstance(value, str) and value.isprintable() else None


def _seconds(value: object, otherwise: float) -> float:
    wanted = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise
    return min(max(wanted, SHORTEST_SECONDS), AGAIN_SECONDS)


class Asking:
    """Asks for a held identity, one question at a time."""

    def __init__(self, loop: Loop, known: Known, computer: Machine, watch: Watch) -> None:
        self._loop = loop
        self._known = known
        self._computer = computer
        self._watch = watch
        self._failures = 0

    def question(self) -> dict[str, Any]:
        """The body of the request without assertion, request id and CSR."""
        known = self._known
        items = self._watch.read(str(known.identity["tenantId"]))
        told = str((known.store.record.error or {}).get("reason"))
        return {
            "slot": int(known.identity["slot"]),
            "epoch": int(known.lease.get("epoch", 0)),
            "nonce": str(known.lease.get("nonce", "")),
            "bootId": self._computer.boot_id(),
            "reason": told if told in REASONS else "evidence",
            "evidence": {"digest": self._watch.digest, "items": items},
            "hostname": socket.gethostname(),
            "imageId": birth.image_id(known.paths),
        }

    async def once(self, hub: Hub) -> float | None:
        """Ask; the seconds until the next question, None when the identity is in use again."""
        known = self._known
        body = self.question()
        try:
            with Timeout(self._loop, ANSWER_SECONDS):
                csr = await self.request(body["reason"])
                answer = await hub.ask_identity(known.credential(), {**body, "csr": csr})
            await self._in_use(hub, answer, body["evidence"]["items"])
        except HubRefusal as refusal:
            self._failures += 1
            return self._refused(refusal, body["reason"])
        except (Broken, TimeoutExpired, errors.AgentError, OSError, ValueError, KeyError, TypeError) as problem:
            self._failures += 1
            if self._failures > 1:
                hub.try_next_address()
            text = getattr(problem, "message", None) or str(problem) or type(problem).__name__
            known.log.warning(f"the hub could not be asked about the {known.state} identity: {text}")
            return backoff.delay(self._failures, random.random())
        self._failures = 0
        return None

    async def request(self, reason: str) -> str | None:
        """A signing request for a new key, where the old credential is retired."""
        if reason != "superseded":
            return None
        arguments = {"path": next_key_path(self._known.paths), "name": self._known.identity["clientId"]}
        made = await worker.run(self._loop, "make-key", arguments)
        return str(made["csr"])

    async def _in_use(self, hub: Hub, answer: Mapping[str, Any], items: list[dict[str, Any]]) -> None:
        """The hub has decided for this machine. The key and certificate are on the disk before they are named."""
        known = self._known
        verdict, slot = str(answer["verdict"]), int(answer["slot"])
        epoch, nonce = int(answer["epoch"]), str(answer["nonce"])
        credential: dict[str, Any] = {}
        if answer.get("certificate") is not None:
            descent = descent_of(known.identity)
            key, certificate = key_path(known.paths, slot, descent), certificate_path(known.paths, slot, descent)
            atomic.write_bytes(certificate, str(answer["certificate"]).encode("ascii"))
            os.replace(next_key_path(known.paths), key)
            about = await worker.run(self._loop, "describe-certificate", {"certificate": certificate, "key": key})
            credential = {
                "slot": slot,
                "certificateThumbprint": about["thumbprint"],
                "certificateExpires": about["notAfter"],
            }
        elif slot != int(known.identity["slot"]):
            raise ValueError(f"the hub speaks of credential slot {slot} and gave no certificate for it")
        hub.forget_channel_token()
        known.keep_lease(epoch=epoch, slot=slot, nonce=nonce)
        known.keep_evidence(items)
        known.resume(f"the hub has decided: {verdict}", **credential)

    def _refused(self, refusal: HubRefusal, reason: str) -> float:
        known = self._known
        found = ruling(refusal.status, refusal.code, refusal.body, refusal.retry_after, self._failures)
        if found.event is None:
            known.log.warning(f"the hub did not decide about the {known.state} identity: {refusal.message}")
            return found.pause
        known.hold(found.event, "quarantined" if found.event == "quarantine" else reason, found.message, **found.about)
        if found.offer is None:
            atomic.unlink(known.paths.adoption)
        else:
            offer = {"v": 1, "at": stamp(time.time()), "resourceId": found.offer}
            atomic.write_json(known.paths.adoption, offer, durable=False)
        return found.pause * (1 + random.random() / 10)

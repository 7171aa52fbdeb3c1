# SPDX-License-Identifier: Apache-2.0
"""Tokens for applications: fetched from the hub as the machine, kept until a tenth of their life is left (A.5, A.6)."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from agent_runtime import errors
from agent_runtime.hub.client import HubRefusal
from agent_runtime.service import http
from agent_runtime.service.loop import Event

RESOURCES = 256


class NoToken(Exception):
    """Why there is no token, in the form of an error answer. 4xx: the caller must not try again at once; 5xx and
    503: it may."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text


class _Kept:
    """A token as an answer: everything but the seconds that are left is ready."""

    def __init__(self, body: dict[str, Any], offset: float) -> None:
        # By our clock, because expires_in is counted by it.
        self.ends = float(body["expires_on"]) - offset
        life = float(body["expires_in"])
        # Kept until the larger of five minutes or a tenth of its life remains (docs/protocol.md section 13).
        self.fresh_until = self.ends - max(300.0, life / 10)
        rest = {
            "expires_on": str(int(body["expires_on"])),
            "ext_expires_in": str(int(life)),
            "not_before": str(int(body["not_before"])),
            "resource": body["resource"],
            "token_type": "Bearer",
            "client_id": body["client_id"],
            "object_id": body["object_id"],
        }
        token = json.dumps({"access_token": body["access_token"]})[:-1]
        # expires_in stands before expires_on: one client keeps the later of the two (A.5).
        self._before = f'{token}, "expires_in": "'
        self._after = '", ' + json.dumps(rest)[1:]

    def answer(self) -> bytes:
        left = max(0, int(self.ends - time.time()))
        return http.response_bytes(200, f"{self._before}{left}{self._after}".encode("ascii"))


class Tokens:
    """`ask` gets a token of the hub's channel; `state` gives identity state and public identity, `offset` the
    clock's error, `why` the reason for which the identity is held."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[dict[str, Any]]],
        state: Callable[[], tuple[str, dict[str, Any]]],
        offset: Callable[[], float],
        why: Callable[[], str] = lambda: "",
    ) -> None:
        self._ask = ask
        self._why = why
        self._state = state
        self._offset = offset
        self._kept: dict[str, _Kept] = {}
        self._asked: dict[str, Event] = {}

    def forget(self) -> None:
        """The identity has changed: no token of the old one is given out."""
        self._kept.clear()

    def cached(self, resource: str) -> bytes | None:
        """The answer out of the cache."""
        kept = self._kept.get(resource)
        return kept.answer() if kept is not None and time.time() < kept.fresh_until else None

    def unavailable(self) -> NoToken | None:
        """Why this machine gives no tokens now."""
        state, _ = self._state()
        if state == "connected":
            return None
        if state in ("parked", "quarantined"):
            why = f": {self._why()}" if self._why() else ""
            text = f"The identity of this machine is {state}{why}; see 'azcmagent show'."
            return NoToken(503, "identity_unavailable", text)
        if state == "sealed":
            return NoToken(503, "identity_unavailable", "This machine is a sealed image and has no identity.")
        if state == "expired":
            return NoToken(400, "identity_expired", "The identity has expired: disconnect and connect this machine.")
        return NoToken(400, "not_connected", "This machine is not connected; connect it with 'azcmagent connect'.")

    def is_ours(self, selector: str, value: str) -> bool:
        """Whether a selector names the machine's own identity."""
        _, identity = self._state()
        ours = {"client_id": "clientId", "object_id": "principalId"}.get(selector, "resourceId")
        return str(identity.get(ours, "")).lower() == value.lower()

    async def fetch(self, resource: str, fresh: bool) -> bytes:
        """The answer with a token of the hub; callers that want the same one at once share it. Errors: NoToken."""
        while not fresh and resource in self._asked:
            await self._asked[resource].wait()
            ready = self.cached(resource)
            if ready is not None:
                return ready
        asked = self._asked[resource] = Event()
        try:
            kept = await self._fetch(resource)
        finally:
            if self._asked.get(resource) is asked:
                del self._asked[resource]
            asked.set()
        problem = self.unavailable()
        if problem is not None:  # the identity was taken out of use while the hub was asked
            raise problem
        if len(self._kept) >= RESOURCES:
            del self._kept[next(iter(self._kept))]
        self._kept[resource] = kept
        return kept.answer()

    async def _fetch(self, resource: str) -> _Kept:
        old = self._kept.get(resource)
        try:
            return _Kept(await self._ask(resource), self._offset())
        except HubRefusal as refusal:
            if refusal.code == "InvalidResource":
                raise NoToken(400, "invalid_resource", refusal.message) from None
            if refusal.passing and old is not None and old.ends > time.time() + 60:
                return old
            status = 503 if refusal.passing else 400
            raise NoToken(status, "unauthorized_client", f"The hub gave no token: {refusal.message}.") from None
        except errors.AgentError as problem:
            if old is not None and old.ends > time.time() + 60:
                return old
            raise NoToken(503, "temporarily_unavailable", f"{problem.message}. {problem.remedy}.") from None

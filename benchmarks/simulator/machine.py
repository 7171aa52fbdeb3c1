# SPDX-License-Identifier: Apache-2.0
"""One simulated machine: identity, lease, generations, and the verbs of docs/protocol.md sections 5 and 6."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from agent_runtime.hub import backoff
from benchmarks.simulator.client import JSON, Refusal, Site
from benchmarks.simulator.wire import Answer, Broken, Connection, connect

API_VERSION = "2026-07-15"
AGENT_VERSION = "1.0.0.1"
QUICK_SECONDS = 5.0
KINDS = ("resource", "settings", "extensions", "policy", "runcommands", "agent", "trust")
# What an answer of the hub makes of an identity (docs/protocol.md section 9).
HELD = {"superseded": "parked", "identity_conflict": "parked", "quarantined": "quarantined"}


@dataclass
class State:
    """What a machine keeps over a restart, and what it has seen. Times are Unix seconds by the simulator's clock.

    `state`: new, connected, parked, quarantined. `beats`: heads of check-in answers with status 200; `errors`: answers
    by code; `broken`: connections that failed; `last`: (time, status, code) of the last answer.
    """

    name: str
    vm_id: str
    resource_id: str
    key: int
    state: str = "new"
    identity: dict[str, Any] = field(default_factory=dict)
    slot: int = 0
    epoch: int = 0
    nonce: str = ""
    generations: dict[str, int] = field(default_factory=dict)
    token: str = ""
    token_ends: float = 0.0
    beats: int = 0
    last_beat: float = 0.0
    last: tuple[float, int, str] = (0.0, 0, "")
    errors: dict[str, int] = field(default_factory=Counter)
    broken: int = 0

    @property
    def evidence(self) -> dict[str, Any]:
        """One signal, different on each machine."""
        item = {"name": "machine_id", "status": "ok", "digest": sha256(self.vm_id.encode()).hexdigest()}
        return {"digest": sha256(f"machine_id=ok:{item['digest']}\n".encode()).hexdigest(), "items": [item]}

    def as_dict(self) -> dict[str, Any]:
        """For the state file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> State:
        """Back from the state file."""
        known = {item.name for item in fields(cls)}
        kept = {name: value for name, value in found.items() if name in known}
        return cls(**{**kept, "last": tuple(kept["last"]), "errors": Counter(kept["errors"])})


class Link:
    """A kept-alive connection to one of the hub's addresses; made anew when it was lost or another one is wanted."""

    def __init__(self, site: Site, address: int) -> None:
        self.address = address
        self._site = site
        self._connection: Connection | None = None
        self._connected_to = -1

    async def open(self) -> tuple[Connection, str]:
        """The connection, and the host that it leads to.

        Errors: Broken.
        """
        if self._connection is None or not self._connection.alive or self._connected_to != self.address:
            self.close()
            self._connected_to = self.address
            self._connection = await connect(self._site.host(self.address), self._site.tls, self._site.pace.connect)
        return self._connection, urlsplit(self._site.host(self._connected_to)).netloc

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Machine:
    """A machine and its connection. Verbs raise Refusal (an answer with an error) or Broken."""

    def __init__(self, site: Site, seen: State, address: int = 0) -> None:
        self.site = site
        self.seen = seen
        self.link = Link(site, address)

    @property
    def address(self) -> int:
        """Number of the hub's address that the next exchange goes to."""
        return self.link.address

    @address.setter
    def address(self, number: int) -> None:
        self.link.address = number

    # The wire

    async def _exchange(
        self,
        operation: str,
        method: str,
        path: str,
        token: str | None,
        body: bytes,
        *,
        form: bool = False,
        seconds: float | None = None,
        more: dict[str, str] | None = None,
        head: Callable[[int], None] | None = None,
    ) -> Answer:
        begun = time.perf_counter()
        try:
            connection, host = await self.link.open()
            names = {"Host": host, "User-Agent": f"hawser-agent/{AGENT_VERSION}", "Accept": JSON, **(more or {})}
            if token is not None:
                names["Authorization"] = f"Bearer {token}"
            if body:
                names["Content-Type"] = "application/x-www-form-urlencoded" if form else JSON
            async with asyncio.timeout(self.site.pace.answer if seconds is None else seconds):
                answer = await connection.exchange(method, path, names, body, head)
        except (Broken, TimeoutError) as error:
            self.close()
            self.seen.broken += 1
            self.site.broken += 1
            raise error if isinstance(error, Broken) else Broken("no answer in time") from error
        return self._judged(operation, answer, begun)

    def _judged(self, operation: str, answer: Answer, begun: float) -> Answer:
        self.site.statuses[answer.status] += 1
        if self.site.on_exchange is not None:
            self.site.on_exchange(operation, time.perf_counter() - begun)
        if answer.status < 400:
            self.seen.last = (time.time(), answer.status, "")
            return answer
        refusal = Refusal(answer)
        self.seen.last = (time.time(), answer.status, refusal.code)
        self.seen.errors[refusal.code] = self.seen.errors.get(refusal.code, 0) + 1
        self.site.codes[refusal.code] += 1
        raise refusal

    def close(self) -> None:
        """End the connection; the next verb makes another."""
        self.link.close()

    async def _call(
        self, operation: str, method: str, path: str, token: str | None, body: Any, **how: Any
    ) -> dict[str, Any]:
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        answer = await self._exchange(operation, method, path, token, data, **how)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    async def _as_machine(self, operation: str, method: str, path: str, body: Any, **how: Any) -> dict[str, Any]:
        """As the agent does it: a channel token that is refused is asked for anew, once."""
        for attempt in (1, 2):
            token = await self.channel_token()
            try:
                lease = {"Hawser-Lease": self.seen.nonce}
                return await self._call(operation, method, f"/channel/v1/{path}", token, body, more=lease, **how)
            except Refusal as refusal:
                if attempt == 2 or refusal.status != 401 or refusal.code in HELD:
                    raise
                self.seen.token = ""
        raise AssertionError("the second attempt returns or raises")

    # Connecting

    async def put(self, token: str, location: str, tags: dict[str, str] | None = None) -> dict[str, Any]:
        """Step 2 of docs/protocol.md section 5; the group is made where it is missing."""
        body = {
            "location": location,
            "tags": tags or {},
            "identity": {"type": "SystemAssigned"},
            "properties": {"vmId": self.seen.vm_id, "clientPublicKey": self.site.keys[self.seen.key].public_text},
        }
        path = f"{self.seen.resource_id}?api-version={API_VERSION}"
        return await self._call("put", "PUT", path, token, body, more={"Hawser-Create-Group": "true"})

    async def delete(self, token: str) -> None:
        """DELETE of the machine's resource."""
        await self._exchange("delete", "DELETE", f"{self.seen.resource_id}?api-version={API_VERSION}", token, b"")

    async def enrol(self, token: str, request_id: str | None = None) -> None:
        """Step 3."""
        body = {
            "protocol": 1,
            "requestId": request_id or str(uuid4()),
            "resourceId": self.seen.resource_id,
            "vmId": self.seen.vm_id,
            "csr": self.site.keys[self.seen.key].csr,
            "settingsCsr": None,
            "agentVersion": AGENT_VERSION,
            "osType": "linux",
            "evidence": self.seen.evidence,
        }
        told = await self._call("enrol", "POST", "/channel/v1/enrol", token, body)
        self.seen.identity = {name: told[name] for name in ("clientId", "principalId", "tenantId", "certificate")}
        self.seen.slot, self.seen.epoch, self.seen.nonce = told["slot"], told["epoch"], told["nonce"]
        self.seen.generations, self.seen.token = {}, ""

    async def channel_token(self) -> str:
        """The channel token; a new one when less than a fifth of its life is left."""
        if not self.seen.token or time.time() >= self.seen.token_ends:
            told = await self.ask_token("api://hawser-channel/.default")
            self.seen.token = str(told["access_token"])
            self.seen.token_ends = time.time() + 0.8 * float(told["expires_in"])
        return self.seen.token

    async def ask_token(self, scope: str) -> dict[str, Any]:
        """Client credentials with a PS256 assertion."""
        client_id, path = self.seen.identity["clientId"], self.site.token_path
        signed = self.site.keys[self.seen.key].assertion(
            client_id,
            self.seen.identity["certificate"],
            f"{self.site.urls[0]}{path}",
            {"slot": self.seen.slot, "resourceId": self.seen.resource_id},
        )
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": signed,
            "scope": scope,
        }
        answer = await self._exchange("token", "POST", path, None, urlencode(form).encode(), form=True)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    async def connect(self, token: str, location: str, tags: dict[str, str] | None = None) -> None:
        """All of section 5 but the inventory report."""
        await self.put(token, location, tags)
        await self.enrol(token)
        await self.take_over(await self.checkin(0))
        self.seen.state = "connected"

    # The channel

    async def checkin(self, hold: int) -> dict[str, Any]:
        """One check-in; the answer is not taken over yet. `hold`: seconds."""
        seen = self.seen
        body = {
            "protocol": 1,
            "requestId": str(uuid4()),
            "slot": seen.slot,
            "epoch": seen.epoch,
            "nonce": seen.nonce,
            "evidenceDigest": seen.evidence["digest"],
            "agentVersion": AGENT_VERSION,
            "holdSeconds": hold,
            "bootId": None,
            "generations": {kind: seen.generations.get(kind, 0) for kind in KINDS},
        }
        limit = hold + self.site.pace.answer
        return await self._as_machine("checkin", "POST", "checkin", body, seconds=limit, head=self._beat)

    def _beat(self, status: int) -> None:
        if status == 200:
            self.seen.beats += 1
            self.seen.last_beat = time.time()

    async def take_over(self, answer: dict[str, Any]) -> bool:
        """Fetch what changed, then keep the lease. True when there was news."""
        news = False
        mine = dict(self.seen.generations)
        for kind, generation in answer["generations"].items():
            if generation and mine.get(kind) != generation:
                mine[kind] = await self.desired(kind)
                news = True
        self.seen.epoch, self.seen.slot, self.seen.nonce = answer["epoch"], answer["slot"], answer["nonce"]
        self.seen.generations = mine
        return news

    async def desired(self, kind: str) -> int:
        """Fetch one document, and carry it out if it is of extensions. Returns its generation.

        Errors: ValueError when it is another machine's, or of another kind or generation than told.
        """
        told = await self._as_machine("desired", "GET", f"desired/{kind}", None)
        part = str(told["document"]).split(".")[1]
        payload = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        expected = (self.seen.vm_id, kind, told["generation"])
        if (payload["machine"], payload["kind"], payload["generation"]) != expected:
            raise ValueError(f"{self.seen.name}: a document of {payload['machine']}, {payload['kind']} was given")
        if self.site.on_document is not None:
            self.site.on_document(self, kind, int(told["generation"]))
        if kind == "extensions":
            await self._enable(int(told["generation"]), payload["content"]["extensions"])
        return int(told["generation"])

    async def _enable(self, generation: int, wanted: list[dict[str, Any]]) -> None:
        """What extd reports where packages are there and handlers take no time: enable has begun, and it went well."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        same = {"operation": "enable", "code": 0, "message": "", "status": None, "at": at}
        ready = {"handler": {"status": "Ready", "code": 0, "message": ""}}
        for state in ("installing", "succeeded"):
            items = [
                {**{name: item[name] for name in ("name", "publisher", "type", "version", "sequence")}, "state": state}
                for item in wanted
            ]
            entries = [{**item, **same, **ready} for item in items]
            await self.report("extensions", {"generation": generation, "extensions": entries})
            if state == "installing" and self.site.on_enable is not None:
                self.site.on_enable(self)

    async def report(self, kind: str, data: dict[str, Any]) -> None:
        """One report."""
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        item = {"id": str(uuid4()), "kind": kind, "createdAt": created, "data": data}
        body = {"protocol": 1, "requestId": str(uuid4()), "reports": [item]}
        await self._as_machine("report", "POST", "report", body)

    async def renew(self) -> None:
        """The next credential slot, with the next key of the pool; the first heartbeat with it retires this one."""
        body = {"protocol": 1, "requestId": str(uuid4()), "slot": self.seen.slot}
        body["csr"] = self.site.keys[self.seen.key + 1].csr
        told = await self._as_machine("renew", "POST", "renew", body)
        self.seen.key += 1
        self.seen.identity["certificate"], self.seen.slot = told["certificate"], told["slot"]
        self.seen.token = ""

    # Life

    async def live(self) -> None:
        """Check in for ever, as agent_runtime/himds/checkin.py does; ends when cancelled."""
        pace = self.site.pace
        await asyncio.sleep(random.random() * pace.spread)
        failures = cut_short = 0
        hurried = False
        hold = pace.hold
        while True:
            pause = 0.0
            begun = time.monotonic()
            try:
                answer = await self.checkin(hold)
                news = await self.take_over(answer)
                self.seen.state = "connected"
                idle = bool(hold) and not news and time.monotonic() - begun < min(QUICK_SECONDS, hold / 2)
                if idle and hurried:
                    pause = QUICK_SECONDS * (1 + random.random())
                hurried = idle
                hold, cut_short = backoff.next_hold(hold, cut_short, full=True)
                hold = min(hold, int(answer["holdSeconds"]), pace.hold)
                failures = 0
                if answer["renew"]:
                    await self.renew()
            except Refusal as refusal:
                failures += 1
                pause = self._refused(refusal, failures)
            except (Broken, ValueError, KeyError):
                failures += 1
                hold, cut_short = backoff.next_hold(hold, cut_short, full=False)
                hold = min(hold, pace.hold)
                if failures > 1:
                    self.address += 1
                pause = self._delay(failures, None)
            if pause:
                await asyncio.sleep(pause)

    def _delay(self, failures: int, after: float | None) -> float:
        return backoff.delay(failures, random.random(), after, first=self.site.pace.first, last=self.site.pace.last)

    def _refused(self, refusal: Refusal, failures: int) -> float:
        if refusal.code in HELD:
            self.seen.state = HELD[refusal.code]
            return self.site.pace.gone
        if refusal.status == 404 or refusal.code == "unauthorized_client":
            return self._delay(failures, self.site.pace.last)
        return self._delay(failures, refusal.after)

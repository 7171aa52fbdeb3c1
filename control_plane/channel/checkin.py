# SPDX-License-Identifier: Apache-2.0
"""`POST /channel/v1/checkin`: heartbeat and wake-up in one (docs/protocol.md section 6). The hot path: plain ASGI.

The head and one blank are sent before the hold, so that the agent knows its heartbeat was taken; the rest is held until
a generation differs, the hold has passed, or the hub stops.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

from starlette.types import Receive, Scope, Send

from control_plane.arm.status import DISCONNECTED_AFTER
from control_plane.bodies import CHANNEL_BODY, check_length, guid, integer, json_object, needed_text, too_large
from control_plane.channel import branches, callers, evidence, forks, slots
from control_plane.channel.branches import Held, Main, Seal, Step
from control_plane.channel.documents import KINDS
from control_plane.channel.live import FLUSH_SECONDS, Record
from control_plane.channel.verdict import Lease
from control_plane.clock import now, rfc3339
from control_plane.errors import ApiError, bad_content
from control_plane.http import error_of
from control_plane.hub import Hub
from control_plane.storage import audit
from control_plane.storage.models import Machine
from control_plane.storage.pulse import Pulse

MAX_HOLD = 300
KEEP_ALIVE = 30.0
RENEW_BEFORE = 45 * 86400
SETTLE_LOOKS = 4
BESIDE = (Lease.LOST, Lease.CONFLICT, Lease.OTHER, Lease.FORK)
"""What leaves the main branch as it is."""
log = logging.getLogger("hawser.hub.checkin")


def read(body: dict[str, Any]) -> dict[str, Any]:
    """The body, checked as docs/schemas/channel-checkin.schema.json says.

    Errors: ApiError 400.
    """
    callers.check_protocol(body)
    guid(body, "requestId")
    integer(body, "slot", 1, 1 << 31)
    integer(body, "epoch", 0, 1 << 31)
    integer(body, "holdSeconds", 0, MAX_HOLD)
    needed_text(body, "agentVersion", 64)
    if not isinstance(body.get("nonce"), str) or len(body["nonce"]) > 64:
        raise bad_content("'nonce' must be a text of at most 64 characters.", "nonce")
    if not evidence.is_digest(body.get("evidenceDigest")):
        raise bad_content("'evidenceDigest' must be 64 hexadecimal digits in lower case.", "evidenceDigest")
    boot = body.get("bootId")
    if boot is not None and (not isinstance(boot, str) or not 0 < len(boot) <= 64):
        raise bad_content("'bootId' must be null or a text of at most 64 characters.", "bootId")
    known = body.get("generations")
    if not isinstance(known, dict) or not all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in known.values()
    ):
        raise bad_content("'generations' must be an object of integers.", "generations")
    return body


def next_pulse(
    old: Pulse | None, body: dict[str, Any], seal: Seal, epoch: int, at: int, peer: str
) -> tuple[Pulse, Step]:
    """The hot row after a check-in, and what it did to the branches of the lease. Pure but for the nonce drawn.

    A heartbeat of another branch is one of the machine: it may be the machine's own after a lost answer. It changes
    neither the main branch nor what is known of its holder.
    """
    request_id = body["requestId"].lower()
    row = Main(old.epoch, old.nonce, old.previous_nonce, old.request_id) if old else None
    step = branches.step(seal, epoch, row, Held(body["epoch"], body["nonce"], request_id, body.get("bootId")), at)
    conflicts = (old.conflicts if old else 0) + (step.lease is Lease.CONFLICT)
    since = old.connected_since if old and 0 < old.seen >= at - DISCONNECTED_AFTER else at
    if old is not None and step.lease in BESIDE:
        return replace(old, seen=at, connected_since=since, conflicts=conflicts), step
    digest, address = body["evidenceDigest"], peer[:45]
    return Pulse(at, since, epoch, step.main, step.previous, request_id, digest, address, conflicts), step


def is_new_holder(old: Pulse | None, step: Step, seal: Seal, nonce: str, boot_id: str | None) -> bool:
    """True when a heartbeat may be that of another holder than the one before: on another branch, after another boot,
    or in another epoch, of which nothing is remembered. Pure."""
    if old is None or old.epoch == 0:
        return False  # just enrolled: nobody can have copied it
    given_to, boot = seal.boot(nonce), branches.boot_mark(boot_id)
    if step.lease is Lease.LOST and any(boot) and given_to == boot:
        return False  # the agent was started again while its heartbeat was held
    if step.lease in BESIDE or step.lease in (Lease.REBASE, Lease.RECOVERED, Lease.ROLLBACK):
        return True
    return branches.boots_differ(seal.boot(old.nonce), boot)


def differs(wanted: dict[str, int], known: dict[str, Any]) -> bool:
    """True when the agent has another generation of any kind than the hub."""
    return any(wanted.get(kind, 0) != known.get(kind, 0) for kind in KINDS)


def answer(record: Record, epoch: int, nonce: str, slot: int, hold: int, at: int) -> dict[str, Any]:
    """The body of the answer."""
    return {
        "protocol": callers.PROTOCOL,
        "epoch": epoch,
        "slot": slot,
        "nonce": nonce,
        "serverTime": rfc3339(at),
        "holdSeconds": hold,
        "generations": {kind: record.generations.get(kind, 0) for kind in KINDS},
        "renew": record.expires - at <= RENEW_BEFORE,
    }


async def _body(scope: Scope, receive: Receive) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length":
            check_length(value.decode("latin-1"), CHANNEL_BODY)
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise bad_content("The body ended early.")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > CHANNEL_BODY:
            raise too_large(CHANNEL_BODY)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _store_version(hub: Hub, machine_id: int, version: str) -> None:
    with hub.database.write() as session:
        machine = session.get(Machine, machine_id)
        if machine is not None:
            machine.agent_version = version


async def _begin(hub: Hub, scope: Scope, receive: Receive) -> tuple[Record, tuple[int, str], dict[str, Any]]:
    """The record, epoch and nonce for the answer, and the body."""
    authorization = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value.decode("latin-1")
    at = now()
    body = read(json_object(await _body(scope, receive)))
    record, takes_over = await callers.machine(hub, authorization, at, body["slot"])
    hub.twins.admit(record.machine_id, body["evidenceDigest"], body.get("bootId"))
    peer = scope["client"][0] if scope.get("client") else ""
    if record.stale:
        await hub.live.reread(record)
    old = record.pulse
    pulse, step = next_pulse(old, body, _seal(hub, record), hub.epoch, at, peer)
    if hub.live.shared and step.lease not in (Lease.ADVANCE, Lease.REPEAT):
        old, pulse, step = await _asked_again(hub, record, body, at, peer)
    if step.lease is Lease.CONFLICT:
        log.warning("Unknown nonce from %s inside one epoch; counted, nobody accused.", record.resource_id)
    _hint(hub, record, old, step, body, at)
    pulse, given, is_main = await _placed(hub, record, old, pulse, step, body, at, peer)
    if step.lease is Lease.ROLLBACK:
        await asyncio.to_thread(_note_rollback, hub, record)
    elif old is not None and old.evidence_digest != body["evidenceDigest"] and 0 < body["epoch"] < hub.epoch:
        await asyncio.to_thread(_present, hub, record.machine_id, body["evidenceDigest"])
    if record.agent_version != body["agentVersion"]:
        await asyncio.to_thread(_store_version, hub, record.machine_id, body["agentVersion"])
        record.agent_version = body["agentVersion"]
    hub.live.beat(record, pulse)
    hub.twins.heard(record.machine_id, body["evidenceDigest"])
    await hub.live.claim(record)
    if takes_over and is_main:
        # Only the machine itself ends its former credential: whoever holds another branch may be a copy.
        await asyncio.to_thread(slots.use, hub, record.machine_id, body["slot"])
        record = await hub.live.find(record.client_id) or record
    return record, (pulse.epoch, given), body


def _hint(hub: Hub, record: Record, old: Pulse | None, step: Step, body: dict[str, Any], at: int) -> None:
    """Remember what hints at another holder. A machine holds one heartbeat at a time, unless its connection has died
    unseen."""
    if record.waiters or is_new_holder(old, step, _seal(hub, record), body["nonce"], body.get("bootId")):
        hub.twins.challenge(record.machine_id, at)


async def _placed(
    hub: Hub, record: Record, old: Pulse | None, pulse: Pulse, step: Step, body: dict[str, Any], at: int, peer: str
) -> tuple[Pulse, str, bool]:
    """The hot row, the nonce for the answer, and whether the caller is the holder of the main branch now.

    Errors: ApiError 409 `identity_conflict`, 403 `quarantined`.
    """
    if old is None or step.lease not in BESIDE:
        return pulse, step.given, True
    holder = forks.Holder(body["evidenceDigest"], body.get("bootId"), body["nonce"], body["requestId"].lower(), peer)
    if hub.twins.lost_main(record.machine_id, old, _seal(hub, record)):
        return *forks.succeed(hub, record, old, holder, at), True
    if step.lease is Lease.FORK:
        return *(await forks.settle(hub, record, old, holder, step, at)), True
    return pulse, step.given, False


def _seal(hub: Hub, record: Record) -> Seal:
    return Seal(hub.keys.lease_key, record.machine_id, hub.epoch)


def _present(hub: Hub, machine_id: int, given: str) -> None:
    with hub.database.write() as session:
        machine = session.get(Machine, machine_id)
        if machine is not None and (known := evidence.after_gap(machine.evidence or {}, given)) is not None:
            machine.evidence = known


def _note_rollback(hub: Hub, record: Record) -> None:
    log.warning("%s goes on from an older state; nobody else has its identity.", record.resource_id)
    with hub.database.write() as session:
        audit.record(session, audit.Actor("machine", record.client_id), "machines/rollback", record.resource_id)


async def _asked_again(
    hub: Hub, record: Record, body: dict[str, Any], at: int, peer: str
) -> tuple[Pulse | None, Pulse, Step]:
    """The same over what other processes know: a nonce is unknown, and a fork is one, only when it is still so after
    every process has written its heartbeats, and none of them has died."""
    for _ in range(SETTLE_LOOKS):
        hub.set_epoch(await hub.live.reread(record))
        old = record.pulse
        pulse, step = next_pulse(old, body, _seal(hub, record), hub.epoch, at, peer)
        if step.lease not in (Lease.CONFLICT, Lease.FORK):
            break
        await asyncio.sleep(FLUSH_SECONDS)
        await asyncio.to_thread(hub.find_dead)
    return old, pulse, step


async def _gone(receive: Receive) -> None:
    """Ends when the connection does: the body was read, so nothing else can come."""
    await receive()


async def _hold(hub: Hub, record: Record, seconds: int, receive: Receive, send: Send) -> bool:
    """Wait for a reason to answer. False when the agent went away."""
    loop = asyncio.get_running_loop()
    waiter = hub.live.hold(record)
    gone = asyncio.create_task(_gone(receive))
    ends = loop.time() + seconds
    try:
        while not hub.live.stopping:
            left = ends - loop.time()
            if left <= 0:
                break
            await asyncio.wait({waiter, gone}, timeout=min(left, KEEP_ALIVE), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return False
            if waiter.done():
                break
            if ends - loop.time() > 0:
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
        return True
    finally:
        if waiter in record.waiters:
            record.waiters.remove(waiter)
        gone.cancel()


async def endpoint(hub: Hub, scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application of this one path."""
    try:
        record, (epoch, nonce), body = await _begin(hub, scope, receive)
    except Exception as error:  # noqa: BLE001 - the edge: everything becomes an answer
        await _refuse(error_of(error), send)
        return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"cache-control", b"no-store")],
        }
    )
    hold = 0 if hub.twins.is_shown(record.machine_id, body["nonce"]) else body["holdSeconds"]
    if hold and not differs(record.generations, body["generations"]) and not hub.live.stopping:
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        if not await _hold(hub, record, hold, receive, send):
            return
        lead = b""
    else:
        lead = b" "
    told = answer(record, epoch, nonce, body["slot"], MAX_HOLD, now())
    data = lead + json.dumps(told, separators=(",", ":")).encode()
    await send({"type": "http.response.body", "body": data, "more_body": False})


async def _refuse(error: ApiError, send: Send) -> None:
    data = json.dumps(error.envelope(), separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": data})

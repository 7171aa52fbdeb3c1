# SPDX-License-Identifier: Apache-2.0
"""`POST /channel/v1/identity`: a parked machine asks whose identity it has (docs/protocol.md 14.2, 14.3)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.authority import assertions
from control_plane.bodies import guid, integer, needed_text, one_of, text
from control_plane.channel import branches, enrol, enrolments, evidence, returning, twins, verdict
from control_plane.channel.branches import Main, Seal
from control_plane.channel.callers import check_protocol
from control_plane.channel.live import Record
from control_plane.channel.verdict import Judgement, Question, Word
from control_plane.clock import now, rfc3339
from control_plane.errors import ApiError, TokenError, bad_content, not_found
from control_plane.fleet import profiles
from control_plane.http import Reply
from control_plane.hub import Hub
from control_plane.storage import audit, machines
from control_plane.storage import twins as rows
from control_plane.storage.models import Credential, Machine
from control_plane.storage.pulse import Pulse
from control_plane.storage.twin_models import Twin
from control_plane.storage.twins import Found, Key

REASONS = ("evidence", "superseded", "identity_conflict", "quarantined")
AGAIN_SECONDS = 3600
_OPERATION = "identity"
log = logging.getLogger("hawser.hub.twins")


@dataclass(frozen=True)
class Asked:
    """The body, checked. `vector`: the evidence, with its digest."""

    request_id: str
    assertion: str
    epoch: int
    nonce: str
    boot_id: str | None
    reason: str
    vector: dict[str, Any]
    hostname: str
    image_id: str | None
    csr: str | None
    peer: str


@dataclass(frozen=True)
class Decided:
    """The answer; the hot row when the asker may go on; the key of the asker's row when it may not."""

    reply: Reply
    lease: Pulse | None = None
    barred: Key | None = None


@dataclass(frozen=True)
class Proven:
    """The machine that an assertion speaks for, and the slot of its certificate with its state."""

    machine_id: int
    client_id: str
    slot: int
    state: str


def read(body: dict[str, Any], peer: str) -> Asked:
    """The body, checked as docs/schemas/channel-identity.schema.json says.

    Errors: ApiError 400.
    """
    check_protocol(body)
    integer(body, "slot", 1, 1 << 31)
    nonce = body.get("nonce")
    if not isinstance(nonce, str) or len(nonce) > 64:
        raise bad_content("'nonce' must be a text of at most 64 characters.", "nonce")
    return Asked(
        request_id=guid(body, "requestId"),
        assertion=needed_text(body, "assertion", 32768),
        epoch=integer(body, "epoch", 0, 1 << 31),
        nonce=nonce,
        boot_id=text(body, "bootId", 64, required=False),
        reason=one_of(body, "reason", REASONS),
        vector=evidence.read(body),
        hostname=needed_text(body, "hostname", 255),
        image_id=profiles.image_id(body.get("imageId")),
        csr=text(body, "csr", 16384, required=False),
        peer=peer,
    )


def _refused() -> ApiError:
    return ApiError(
        401,
        "InvalidAuthenticationToken",
        "The assertion is not one of a machine that this hub knows, or not valid now.",
    )


def audiences(hub: Hub) -> list[str]:
    """What an assertion for this path names: the path under every name of the hub."""
    settings = hub.settings
    origins = {settings.url, *(f"https://{host}" for host in settings.known_hosts)}
    return [f"{origin}/channel/v1/identity" for origin in sorted(origins)]


def prove(hub: Hub, asked: Asked, at: int) -> Proven:
    """Who asks. A retired certificate is believed here and nowhere else: it proves which machine this was once.

    Errors: ApiError 401; 404 for a machine that was deleted, told to who holds a certificate of ours.
    """
    try:
        header, claims = assertions.read(asked.assertion)
        client_id = str(claims.get("sub")).lower()
        known = audiences(hub)
        with hub.database.read() as session:
            machine = session.scalars(
                select(Machine).where(Machine.client_id == client_id, Machine.enrolled.is_not(None))
            ).one_or_none()
            credentials = _credentials(session, machine.id) if machine is not None else []
        for item in credentials:
            certificate = x509.load_pem_x509_certificate(item.certificate.encode())
            if machine is not None and assertions.matches(header, certificate):
                assertions.verify(asked.assertion, header, claims, certificate, client_id, known, at)
                return Proven(machine.id, client_id, item.slot, item.state)
        returned = returning.prove(hub, (asked.assertion, header, claims), client_id, known, at)
        if returned is not None:
            return Proven(returned[1], client_id, returned[0].slot or 1, verdict.CURRENT)
        if machine is None and returning.certified(hub, asked.assertion, header, claims, client_id, known, at):
            raise not_found(client_id)
    except TokenError as error:
        raise _refused() from error
    raise _refused()


def _credentials(session: Session, machine_id: int) -> list[Credential]:
    query = select(Credential).where(Credential.machine_id == machine_id).order_by(Credential.slot.desc())
    return list(session.scalars(query))


async def ask(hub: Hub, body: dict[str, Any], peer: str) -> Reply:
    """The answer.

    Errors: ApiError 400, 401 `InvalidAuthenticationToken`, 404 `ResourceNotFound`, 429 `TooManyRequests`.
    """
    hub.gate.address(peer)
    asked = read(body, peer)
    at = now()
    try:
        proven = await asyncio.to_thread(prove, hub, asked, at)
    except ApiError as error:
        hub.refusals.note("twins/ask", error.code, peer)
        raise
    hub.gate.machine(proven.client_id)
    hub.gate.everybody()
    hub.gate.heard()
    record = await hub.live.find(proven.client_id)
    if record is None:
        raise not_found(proven.client_id)
    before = await asyncio.to_thread(_remembered, hub, proven, asked)
    if before is not None:
        return Reply(200, {**before, "serverTime": rfc3339(at)})
    if record.stale:
        await hub.live.reread(record)
    pulse = record.pulse
    silent = None if pulse is None or not pulse.seen else max(0, at - pulse.seen)
    maybe = hub.live.shared or bool(record.waiters) or (silent is not None and silent < verdict.SILENCE)
    holder = await hub.twins.proves_alive(record) if maybe else None
    if record.stale:
        await hub.live.reread(record)
    decided = await asyncio.to_thread(_decide, hub, record, proven, asked, holder, silent, at)
    if decided.barred is not None:
        hub.twins.bar(record.machine_id, decided.barred.digest, decided.barred.boot)
        hub.twins.show(record, asked.nonce)
    if decided.lease is not None:
        await asyncio.to_thread(hub.twins.apply, record.machine_id)
        hub.live.beat(record, decided.lease)
        await hub.live.claim(record)
        hub.live.dropped(record.machine_id)
    return decided.reply


def _remembered(hub: Hub, proven: Proven, asked: Asked) -> dict[str, Any] | None:
    with hub.database.read() as session:
        return enrol.remembered(session, proven.machine_id, asked.request_id, _OPERATION)


def _facts(
    hub: Hub,
    record: Record,
    proven: Proven,
    asked: Asked,
    recorded: dict[str, Any],
    holder: str | None,
    silent: int | None,
    at: int,
) -> Question:
    seal, old = Seal(hub.keys.lease_key, record.machine_id, hub.epoch), record.pulse
    row = Main(old.epoch, old.nonce, old.previous_nonce, old.request_id) if old else None
    newest = branches.newest(seal, hub.epoch, row, asked.epoch, asked.nonce, at)
    current = row is not None and row.epoch == hub.epoch == asked.epoch
    return Question(
        alive=holder is not None,
        silent=silent,
        newest=newest,
        behind=current and not newest,
        slot=proven.state,
        differs=verdict.differing(recorded.get("items", []), asked.vector["items"]),
        agrees=verdict.agreeing(recorded.get("items", []), asked.vector["items"]),
        favoured=verdict.favours_asker(
            evidence.fitting(recorded), evidence.presented(recorded), asked.vector["digest"], holder
        ),
    )


def _decide(
    hub: Hub, record: Record, proven: Proven, asked: Asked, holder: str | None, silent: int | None, at: int
) -> Decided:
    """What the asker is told. `holder`: the evidence of another one that is alive."""
    with hub.database.write() as session:
        machine = session.get(Machine, record.machine_id)
        if machine is None:
            raise not_found(proven.client_id)
        recorded = machine.evidence or {}
        facts = _facts(hub, record, proven, asked, recorded, holder, silent, at)
        judged = verdict.question(facts)
        key = _key(hub, record, asked, recorded.get("digest", asked.vector["digest"]), facts)
        name, image = rows.origin(session, machine.id)
        settings = rows.profile(session, name)
        outcome = verdict.outcome(judged.word, settings.policy(image), settings.moved, sealed=image is not None)
        if judged.word is Word.WAIT:
            outcome = "wait"
        row, everyone = rows.find(session, machine.id, key), rows.find(session, machine.id, Key(""))
        mine = _decided(hub, session, row)
        decision = mine or _decided(hub, session, everyone)
        if decision == "release":
            judged, outcome = judged if judged.word is Word.MOVED else Judgement(Word.SAME), None
        elif decision is not None and outcome is not None:
            outcome = decision
        elif everyone is not None and everyone.state == rows.OPEN and not _fits(recorded, asked, facts):
            judged, outcome = Judgement(Word.UNDECIDED), verdict.QUARANTINE
        if outcome is None and judged.evicts and holder is not None:
            evicted = Found("question", Word.CLONE, settings.policy(image), address=_address(record))
            rows.note(session, machine, Key(holder), evicted, at)
        if outcome is None:
            return Decided(*_accepted(hub, session, record, machine, proven, asked, judged, (key, Key("")), at))
        if outcome == "wait":
            actor, target = audit.Actor("machine", machine.client_id), record.resource_id
            if hub.refusals.first("twins/wait", target):
                audit.record(session, actor, "twins/wait", target, detail={"differs": list(facts.differs)})
            return Decided(_conflict(Word.UNDECIDED, facts.differs, retry=judged.seconds))
        told = Found("question", judged.word, outcome, facts.differs, asked.peer, asked.hostname, asked.image_id)
        row = rows.note(session, machine, key, told, at, decision=mine)
        reply = _held(hub, session, record, machine, asked, judged.word, outcome, row, settings, name, image, at)
        return Decided(reply, barred=key)


def _decided(hub: Hub, session: Session, row: Twin | None) -> str | None:
    """What an operator has said of a holder, as long as it was not carried out: an adoption is with the first heartbeat
    of the new machine. Whoever asks before that has broken it off, and begins it again."""
    if row is None or row.state == rows.HEALED:
        return None
    if row.state == rows.ADOPTED and machines.was_heard(session, row.became or "", hub.live.pulse):
        return None
    return row.decision


def _fits(recorded: dict[str, Any], asked: Asked, facts: Question) -> bool:
    return not facts.differs and asked.vector["digest"] in evidence.fitting(recorded)


def _address(record: Record) -> str:
    return record.pulse.address if record.pulse is not None else ""


def _key(hub: Hub, record: Record, asked: Asked, recorded: str, facts: Question) -> Key:
    """Which row an asker has: its evidence where that tells it from the recorded, else its boot where that tells it
    from the holder that goes on (copied with its memory it has the same), else its name."""
    digest = asked.vector["digest"]
    if facts.differs or digest != recorded:
        return Key(digest)
    boot = twins.mark(asked.boot_id)
    seal = Seal(hub.keys.lease_key, record.machine_id, hub.epoch)
    main = seal.boot(record.pulse.nonce) if record.pulse is not None and facts.alive else None
    if not boot or (main is not None and main.hex() == boot):
        return Key(digest, f"?{enrolments.asker(asked.hostname)[:7]}")
    return Key(digest, boot)


def _accepted(
    hub: Hub,
    session: Session,
    record: Record,
    machine: Machine,
    proven: Proven,
    asked: Asked,
    judged: Judgement,
    keys: tuple[Key, ...],
    at: int,
) -> tuple[Reply, Pulse]:
    machine.evidence = asked.vector
    rows.settle(session, machine, keys, at)
    slot, certificate = proven.slot, None
    if proven.state == verdict.RETIRED and asked.csr is not None:
        last = max(item.slot for item in _credentials(session, machine.id) if item.state != verdict.NEXT)
        made = enrol.next_credential(hub, session, machine, last, asked.csr)
        slot, certificate = made.slot, made.certificate
    nonce = Seal(hub.keys.lease_key, machine.id, hub.epoch).main(asked.boot_id)
    body = {
        "protocol": 1,
        "verdict": judged.word.value,
        "epoch": hub.epoch,
        "slot": slot,
        "nonce": nonce,
        "certificate": certificate,
        "serverTime": rfc3339(at),
    }
    enrol.remember(session, machine.id, asked.request_id, _OPERATION, body)
    detail = {"verdict": judged.word.value, "reason": asked.reason, "slot": slot, "address": asked.peer}
    audit.record(
        session, audit.Actor("machine", machine.client_id), "twins/accepted", record.resource_id, detail=detail
    )
    old = record.pulse
    since = old.connected_since if old and 0 < old.seen >= at - verdict.SILENCE else at
    conflicts = old.conflicts if old else 0
    previous, digest = asked.nonce[:16], asked.vector["digest"]
    return Reply(200, body), Pulse(
        at, since, hub.epoch, nonce, previous, asked.request_id, digest, asked.peer[:45], conflicts
    )


def _conflict(word: Word, differs: tuple[str, ...], *, retry: int | None = None, offered: Any = None) -> Reply:
    error = twins.conflict().envelope()
    body: dict[str, Any] = {**error, "verdict": word.value, "differs": list(differs)}
    if retry is not None:
        body["retryAfter"] = max(1, retry)
    else:
        body["enrolment"] = offered
    return Reply(409, body)


def _held(
    hub: Hub,
    session: Session,
    record: Record,
    machine: Machine,
    asked: Asked,
    word: Word,
    outcome: str,
    row: Twin,
    settings: profiles.Settings,
    profile: str,
    image: str | None,
    at: int,
) -> Reply:
    differs = tuple(row.differs)
    if outcome == verdict.REJECT:
        return _conflict(word, differs, retry=None if word is Word.CLONE else AGAIN_SECONDS)
    if outcome == verdict.QUARANTINE:
        return _quarantined(word, differs, settings)
    subscription, _, rest = record.resource_id.removeprefix("/subscriptions/").partition("/resourceGroups/")
    wish = enrolments.Wish(
        asker=enrolments.asker("adopt", machine.vm_id, row.digest, asked.boot_id, asked.hostname),
        hostname=asked.hostname,
        digest=asked.vector["digest"],
        profile=profile,
        settings=settings,
        image_id=image,
        parent=machine.vm_id,
        twin_id=row.id,
        place=(subscription, rest.partition("/")[0], machine.location),
    )
    try:
        with session.begin_nested():
            offered = enrolments.offer(hub, session, wish, at)
    except ApiError as error:
        # The verdict stands also where no name can be given; what is wrong there is the hub's operator's to mend.
        row.outcome = verdict.QUARANTINE
        rows.add_history(row, at, "no offer", code=error.code)
        log.error("No name can be offered to a clone of %s: %s", record.resource_id, error.message)
        return _quarantined(word, differs, settings)
    return _conflict(word, differs, offered=offered)


def _quarantined(word: Word, differs: tuple[str, ...], settings: profiles.Settings) -> Reply:
    told = ApiError(
        403,
        "quarantined",
        "The identity of this machine is in quarantine until somebody decides about it with 'hawser-hub twins'.",
    )
    body = {"verdict": word.value, "differs": list(differs), "until": None, "contact": settings.contact or None}
    return Reply(403, {**told.envelope(), **body})

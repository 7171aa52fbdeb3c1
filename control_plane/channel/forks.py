# SPDX-License-Identifier: Apache-2.0
"""A fork was proven by a check-in: who loses, and what is written down (docs/protocol.md section 14.3)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from control_plane.channel import evidence, twins, verdict
from control_plane.channel.branches import Seal, Step
from control_plane.channel.live import Record
from control_plane.channel.verdict import Fork
from control_plane.hub import Hub
from control_plane.storage import twins as rows
from control_plane.storage.models import Machine
from control_plane.storage.pulse import Pulse
from control_plane.storage.twins import Found, Key

SUSPECT = Key("")


@dataclass(frozen=True)
class Holder:
    """The one that presented the branch beside the main one."""

    digest: str
    boot_id: str | None
    nonce: str
    request_id: str
    address: str


async def settle(hub: Hub, record: Record, old: Pulse, holder: Holder, step: Step, at: int) -> tuple[Pulse, str]:
    """The hot row and the nonce for the answer, when the holder of the other branch is the machine.

    Errors: ApiError 409 `identity_conflict` when it is the one that loses, 403 `quarantined` when both do.
    """
    older = step.older_boot and not hub.twins.loses_by_boot(record.machine_id, holder.boot_id)
    seal = Seal(hub.keys.lease_key, record.machine_id, hub.epoch)
    judged = await asyncio.to_thread(_judge, hub, record.machine_id, old, seal.boot(old.nonce), holder, older, at)
    await asyncio.to_thread(hub.twins.apply, record.machine_id)
    if judged is Fork.BOTH:
        hub.live.wake(record)
        raise twins.quarantined()
    if judged in (Fork.OTHER, Fork.UNDECIDED_OTHER):
        raise twins.conflict()
    return succeed(hub, record, old, holder, at)


def succeed(hub: Hub, record: Record, old: Pulse, holder: Holder, at: int) -> tuple[Pulse, str]:
    """The hot row and the nonce for the answer, when a holder takes the place of the one on the main branch."""
    hub.live.wake(record)  # the loser is told with its next heartbeat
    made = Seal(hub.keys.lease_key, record.machine_id, hub.epoch).main(holder.boot_id)
    pulse = replace(
        old,
        seen=at,
        nonce=made,
        previous_nonce=holder.nonce[:16],
        request_id=holder.request_id,
        evidence_digest=holder.digest,
        address=holder.address[:45],
    )
    return pulse, made


def _judge(
    hub: Hub, machine_id: int, old: Pulse, main_boot: bytes | None, holder: Holder, older: bool, at: int
) -> Fork:
    with hub.database.write() as session:
        machine = session.get(Machine, machine_id)
        if machine is None:
            return Fork.OTHER  # deleted meanwhile: its next token says so
        recorded = machine.evidence or {}
        judged = verdict.fork(
            evidence.fitting(recorded),
            old.evidence_digest,
            holder.digest,
            older_boot=older,
            presented=evidence.presented(recorded),
        )
        key, found = _loser(judged, old, main_boot, holder)
        name, image = rows.origin(session, machine.id)
        settings = rows.profile(session, name)
        word = verdict.Word.CLONE if found == "clone" else verdict.Word.UNDECIDED
        outcome = verdict.outcome(word, settings.policy(image), settings.moved, sealed=image is not None)
        if judged is Fork.BOTH:
            outcome = verdict.QUARANTINE
        if key is not None:
            told = Found("fork", found, outcome or verdict.QUARANTINE, (), holder.address)
            rows.note(session, machine, key, told, at)
        return judged


def _loser(judged: Fork, old: Pulse, main_boot: bytes | None, holder: Holder) -> tuple[Key | None, str]:
    """The key of the row, and the word of the verdict. No key where nothing tells the loser from the other holder: it
    is refused by its nonce alone then."""
    if judged is Fork.BOTH:
        return SUSPECT, "suspect"
    if judged is Fork.OTHER:
        return Key(holder.digest), "clone"
    if judged is Fork.MAIN:
        return Key(old.evidence_digest), "clone"
    other = twins.mark(holder.boot_id)
    main = main_boot.hex() if main_boot and any(main_boot) else ""
    loser, winner = (other, main) if judged is Fork.UNDECIDED_OTHER else (main, other)
    digest = holder.digest if judged is Fork.UNDECIDED_OTHER else old.evidence_digest
    return (Key(digest, loser) if loser and loser != winner else None), "undecided"

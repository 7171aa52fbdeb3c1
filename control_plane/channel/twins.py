# SPDX-License-Identifier: Apache-2.0
"""What the running hub keeps in memory of twins: whose heartbeats are refused, and who waits for a holder to prove
itself. Both are small: nothing is kept of a machine without a twin.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, field

from sqlalchemy import case, func, select

from control_plane.channel import evidence
from control_plane.channel.branches import Main, Seal, boot_mark, is_main
from control_plane.channel.live import FLUSH_SECONDS, Live, Record
from control_plane.channel.verdict import SILENCE, may_renew
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.storage import twins as rows
from control_plane.storage.database import Database
from control_plane.storage.models import Machine
from control_plane.storage.pulse import Pulse
from control_plane.storage.twin_models import Twin

EVERY_SECONDS = 5.0
"""How soon another process of the hub, or a command, is obeyed."""
WAKE_PAUSE = 2.0
"""Between two heartbeats that a holder is asked for, however many ask."""
PROOF_SECONDS = 15.0
"""A holder that was just asked for heartbeats pauses for up to ten seconds before the next, and is asked WAKE_PAUSE
after it was asked last: shorter, and the second of two clones that ask in a row is told to wait."""
MOST_CHALLENGED = 10_000
"""Machines that are remembered for it, before those of which it is long ago are forgotten."""
log = logging.getLogger("hawser.hub.twins")


@dataclass
class Barred:
    """Of one machine: digests of evidence and marks of boots whose heartbeats are refused; `everyone`: all are but
    those whose evidence `fits` the recorded one: strangers who fight about an identity do not take its owner down."""

    digests: set[str] = field(default_factory=set)
    boots: set[str] = field(default_factory=set)
    everyone: bool = False
    fits: frozenset[str] = frozenset()

    def suspects(self, digest: str) -> bool:
        """Everybody is suspect, and this evidence is no exception."""
        return self.everyone and digest not in self.fits


def conflict() -> ApiError:
    """409: the identity is in use by another holder."""
    return ApiError(
        409,
        "identity_conflict",
        "The identity of this machine is in use elsewhere: this machine is a copy of another one, or was copied. The "
        "agent asks the hub about it; see 'azcmagent show'.",
    )


def quarantined() -> ApiError:
    """403: nobody may use the identity until somebody decides."""
    return ApiError(
        403,
        "quarantined",
        "Two machines use this identity and neither is the one that was connected. An operator decides with "
        "'hawser-hub twins'.",
    )


def mark(boot_id: str | None) -> str:
    """A boot as rows name it; empty when it was not told."""
    found = boot_mark(boot_id)
    return found.hex() if any(found) else ""


def _add(barred: Barred, digest: str, boot: str) -> None:
    if boot:
        barred.boots.add(boot)
    elif digest:
        barred.digests.add(digest)
    else:
        barred.everyone = True


class Twins:
    """One for each hub process. The loop owns it, but for `apply`."""

    def __init__(self, database: Database, live: Live) -> None:
        self._database = database
        self._live = live
        self._barred: dict[int, Barred] = {}
        self._shown: dict[int, set[str]] = {}
        self._changing = threading.Lock()
        self._touched: set[int] = set()
        self._waiting: dict[int, set[asyncio.Future[str]]] = {}
        self._woken: dict[int, float] = {}
        self._challenged: dict[int, int] = {}
        self._read: tuple[object, ...] = ()

    def admit(self, machine_id: int, digest: str, boot_id: str | None) -> None:
        """Errors: ApiError 409 `identity_conflict`, 403 `quarantined` for a holder whose heartbeats are refused."""
        barred = self._barred.get(machine_id)
        if barred is None:
            return
        if barred.suspects(digest):
            raise quarantined()
        if digest in barred.digests or (barred.boots and mark(boot_id) in barred.boots):
            raise conflict()

    def lost_main(self, machine_id: int, pulse: Pulse | None, seal: Seal) -> bool:
        """True when the holder of the main branch is one whose heartbeats are refused."""
        barred = self._barred.get(machine_id)
        if barred is None or pulse is None:
            return False
        if pulse.evidence_digest in barred.digests or barred.suspects(pulse.evidence_digest):
            return True
        boot = seal.boot(pulse.nonce)
        return boot is not None and any(boot) and boot.hex() in barred.boots

    def vouch(
        self,
        record: Record,
        seal: Seal,
        epoch: int,
        nonce: str | None,
        *,
        renews: bool = False,
        certifies: bool = False,
    ) -> None:
        """A request that is no heartbeat says by its nonce which holder makes it. Where a machine has a twin that was
        refused, only the main branch is served; a new certificate is for the main branch alone, and for none while
        another one is alive: it would end the credential of whoever holds the other. extd's certificate alone
        (`certifies`) ends nobody's, and is for the main branch too.

        Errors: ApiError 409 `StaleLease`; a heartbeat tells who it is.
        """
        pulse = record.pulse
        if not (renews or certifies) and record.machine_id not in self._barred:
            return
        row = Main(pulse.epoch, pulse.nonce, pulse.previous_nonce, pulse.request_id) if pulse is not None else None
        mine = is_main(seal, epoch, row, nonce or "", now()) and not self.is_shown(record.machine_id, nonce or "")
        mine = mine and not record.stale and not self.lost_main(record.machine_id, pulse, seal)
        hint = self._challenged.get(record.machine_id)
        if not (may_renew(main=mine, since_another=None if hint is None else now() - hint) if renews else mine):
            raise ApiError(
                409,
                "StaleLease",
                "The hub cannot tell which holder of this identity asks: a heartbeat is needed first, or another "
                "machine uses the identity too.",
            )

    def loses_by_boot(self, machine_id: int, boot_id: str | None) -> bool:
        """True for a boot that was judged to be the younger one before."""
        barred = self._barred.get(machine_id)
        return barred is not None and mark(boot_id) in barred.boots

    def challenge(self, machine_id: int, at: int) -> None:
        """A holder was heard at `at`, Unix seconds, that may be another one than before."""
        if len(self._challenged) >= MOST_CHALLENGED:
            self._challenged = {key: when for key, when in self._challenged.items() if at - when <= SILENCE}
        self._challenged[machine_id] = at

    def heard(self, machine_id: int, digest: str) -> None:
        """A holder's heartbeat was taken: whoever waits for one knows that it is alive, and its evidence."""
        for waiter in self._waiting.pop(machine_id, ()):
            if not waiter.done():
                waiter.set_result(digest)

    @property
    def waiting(self) -> int:
        """How many questions wait for a holder to prove itself."""
        return sum(len(found) for found in self._waiting.values())

    async def proves_alive(self, record: Record) -> str | None:
        """Ask the holder of an identity for a heartbeat: its evidence (digest) when one comes within PROOF_SECONDS.

        What came before the question proves nothing: it may have been the asker's own. Over several processes the
        hot row is looked at too, for a heartbeat that another one takes; what they had taken before the question is
        written by then.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[str] = loop.create_future()
        waiters = self._waiting.setdefault(record.machine_id, set())
        waiters.add(waiter)
        try:
            if self._live.shared:
                await asyncio.wait({waiter}, timeout=2 * FLUSH_SECONDS)
                await self._live.reread(record)
            before = record.pulse
            ends = loop.time() + PROOF_SECONDS
            while (left := ends - loop.time()) > 0:
                if loop.time() - self._woken.get(record.machine_id, -WAKE_PAUSE) >= WAKE_PAUSE:
                    self._woken[record.machine_id] = loop.time()
                    self._live.wake(record)
                done, _ = await asyncio.wait({waiter}, timeout=min(left, WAKE_PAUSE))
                if done:
                    return waiter.result()
                if self._live.shared:
                    await self._live.reread(record)
                    after = record.pulse
                    if after is not None and before is not None and after.request_id != before.request_id:
                        return after.evidence_digest
            return None
        finally:
            waiters.discard(waiter)
            if not self._waiting.get(record.machine_id):
                self._waiting.pop(record.machine_id, None)
                self._woken.pop(record.machine_id, None)

    def bar(self, machine_id: int, digest: str, boot: str) -> None:
        """Refuse the heartbeats of a holder whose row was just committed. From any thread."""
        with self._changing:
            self._touched.add(machine_id)
            _add(self._barred.setdefault(machine_id, Barred()), digest, boot)

    def show(self, record: Record, nonce: str) -> None:
        """A holder that is refused has this nonce. Where the main branch's holder has it too, it tells them apart no
        longer: that holder is given another one at once, and this one is worth nothing until then."""
        pulse = record.pulse
        if pulse is None or nonce not in (pulse.nonce, pulse.previous_nonce) or self.is_shown(record.machine_id, nonce):
            return
        with self._changing:
            before = self._shown.get(record.machine_id, set())
            self._shown[record.machine_id] = {nonce} | (before & {pulse.nonce, pulse.previous_nonce})
        self._live.wake(record)

    def is_shown(self, machine_id: int, nonce: str) -> bool:
        """True for a nonce that a refused holder has as well."""
        return nonce in self._shown.get(machine_id, ())

    def apply(self, *machines: int) -> None:
        """Take up what the database says, of these machines or of all that changed. From any thread but the loop's."""
        found: dict[int, Barred] = {}
        if not machines:
            with self._changing:
                self._touched.clear()
        with self._database.read() as session:
            # Whoever changes a row sets `last`, by a clock that may be behind another's; the seconds that have just
            # begun are looked at again.
            barring = func.sum(case((Twin.state.in_(rows.BARRING), 1), else_=0))
            state = session.execute(
                select(func.count(), func.max(Twin.last), func.max(Twin.id), func.sum(Twin.last), barring).select_from(
                    Twin
                )
            ).one()
            if not machines and tuple(state) == self._read and (state[1] or 0) < now() - 2:
                return
            query = (
                select(Twin.machine_id, Twin.digest, Twin.boot, Machine.evidence)
                .join(Machine, Machine.id == Twin.machine_id)
                .where(Twin.state.in_(rows.BARRING))
            )
            if machines:
                query = query.where(Twin.machine_id.in_(machines))
            for machine_id, digest, boot, recorded in session.execute(query):
                fits = frozenset(evidence.fitting(recorded or {}))
                _add(found.setdefault(machine_id, Barred(fits=fits)), digest, boot)
        with self._changing:
            if not machines:
                for machine_id in self._touched:  # what was read of these may be older than what is known
                    found.pop(machine_id, None)
                    if machine_id in self._barred:
                        found[machine_id] = self._barred[machine_id]
                self._barred, self._read = found, () if self._touched else tuple(state)
                self._shown = {key: nonces for key, nonces in self._shown.items() if key in found}
                return
            self._touched.update(machines)
            for machine_id in machines:
                if machine_id in found:
                    self._barred[machine_id] = found[machine_id]
                else:
                    self._barred.pop(machine_id, None)

    async def run(self) -> None:
        """Keep up with the database; ends when cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.apply)
            except Exception:
                log.exception("What was decided about twins could not be read; what is known stays in force.")
            await asyncio.sleep(EVERY_SECONDS)

# SPDX-License-Identifier: Apache-2.0
"""What the running hub keeps in memory of machines that call: lease, slots, generations, and who waits.

One event loop owns it. Threads that changed the database say so with `changed` or `dropped`; both return at once and
wake held check-ins. Hot rows are written in batches by one writer, after the answer: they may be lost with the
process, which is what the epoch is for. Everything else in a record is a copy of what is committed.

Over PostgreSQL several processes share the fleet, and a machine may come to any of them. The one that it came to last
speaks for it (`Record.mine`): it writes that down, and tells the others, before it answers the first check-in. What
another process has not written yet is waited for before a nonce is called unknown (checkin.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Select, select

from control_plane.arm.paths import MachineId
from control_plane.storage import notices
from control_plane.storage import pulse as pulses
from control_plane.storage.database import Database
from control_plane.storage.models import Credential, Heartbeat, HubState, Machine, ResourceGroup
from control_plane.storage.pulse import Pulse

FLUSH_SECONDS = 0.5
MAX_HOLDS = 4
log = logging.getLogger("hawser.hub.live")

_RECORD: Select[*tuple[Any, ...]] = (
    select(
        Machine.id,
        Machine.client_id,
        Machine.principal_id,
        Machine.subscription_id,
        Machine.name,
        Machine.vm_id,
        Machine.generations,
        Machine.agent_version,
        ResourceGroup.name.label("group"),
        HubState.trust_generation,
        *pulses.COLUMNS,
    )
    .join(ResourceGroup, Machine.group_id == ResourceGroup.id)
    .join(HubState, HubState.id == 1)
    .outerjoin(Heartbeat, Heartbeat.machine_id == Machine.id)
    .where(Machine.enrolled.is_not(None))
)
_SLOTS = select(Credential.slot, Credential.state, Credential.expires)


@dataclass(slots=True)
class Record:
    """A machine that has called since the hub started. `expires`: of the current certificate, Unix seconds. `mine`:
    this process speaks for it; `stale`: another one has spoken for it since `pulse` was read; `stored`: the nonce of
    the hot row as this process last read or wrote it."""

    machine_id: int
    client_id: str
    principal_id: str
    resource_id: str
    vm_id: str
    generations: dict[str, int]
    slots: dict[int, str]
    expires: int
    agent_version: str | None
    pulse: Pulse | None
    mine: bool = False
    stale: bool = False
    stored: str = ""
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


class Live:
    """Records by client id; the batch writer; the wake-up of held check-ins."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_client: dict[str, Record] = {}
        self._by_id: dict[int, Record] = {}
        self._dirty: dict[int, Pulse] = {}
        self._writing: dict[int, Pulse] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changes = 0
        self._claims: dict[int, asyncio.Future[None]] = {}
        self._urgent = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()
        self.shared = False
        """True when other processes may serve the same machines."""
        self.stopping = False
        self.beats = 0
        """Heartbeats taken since the start."""
        self.on_beat: Callable[[int, Pulse | None, Pulse], None] = lambda _id, _old, _new: None
        """Told of every heartbeat, on the loop: machine, its hot row before and now."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind to the loop that will own the records."""
        self._loop = loop

    def pulse(self, machine_id: int) -> Pulse | None:
        """The newest hot row, written or not. Safe from any thread."""
        record = self._by_id.get(machine_id)
        return record.pulse if record and not record.stale else self._unwritten(machine_id)

    def _unwritten(self, machine_id: int) -> Pulse | None:
        return self._dirty.get(machine_id) or self._writing.get(machine_id)

    def fresh(self, after: int) -> tuple[int, ...]:
        """Machines seen after `after` whose heartbeat is not in the database yet. Safe from any thread."""
        unwritten = {**self._writing.copy(), **self._dirty.copy()}
        return tuple(key for key, pulse in unwritten.items() if pulse.seen > after)

    async def find(self, client_id: str) -> Record | None:
        """The record of an enrolled machine; read from the database on its first call."""
        record = self._by_client.get(client_id)
        while record is None:
            seen = self._changes
            loaded = await asyncio.to_thread(self._load, client_id)
            record = self._by_client.get(client_id)
            if record is None and loaded is None:
                return None
            if record is None and loaded is not None and seen == self._changes:
                loaded.pulse = self._unwritten(loaded.machine_id) or loaded.pulse
                record = self._by_client[client_id] = self._by_id[loaded.machine_id] = loaded
        return record

    def _load(self, client_id: str) -> Record | None:
        # After a start the whole fleet comes through here: columns, not objects, and two statements.
        with self._database.read() as session:
            found = session.execute(_RECORD.where(Machine.client_id == client_id)).one_or_none()
            if found is None:
                return None
            credentials = session.execute(_SLOTS.where(Credential.machine_id == found.id)).all()
            pulse = pulses.from_row(found) if found.nonce is not None else None
            return Record(
                machine_id=found.id,
                client_id=found.client_id,
                principal_id=found.principal_id,
                resource_id=str(MachineId(found.subscription_id, found.group, found.name)),
                vm_id=found.vm_id,
                generations={**found.generations, "trust": found.trust_generation},
                slots={item.slot: item.state for item in credentials},
                expires=max((item.expires for item in credentials if item.state == "current"), default=0),
                agent_version=found.agent_version,
                pulse=pulse,
                stored=pulse.nonce if pulse else "",
            )

    def beat(self, record: Record, pulse: Pulse) -> None:
        """Take note of a heartbeat; written within FLUSH_SECONDS."""
        old, record.pulse = record.pulse, pulse
        self._dirty[record.machine_id] = pulse
        self.beats += 1
        self.on_beat(record.machine_id, old, pulse)

    async def claim(self, record: Record) -> None:
        """Where processes share the fleet: a heartbeat that is the first of this machine here is written, and the
        others told, before it is answered. Many are written together.

        Errors: engines.UNAVAILABLE; the machine repeats its request then.
        """
        if not self.shared or record.mine:
            return
        claim = self._claims.get(record.machine_id)
        if claim is None or claim.done():
            claim = self._claims[record.machine_id] = asyncio.get_running_loop().create_future()
            self._urgent.set()
        await asyncio.shield(claim)

    async def reread(self, record: Record) -> int:
        """Take the hot row of a machine from the database, unless a newer one waits to be written here. Returns the
        epoch in the database."""
        record.stale = False
        pulse, epoch = await asyncio.to_thread(self._hot, record.machine_id)
        record.stored = pulse.nonce if pulse else ""
        record.pulse = self._unwritten(record.machine_id) or pulse
        return epoch

    def _hot(self, machine_id: int) -> tuple[Pulse | None, int]:
        with self._database.read() as session:
            row = session.get(Heartbeat, machine_id)
            return (pulses.from_row(row) if row else None), session.get_one(HubState, 1).epoch

    def _on_loop(self, action: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(action)

    def changed(self, machine_id: int, generations: dict[str, int]) -> None:
        """Desired state was committed: wake the machine. From any thread."""

        def apply() -> None:
            self._changes += 1
            record = self._by_id.get(machine_id)
            if record is not None:
                record.generations = {**record.generations, **generations}
                self.wake(record)

        self._on_loop(apply)

    def dropped(self, machine_id: int, *, rebase: bool = False) -> None:
        """The machine was deleted, or its credentials changed: forget the copy. From any thread.

        `rebase`: it was enrolled anew, so its next nonce proves nothing (epoch 0 is no hub's).
        """

        def apply() -> None:
            self._changes += 1
            unwritten = self._unwritten(machine_id)
            if rebase and unwritten is not None:
                self._dirty[machine_id] = replace(unwritten, epoch=0)
            record = self._by_id.pop(machine_id, None)
            if record is not None:
                self._by_client.pop(record.client_id, None)
                self.wake(record)

        self._on_loop(apply)

    def taken(self, ids: Iterable[int]) -> None:
        """Another process speaks for these machines now. From any thread.

        Their held check-ins stay: to end them would make two holders of one identity chase each other.
        """

        def apply() -> None:
            for machine_id in ids:
                if machine_id not in self._claims:
                    self._dirty.pop(machine_id, None)  # older than what the other process has written
                record = self._by_id.get(machine_id)
                if record is not None:
                    record.mine, record.stale = False, True

        self._on_loop(apply)

    def refresh(self, ids: Iterable[int]) -> None:
        """Another process committed changes of these machines: copy them, and wake those whose desired state is
        another. From any thread."""

        def apply() -> None:
            self._changes += 1
            known = [record for machine_id in ids if (record := self._by_id.get(machine_id)) is not None]
            if known:
                task = asyncio.ensure_future(self._refresh(known))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        self._on_loop(apply)

    async def _refresh(self, records: list[Record]) -> None:
        try:
            found = await asyncio.to_thread(lambda: [self._load(record.client_id) for record in records])
        except Exception:
            log.exception("Changes made by another process could not be read; the machines are read anew.")
            found = [None] * len(records)
        for record, new in zip(records, found, strict=True):
            if new is None:
                self._forget(record)
                continue
            changed = record.generations != new.generations
            record.generations, record.slots, record.expires = new.generations, new.slots, new.expires
            record.resource_id, record.agent_version = new.resource_id, new.agent_version
            if changed:
                self.wake(record)

    def _forget(self, record: Record) -> None:
        if self._by_id.get(record.machine_id) is record:
            del self._by_id[record.machine_id]
            self._by_client.pop(record.client_id, None)
        self.wake(record)

    def deaf(self) -> None:
        """What other processes told was missed for a while: read every machine anew. From any thread."""

        def apply() -> None:
            for record in self._by_id.values():
                record.mine, record.stale = False, True
            task = asyncio.ensure_future(self.renew_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._on_loop(apply)

    async def renew_all(self, slice_size: int = 200, pause: float = 0.1) -> None:
        """Something was committed that concerns every machine: read each anew and wake it, some at a time, so that a
        fleet does not come back in one instant."""
        self._changes += 1
        known = list(self._by_id.values())
        for start in range(0, len(known), slice_size):
            for record in known[start : start + slice_size]:
                self._by_id.pop(record.machine_id, None)
                self._by_client.pop(record.client_id, None)
                self.wake(record)
            await asyncio.sleep(pause)

    @staticmethod
    def hold(record: Record) -> asyncio.Future[None]:
        """A future that ends when the machine is to be answered. Of more than MAX_HOLDS the oldest ends at once.

        An older hold is not ended by a newer one alone: two holders of one identity would chase each other.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        record.waiters.append(waiter)
        while len(record.waiters) > MAX_HOLDS:
            oldest = record.waiters.pop(0)
            if not oldest.done():
                oldest.set_result(None)
        return waiter

    @staticmethod
    def wake(record: Record) -> None:
        """Answer every held check-in of a machine now."""
        for waiter in record.waiters:
            if not waiter.done():
                waiter.set_result(None)
        record.waiters.clear()

    def stop(self) -> None:
        """Answer every held check-in: the hub is going down."""
        self.stopping = True
        for record in list(self._by_id.values()):
            self.wake(record)

    @property
    def unwritten(self) -> bool:
        """True while heartbeats wait to be written."""
        return bool(self._dirty)

    @property
    def backlog(self) -> int:
        """Heartbeats not written yet."""
        return len(self._dirty)

    @property
    def held(self) -> int:
        """Check-ins held open. From any thread."""
        return sum(len(record.waiters) for record in list(self._by_id.values()))

    async def flush(self) -> None:
        """Write what is dirty in one transaction; on failure it stays dirty and is tried again."""
        if not self._dirty and not self._claims:
            return
        batch, self._dirty = self._dirty, {}
        claims, self._claims = self._claims, {}
        self._writing = batch
        rows, takes = self._rows(batch), set(claims) & set(batch)
        try:
            await asyncio.to_thread(self._write, rows, takes)
        except Exception as error:
            self._dirty = {**batch, **self._dirty}
            for machine_id in batch:
                # The commit may have happened all the same, so that `stored` is not known.
                if (record := self._by_id.get(machine_id)) is not None:
                    record.mine = False
            for claim in claims.values():
                if not claim.done():
                    claim.set_exception(error)
                    claim.exception()  # a caller that went away leaves nobody to look at it
            raise
        finally:
            self._writing = {}
        for machine_id, pulse in batch.items():
            if (record := self._by_id.get(machine_id)) is not None:
                record.stored = pulse.nonce
                record.mine = record.mine or (machine_id in takes and not record.stale)
        for claim in claims.values():
            if not claim.done():
                claim.set_result(None)

    def _rows(self, batch: Mapping[int, Pulse]) -> dict[int, tuple[Pulse, str | None]]:
        """Hot rows with the nonce that each replaces; None: whatever is there, for this process speaks for it now."""
        found: dict[int, tuple[Pulse, str | None]] = {}
        for machine_id, pulse in batch.items():
            record = self._by_id.get(machine_id)
            sure = self.shared and record is not None and record.mine
            found[machine_id] = (pulse, record.stored if sure and record else None)
        return found

    def _write(self, rows: Mapping[int, tuple[Pulse, str | None]], takes: Iterable[int]) -> None:
        with self._database.write() as session:
            pulses.save(session, rows)
            notices.post_machines(session, "taken", takes)

    async def run(self) -> None:
        """The one writer of hot rows; ends when cancelled."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._urgent.wait()
            except TimeoutError:
                pass
            self._urgent.clear()
            try:
                await self.flush()
            except Exception:
                log.exception("Heartbeats could not be written; they are kept and tried again.")
                await asyncio.sleep(FLUSH_SECONDS)

# SPDX-License-Identifier: Apache-2.0
"""Crashes at random points of the agent's steps, judged after the machine has come to rest again."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from agent_runtime.cli import specialise
from agent_runtime.errors import AgentError
from agent_runtime.himds.checkin import Keeper
from agent_runtime.hub.client import HubRefusal
from agent_runtime.identity import machine, remains, sealing, store
from agent_runtime.identity.machine import Record
from agent_runtime.identity.store import IdentityStore
from agent_runtime.platform import local
from agent_runtime.state import atomic
from agent_runtime.state.atomic import erase
from tests.models import agent_life, disk
from tests.models.agent_life import Life, Memory

BUILDER, COPY = {"dmi_uuid": "builder", "machine_id": "m"}, {"dmi_uuid": "copy", "machine_id": "m"}
# A second crash, in the boot after the first.
AGAIN = 0.4
BOOTS = 4


@dataclass(frozen=True)
class Step:
    """`begin`: a machine just before the step; `act`: the step; `does`: the state that it makes; `ends`: states that
    the machine comes to rest in after a crash and its boots. `new_machines`: that the hub has to know then."""

    name: str
    begin: Callable[[str], Life]
    act: Callable[[Life], None]
    does: str
    ends: tuple[str, ...]
    new_machines: int = 0


@dataclass
class Told:
    """What came of it. `left_behind`: machines at the hub that nobody is, of all crashes together."""

    crashes: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    left_behind: int = 0


def _sealed(folder: str) -> Life:
    life = agent_life.prepared(folder, BUILDER)
    life.seal()
    return life


def _copied(folder: str) -> Life:
    _sealed(folder)
    return Life(folder, COPY)


def _unsealed(folder: str) -> Life:
    life = _copied(folder)
    life.unseal_if_copied()
    return life


def _connected(folder: str) -> Life:
    life = _unsealed(folder)
    life.specialise()
    return life


def _connected_builder(folder: str) -> Life:
    """A connected machine, as far as its hardware knows: what is sealed with --force."""
    life = _connected(folder)
    paths = life.paths
    for name in (f"{paths.policy}/floor.json", f"{paths.extensions}/keys/settings.key"):
        atomic.write_bytes(name, b"KEY 0123456789abcdef\n")
    atomic.write_bytes(f"{paths.tokens}/challenge.key", b"challenge")
    return life


def _twin(folder: str) -> Life:
    """A copy of a connected machine that has found out."""
    original = _connected(folder)
    twin = Life(folder, {"dmi_uuid": "twin", "machine_id": "m"}, twin=True)
    twin.memory = original.memory
    twin.himds()
    return twin


STEPS = (
    Step("seal", _connected_builder, Life.seal, "sealed", ("connected", "sealed")),
    Step("seal again", _sealed, Life.seal_again, "sealed", ("sealed",)),
    Step("unseal", _copied, Life.unseal_if_copied, "disconnected", ("connected",), 1),
    Step("specialise", _unsealed, Life.specialise, "connected", ("connected",), 1),
    Step("adopt", _twin, Life.specialise, "connected", ("connected",), 1),
    Step("renew", _connected, Life.renew, "connected", ("connected",)),
)


def _rest(life: Life) -> None:
    """Boots until nothing changes any more."""
    for _ in range(BOOTS):
        life.boot()


def _judge(step: Step, life: Life, before: Memory) -> tuple[list[str], int]:
    """Faults, and the machines at the hub that nobody is."""
    state = life.found()
    # Cut off before it was written down, a seal is ended by the next one alone: what is there says so until then.
    is_seen = step.name == "seal again" and bool(remains.found(life.paths, with_token=False))
    if step.does == "sealed" and (state == "connected" or is_seen):
        life.seal()
    faults = life.faults()
    if state not in step.ends:
        faults.append(f"came to rest {state}")
    faults += [
        f"{what} was asked for under {len(ids)} ids" for what, ids in life.memory.requests.items() if len(ids) > 1
    ]
    if step.name in ("specialise", "adopt", "unseal") and state == "connected":
        for name in ("image_token", "joining"):
            if os.path.lexists(getattr(life.paths, name)):
                faults.append(f"{name} is left")
        if len(life.memory.counted) > 1:
            faults.append("the token was counted twice")
    for name, known in before.machines.items():
        now = life.memory.machines.get(name)
        if now is None or (step.name != "renew" and now["slots"] != known["slots"]):
            faults.append(f"the machine {name} was changed")
    new = [known for name, known in life.memory.machines.items() if name not in before.machines]
    if state == "connected" and len(new) < step.new_machines:
        faults.append("no machine of its own at the hub")
    return faults, max(0, len(new) - step.new_machines)


def run(step: Step, folder: str, crashes: int, dice: random.Random, until_fault: bool = False) -> Told:
    """Lose the power `crashes` times somewhere in `step`; with AGAIN once more in the boot that follows."""
    life = step.begin(folder)
    before = copy.deepcopy(life.memory)
    with life.recorded() as recorder:
        step.act(life)
    told = Told(faults=[f"{step.name}: {fault}" for fault in agent_life.in_the_open(recorder)])
    for _ in range(crashes):
        if until_fault and told.faults:
            break
        in_the_open: list[str] = []
        _crash(life, recorder, before, dice)
        try:
            if dice.random() < AGAIN:
                known = copy.deepcopy(life.memory)
                with life.recorded() as second:
                    life.boot()
                in_the_open = agent_life.in_the_open(second)
                _crash(life, second, known, dice)
            _rest(life)
            told.ends[life.found()] += 1
            faults, left = _judge(step, life, before)
        except (AgentError, HubRefusal, OSError, ValueError, KeyError) as problem:
            faults, left = [f"the boot fails: {type(problem).__name__}: {problem}"], 0
        told.crashes += 1
        told.faults += [f"{step.name}: {fault}" for fault in (*faults, *in_the_open)]
        told.left_behind += left
    return told


def _crash(life: Life, recorder: disk.Recorder, otherwise: Memory, dice: random.Random) -> None:
    done = recorder.ops[: dice.randint(0, len(recorder.ops))]
    left = disk.survivors(recorder.start, done, dice)
    life.memory = copy.deepcopy(disk.memory_at(done, otherwise))
    disk.write(life.folder, left, agent_life.FOLDERS)


# Steps that are broken on purpose


def careless(path: str, content: bytes, *_: Any, **__: Any) -> None:
    """`atomic.write_bytes` without any fsync."""
    temporary = f"{path}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(handle, content)
    os.close(handle)
    os.replace(temporary, path)


def _identity_last(paths: Any, journal: Any) -> list[str]:
    """`sealing.finish` that clears before it says so."""
    left = remains.found(paths, with_logs=True, with_token=False)
    remains.clear(left)
    atomic.write_json(paths.image, journal["record"], mode=0o644)
    atomic.unlink(paths.seal_journal)
    local.sync_folder(paths.state)
    sealing._write_identity(paths, Record("sealed", str(journal["record"]["sealedAt"])))
    return []


def _journal_first(paths: Any, journal: Any) -> list[str]:
    """`sealing.finish` that throws its journal away before it has done what it says."""
    atomic.unlink(paths.seal_journal)
    local.sync_folder(paths.state)
    return _finish(paths, journal)


_finish = sealing.finish


def _record_last(paths: Any, by: str) -> bool:
    """`sealing.unseal` that says what the machine is before the birth record says that it was unsealed."""
    if sealing.state_of(paths).state != "sealed":
        return False
    record = atomic.read_json(paths.image)
    sealing._write_identity(paths, Record("disconnected", "2026-01-01T00:00:00Z"))
    atomic.write_json(paths.image, {**record, "unsealedAt": "2026-01-01T00:00:00Z", "unsealedBy": by}, mode=0o644)
    return True


def _retired_first(real: Any) -> Any:
    """A renewal that erases the old key before `identity.json` names the new one."""

    async def renew(keeper: Any, hub: Any) -> None:
        apply = keeper._known.store.apply

        def late(kind: str, **data: Any) -> Any:
            identity = keeper._known.identity
            for end in ("key", "crt"):
                stem = f"{keeper._known.paths.certs}/identity-{identity['slot']}.{end}"
                erase(stem)
            return apply(kind, **data)

        with mock.patch.object(keeper._known.store, "apply", late):
            await real(keeper, hub)

    return renew


def _copied_key_first(self: IdentityStore, kind: str, **data: Any) -> Any:
    """An adoption that drops the held identity's key when it begins, not when it has its own."""
    if kind == "adopt":
        for name in os.listdir(self._paths.certs):
            erase(os.path.join(self._paths.certs, name))
    return _apply(self, kind, **data)


_apply = IdentityStore.apply


def _without_binding(paths: Any, **named: Any) -> list[remains.Remain]:
    """`remains.found` that knows nothing of `binding.json`."""
    return [remain for remain in _found(paths, **named) if remain.path != paths.binding]


_found = remains.found


def _other_request(session: Any) -> dict[str, str]:
    """`specialise._self_given` that draws the request id anew at every attempt."""
    return {**_self_given(session), "requestId": str(uuid.uuid4())}


_self_given = specialise._self_given


@dataclass(frozen=True)
class Broken:
    """A step of the agent with one fault in it."""

    name: str
    step: str
    target: Any
    attribute: str
    replacement: Any

    def applied(self) -> contextlib.AbstractContextManager[Any]:
        return mock.patch.object(self.target, self.attribute, self.replacement)


BROKEN = (
    Broken("no fsync at all, renewing", "renew", atomic, "write_bytes", careless),
    Broken("no fsync at all, sealing", "seal", atomic, "write_bytes", careless),
    Broken("no fsync at all, joining", "specialise", atomic, "write_bytes", careless),
    Broken("the folder is not synced, renewing", "renew", local, "sync_folder", lambda _folder: None),
    Broken("the identity is forgotten last", "seal", sealing, "finish", _identity_last),
    Broken("the journal goes first", "seal", sealing, "finish", _journal_first),
    Broken("unsealed before it is on record", "unseal", sealing, "unseal", _record_last),
    Broken("what gcad and extd hold stays", "seal", remains, "_whole", lambda paths: (paths.certs, paths.tokens)),
    Broken("the binding stays", "seal", remains, "found", _without_binding),
    Broken("half-written files stay", "seal", remains, "_temporaries", lambda _folder: iter(())),
    Broken("half-written files stay, sealing again", "seal again", remains, "_temporaries", lambda _folder: iter(())),
    Broken("what is cleared is not overwritten", "seal", remains, "erase", atomic.unlink),
    Broken("a replaced token is not overwritten", "seal again", remains, "erase", atomic.unlink),
    Broken("a used token is not overwritten", "specialise", sealing, "erase", atomic.unlink),
    Broken("the retired key is not overwritten", "renew", store, "erase", atomic.unlink),
    Broken("the copied key is not overwritten", "adopt", store, "erase", atomic.unlink),
    Broken("another request to join at every attempt", "specialise", specialise, "_self_given", _other_request),
    Broken("another request to enrol at every attempt", "specialise", machine, "_same_place", lambda *_: False),
    Broken("the old key goes first", "renew", Keeper, "_renew", _retired_first(Keeper._renew)),
    Broken("the copied key goes first", "adopt", IdentityStore, "apply", _copied_key_first),
)

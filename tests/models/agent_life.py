# SPDX-License-Identifier: Apache-2.0
"""A machine's life on a disk that can lose power: the agent's real steps of seal, unseal, specialise, adopt and renew
against a hub in memory that remembers what it has answered.

What is real: himds's state, its connect and question, root's `specialise` and binding, sealing and unsealing, every
write of them. What is not: the network, the service manager, and RSA (a key is a random text here, for 10,000 machines
shall take a minute).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import re
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

from agent_runtime import errors
from agent_runtime.cli import asking, specialise
from agent_runtime.himds.service import Himds
from agent_runtime.hub.client import HubRefusal
from agent_runtime.identity import birth, machine, sealing, store
from agent_runtime.platform import paths as places
from agent_runtime.platform.base import Signal
from agent_runtime.platform.paths import Paths
from agent_runtime.service import worker
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop, Task, Timer
from agent_runtime.state import atomic
from tests.models import disk

TENANT, CLOUD = "11111111-1111-1111-1111-111111111111", "demo"
SUBSCRIPTION, GROUP = "22222222-2222-2222-2222-222222222222", "web"
TOKEN, OTHER_TOKEN = "hwe_" + "t" * 40, "hwe_" + "o" * 40
NOW = 1_800_000_000
EXPIRES = NOW + 90 * 86400
FOLDERS = (
    *("var/opt/azcmagent/" + name for name in ("state/desired", "state/outbox", "certs", "tokens", "log", "clouds")),
    *("var/opt/azcmagent/socks", "var/lib/GuestConfig/policy", "var/lib/GuestConfig/extensions/keys"),
)
# All that a sealed image may have in these folders, whatever `remains` thinks.
SEALED_FILES = frozenset(
    "var/opt/azcmagent/" + name for name in (f"clouds/{CLOUD}.json", "image.json", "image.token", "state/identity.json")
)
_SECRET = re.compile(rb"KEY [0-9a-f]{16}|hwe_[to]{8}")
_KEY = re.compile(rb"KEY ([0-9a-f]{16})\n")


def resource_id(name: str) -> str:
    """The ARM id of a machine of this model."""
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.HybridCompute/machines/{name}"


@dataclass
class Memory:
    """What the hub remembers. `machines`: by name, `{"vmId", "key", "slots": {slot: {"key", "state"}}, "beats"}`;
    `counted`: vmIds that the enrolment token was counted for; `offered`: names that were offered; `requests`: ids under
    which a machine asked for the same thing, by that and its vmId."""

    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)
    offered: int = 0
    requests: dict[tuple[str, str], set[str]] = field(default_factory=dict)


class Hub:
    """The hub, as himds's client and root's channel see it. `twin`: questions are answered `clone`, with an offer;
    `first_slot`: another one than 1 where a machine was enrolled before."""

    offset = 0.0
    first_slot = 1

    def __init__(self, memory: Memory, recorder: disk.Recorder | None, twin: bool) -> None:
        self.memory = memory
        self.profile = {"channel": ["https://hub"], "authority": "https://hub"}
        self._recorder = recorder
        self._twin = twin

    def _changed(self) -> None:
        if self._recorder is not None:
            self._recorder.tell(copy.deepcopy(self.memory))

    def _asked(self, what: str, body: Mapping[str, Any]) -> None:
        self.memory.requests.setdefault((what, body["vmId"]), set()).add(body["requestId"])
        self._changed()

    @staticmethod
    def now() -> float:
        return NOW

    def close(self) -> None:
        """Nothing is open."""

    forget_channel_token = try_next_address = close

    def go_by(self, profile: Mapping[str, Any]) -> None:
        self.profile = dict(profile)

    def _who(self, credential: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The machine and the slot that this key and certificate prove. Errors: HubRefusal."""
        key, certificate = (atomic.read_bytes(str(credential[name])) for name in ("key", "certificate"))
        found = _KEY.fullmatch(key)
        said = certificate.decode("ascii", "replace").split()
        if found is None or len(said) != 4 or said[3].encode() != found.group(1):
            raise errors.CertificateNotObtained("the machine's certificate does not belong to its key")
        for known in self.memory.machines.values():
            held = known["slots"].get(int(said[2]))
            if known["vmId"] == said[1] and held and held["key"] == said[3]:
                if held["state"] == "retired":
                    raise _refusal(401, "superseded")
                return known, int(said[2])
        raise _refusal(401, "InvalidAuthenticationToken")

    async def put_machine(self, where: str, _token: str, body: dict[str, Any]) -> dict[str, Any]:
        name, properties = where.rpartition("/")[2], body["properties"]
        known = self.memory.machines.get(name)
        if known is not None and (known["vmId"], known["key"]) != (properties["vmId"], properties["clientPublicKey"]):
            raise _refusal(409, "Conflict")
        if known is None:
            made = {"vmId": properties["vmId"], "key": properties["clientPublicKey"], "slots": {}, "beats": 0}
            self.memory.machines[name] = made
            self._changed()
        return {"id": resource_id(name)}

    async def delete_machine(self, where: str, _token: str) -> bool:
        gone = self.memory.machines.pop(where.rpartition("/")[2], None)
        self._changed()
        return gone is not None

    async def enrol(self, token: str, body: dict[str, Any]) -> dict[str, Any]:
        self._asked("enrol", body)
        known = self.memory.machines[body["resourceId"].rpartition("/")[2]]
        if known["vmId"] != body["vmId"] or known["key"] != body["csr"]:
            raise _refusal(409, "MachineAlreadyEnrolled")
        slot = self.first_slot
        known["slots"] = {slot: {"key": body["csr"], "state": "current"}}
        if token == "joined":
            self.memory.counted.add(body["vmId"])
        self._changed()
        about = {"tenantId": TENANT, "clientId": f"client-{body['vmId']}", "principalId": "p", "slot": slot}
        return {**about, "certificate": f"CERT {body['vmId']} {slot} {body['csr']}\n", "epoch": 1, "nonce": "n"}

    async def call(self, credential: Mapping[str, Any], _verb: str, body: dict[str, Any]) -> dict[str, Any]:
        known, slot = self._who(credential)
        known["slots"][slot + 1] = {"key": body["csr"], "state": "next"}
        self._changed()
        return {"slot": slot + 1, "certificate": f"CERT {known['vmId']} {slot + 1} {body['csr']}\n"}

    async def begin_checkin(self, credential: Mapping[str, Any], _body: dict[str, Any]) -> tuple[Any, Any, Any]:
        known, slot = self._who(credential)
        for number, held in known["slots"].items():
            held["state"] = "current" if number == slot else "retired" if number < slot else held["state"]
        known["beats"] += 1
        self._changed()
        answer = {"epoch": 1, "slot": slot, "nonce": f"n{known['beats']}", "generations": {}, "holdSeconds": 300}

        async def content() -> bytes:
            return json.dumps(answer).encode()

        connection = SimpleNamespace(body=content, close=lambda: None)
        return connection, SimpleNamespace(status=200, headers={}), lambda: None

    async def ask_identity(self, credential: Mapping[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        reply = self.question(credential, body, "")
        if reply.status != 200:
            raise _refusal(reply.status, reply.code, reply.body)
        return reply.body

    # Root's channel

    def post(self, verb: str, body: Mapping[str, Any]) -> asking.Reply:
        self._asked(verb, body)
        taken = next((n for n, known in self.memory.machines.items() if known["vmId"] == body["vmId"]), None)
        return asking.Reply(200, self._enrolment(taken or f"joined-{body['vmId'][:4]}", "joined"), None)

    def question(self, credential: Mapping[str, Any], _body: Mapping[str, Any], bound_to: str) -> asking.Reply:
        known, slot = self._who(credential)
        if bound_to and known["vmId"] != bound_to:
            raise errors.ConfigurationConflict("the certificate in use is not that of this machine")
        if not self._twin:
            same = {"verdict": "same", "epoch": 1, "slot": slot, "nonce": "n", "certificate": None}
            return asking.Reply(200, same, None)
        self.memory.offered += 1
        self._changed()
        offer = self._enrolment(f"clone-{self.memory.offered}", "adopted")
        about = {"error": {"code": "identity_conflict", "message": "A clone."}, "verdict": "clone", "differs": []}
        return asking.Reply(409, {**about, "enrolment": offer}, None)

    @staticmethod
    def _enrolment(name: str, ticket: str) -> dict[str, Any]:
        return {"ticket": ticket, "resourceId": resource_id(name), "location": "local", "tenantId": TENANT}


def _refusal(status: int, code: str, body: Mapping[str, Any] | None = None) -> HubRefusal:
    refusal = HubRefusal(status, code, code)
    refusal.body = dict(body or {})
    return refusal


class _NoWaiting(Loop):
    """A loop on which nothing has to be waited for: what is spawned beside the step does not run."""

    def __init__(self) -> None:
        self.current: Task | None = None
        self.tasks: set[Task] = set()
        self.failure: BaseException | None = None
        self.report = lambda _name, _error: None

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> Task:
        coroutine.close()
        task = Task(self, coroutine, name)
        task.done = True
        return task

    def soon(self, call: Any) -> None:
        """Nothing else runs."""

    def later(self, seconds: float, call: Any) -> Timer:
        return Timer(seconds, call)

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run to the end. Errors: the coroutine's."""
        task = Task(self, coroutine, "step")
        task.step()
        if not task.done:
            raise AssertionError("the step waits for something that this model has not")
        if task.error is not None:
            raise task.error
        return task.result


async def _work(loop: Loop, verb: str, arguments: dict[str, Any], seconds: float = 60.0) -> dict[str, Any]:
    """The worker's verbs, with texts for keys; as the real one a readable key is used again."""
    if verb == "make-key":
        path = arguments["path"]
        try:
            found = _KEY.fullmatch(atomic.read_bytes(path))
        except OSError:
            found = None
        text = found.group(1).decode() if found else f"{random.getrandbits(64):016x}"
        if found is None:
            atomic.write_bytes(path, f"KEY {text}\n".encode())
        return {"csr": text, "clientPublicKey": text}
    if verb == "describe-certificate":
        said = atomic.read_bytes(arguments["certificate"]).decode("ascii").split()
        if atomic.read_bytes(arguments["key"]) != f"KEY {said[3]}\n".encode():
            raise errors.CertificateNotObtained("the machine's certificate does not belong to its key")
        return {"thumbprint": said[3], "notBefore": NOW, "notAfter": EXPIRES}
    raise AssertionError(f"this model has no worker {verb}")


class _Himds(Himds):
    """himds with the hub of the model."""

    def __init__(self, loop: _NoWaiting, paths: Paths, computer: Any, hub: Hub) -> None:
        self.model: Any = hub
        self.drive = loop.drive
        super().__init__(loop, paths, computer, 0, Log(os.devnull))

    def _open_hub(self, _profile: Mapping[str, Any]) -> Any:
        return self.model

    def begin(self) -> None:
        """What `start` does without its endpoints."""
        self._watch.look()
        if self.state in machine.BOUND:
            if os.path.lexists(self._known.paths.seal_journal):
                self._known.hold("park", "sealing", "sealing was cut off")
                return
            self._hub = self.model
        if self.state in machine.HELD:
            self.ask()

    @property
    def state(self) -> str:
        return self._known.state

    @property
    def identity(self) -> dict[str, Any]:
        return self._known.identity

    def ask(self) -> None:
        self.drive(self._keeper.asking.once(self.model))

    def beat(self) -> None:
        self.drive(self._keeper.once(self.model, self.identity))

    def renew(self) -> None:
        self.drive(self._keeper._renew(self.model))

    # The local socket, as the command line uses it

    def status(self) -> dict[str, Any]:
        return self._known.status()

    def call(self, verb: str, args: dict[str, Any], progress: Any = lambda _percent, _text: None) -> Any:
        if verb == "checkin":
            return self.ask()
        handler = {"connect": self._connect, "question": self._question, "config_changed": self._config_changed}[verb]
        nobody: Any = None
        return self.drive(handler(nobody, args, progress))


class Life:
    """One machine at `folder`. `signals`: its hardware. Each method is what a program of the agent does."""

    def __init__(self, folder: str, signals: Mapping[str, str], twin: bool = False) -> None:
        self.folder = folder
        self.paths = places.linux(folder)
        self.memory = Memory()
        self.twin = twin
        self.recorder: disk.Recorder | None = None
        self._signals = [Signal(name, "ok", value) for name, value in signals.items()]

    @contextmanager
    def recorded(self) -> Iterator[disk.Recorder]:
        """What is done in the block, written down."""
        self.recorder = disk.Recorder(self.folder)
        try:
            with self.recorder.recording():
                yield self.recorder
        finally:
            self.recorder = None

    def himds(self) -> _Himds:
        """himds after a start."""
        computer = SimpleNamespace(
            signals=lambda: self._signals, boot_id=lambda: "boot", inventory=lambda _version: {"osType": "linux"}
        )
        made = _Himds(_NoWaiting(), self.paths, computer, Hub(self.memory, self.recorder, self.twin))
        made.begin()
        return made

    def _session(self, himds: _Himds) -> Any:
        profile = {"name": CLOUD, "tenant_id": TENANT, "channel": ["https://hub"]}
        said = SimpleNamespace(result=lambda *_: None, progress=lambda *_: None, line=lambda *_: None)
        return SimpleNamespace(
            args=argparse.Namespace(look=False),
            paths=self.paths,
            out=said,
            himds=lambda: himds,
            cloud=lambda _name: profile,
            config=dict,
            tell_himds=list,
        )

    # Steps

    def seal(self, token: str = TOKEN) -> None:
        enrol = {"cloud": CLOUD, "profile": "web"}
        sealing.seal(self.paths, sealing.Wish("web-1", enrol, token, True, False, "builder"), self._signals)

    def seal_again(self) -> None:
        """With another token."""
        self.seal(OTHER_TOKEN)

    def unseal_if_copied(self) -> None:
        """`azcmagent unseal --if-copied`, as at every boot."""
        journal = sealing.unfinished(self.paths)
        if journal is not None:
            sealing.finish(self.paths, journal)
        record = birth.read_or_none(self.paths)
        by = sealing.reason_to_unseal(record, self._signals, False) if record is not None else None
        if by is not None:
            sealing.unseal(self.paths, by)

    def specialise(self) -> None:
        """Join, or adopt."""
        himds = self.himds()
        hub = himds.model
        with mock.patch.object(asking, "Channel", return_value=hub):
            specialise.run(self._session(himds))

    def renew(self) -> None:
        """Renew the credential and use it."""
        himds = self.himds()
        himds.renew()
        himds.beat()

    def boot(self) -> None:
        """All that the services do after the power came back. Refusals are tried again at the next boot."""
        self.unseal_if_copied()
        with suppress(errors.AgentError, HubRefusal):
            self.specialise()
        himds = self.himds()
        if himds.state == "connected":
            with suppress(HubRefusal):
                himds.beat()

    # Judging

    def found(self) -> str:
        """The state in which the agent would start."""
        return sealing.state_of(self.paths).state

    def faults(self) -> list[str]:
        """What is wrong with the machine when it has come to rest: not one identity, but none, two or a broken one."""
        state, faults = self.found(), []
        keys = sorted(name for name in os.listdir(self.paths.certs) if name.endswith(".key"))
        if os.path.lexists(self.paths.seal_journal):
            faults.append("a seal is still under way")
        if state in machine.BOUND:
            faults += self._faults_of_identity(keys)
        elif state == "sealed":
            if birth.read_or_none(self.paths) is None:
                faults.append("a sealed image without a name")
            found = disk.read(self.folder)
            faults += [f"sealed, and {path} is there" for path in sorted(found.keys() - SEALED_FILES)]
            if found.get(os.path.relpath(self.paths.image_token, self.folder)) not in (
                TOKEN.encode(),
                OTHER_TOKEN.encode(),
            ):
                faults.append("a sealed image whose copies cannot join")
        elif keys:
            faults.append(f"{state}, and {keys} are there")
        return faults

    def _faults_of_identity(self, keys: list[str]) -> list[str]:
        identity = dict(machine.from_dict(atomic.read_json(self.paths.identity)).identity or {})
        faults = []
        credential = store.credential_of(self.paths, identity)
        try:
            known, _ = Hub(self.memory, None, False)._who(credential)
            if known["vmId"] != identity["vmId"]:
                faults.append("the credential is another machine's")
        except (OSError, HubRefusal, errors.AgentError) as problem:
            faults.append(f"a lost identity: {problem}")
        slot, descent = int(identity["slot"]), store.descent_of(identity)
        begun = store.key_path(self.paths, slot + 1, descent)  # a renewal goes on with the key that it has
        if sorted({*keys, os.path.basename(begun)}) != sorted(map(os.path.basename, (credential["key"], begun))):
            faults.append(f"keys of two identities: {keys}")
        bound = atomic.read_json(self.paths.binding)
        if bound.get("vmId") != identity["vmId"] or "previous" in bound:
            faults.append("root's services obey another machine")
        return faults


def in_the_open(recorder: disk.Recorder) -> list[str]:
    """Files that went and whose secret can still be read in the blocks that they had."""
    return [
        f"{path} was not overwritten"
        for path, content in disk.freed(recorder.start, recorder.ops)
        if _SECRET.search(content)
    ]


def prepared(folder: str, signals: Mapping[str, str], twin: bool = False) -> Life:
    """A machine with the agent's folders and a cloud profile, and no identity."""
    disk.write(folder, {}, FOLDERS)
    life = Life(folder, signals, twin)
    profile = {
        "name": CLOUD,
        "tenant_id": TENANT,
        "channel": ["https://hub"],
        "authority": "https://hub",
        "ca_pem": "x",
    }
    atomic.write_json(os.path.join(life.paths.clouds, f"{CLOUD}.json"), profile)
    return life


def _unhurried(_handle: int) -> None:
    """The recorder notes what is synced; the real disk need not."""


@contextmanager
def at_speed() -> Iterator[None]:
    """For a block: the worker's verbs as this model has them; nobody waits for a real disk, and what the agent's own
    modules are is read once."""
    digest = sealing.package_digest()
    with (
        mock.patch.object(worker, "run", _work),
        mock.patch.object(os, "fsync", _unhurried),
        mock.patch.object(sealing, "package_digest", return_value=digest),
    ):
        yield

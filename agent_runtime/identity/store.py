# SPDX-License-Identifier: Apache-2.0
"""The identity on the disk: `identity.json` decides, `agentconfig.json` and `certs/` follow it (docs/protocol.md
section 12).

Order of writes, so that a crash between any two leaves one state: on the way to an identity its key and certificate
are on the disk
before `identity.json` names them; on the way out of it `identity.json` forgets them before they are removed.
`settle` at every start brings the followers in line with the file.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from agent_runtime.identity import birth, evidence, machine
from agent_runtime.identity.machine import Event, Record
from agent_runtime.platform.paths import Paths
from agent_runtime.service.log import Log
from agent_runtime.state import atomic
from agent_runtime.state.atomic import erase

PUBLIC = (
    "subscriptionId",
    "resourceGroup",
    "resourceName",
    "resourceId",
    "tenantId",
    "location",
    "cloud",
    "vmId",
    "vmUuid",
    "clientId",
    "principalId",
    "certificateThumbprint",
    "correlationId",
)

_CREDENTIAL_FILE = re.compile(r"identity-(?:(\d{1,6})\.)?(\d{1,9})\.(?:key|crt)")


def stamp(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def key_path(paths: Paths, slot: int, descent: int = 0) -> str:
    """Where the key of a credential slot lies. `descent`: how many names the machine had before this one, because a
    copy keeps the copied key until it has its own."""
    return os.path.join(paths.certs, f"{_stem(slot, descent)}.key")


def certificate_path(paths: Paths, slot: int, descent: int = 0) -> str:
    return os.path.join(paths.certs, f"{_stem(slot, descent)}.crt")


def next_key_path(paths: Paths) -> str:
    """The key that a held machine offers the hub; it gets its slot with the certificate."""
    return os.path.join(paths.certs, "identity-next.key")


def _stem(slot: int, descent: int) -> str:
    return f"identity-{descent}.{slot}" if descent else f"identity-{slot}"


def numbers_of(name: str) -> tuple[int, int] | None:
    """Descent and slot out of the name of a file in `certs`; None for any other. Pure."""
    found = _CREDENTIAL_FILE.fullmatch(name)
    return (int(found.group(1) or 0), int(found.group(2))) if found else None


def descent_of(identity: Mapping[str, Any]) -> int:
    return int(identity.get("descent") or 0)


def credential_of(paths: Paths, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What the hub's client needs to speak as `identity`."""
    slot, descent = int(identity["slot"]), descent_of(identity)
    return {
        "clientId": identity["clientId"],
        "tenantId": identity["tenantId"],
        "key": key_path(paths, slot, descent),
        "certificate": certificate_path(paths, slot, descent),
        **{name: identity[name] for name in ("slot", "resourceId", "location") if name in identity},
    }


class IdentityStore:
    """`record` is what is on the disk; `changed` is told of each new state once it is there. Errors of all writes:
    OSError, and then nothing has changed."""

    def __init__(self, paths: Paths, log: Log) -> None:
        self._paths = paths
        self._log = log
        self.changed: Callable[[str], None] = lambda _: None
        self.record = self._load()
        self.settle()

    def apply(self, kind: str, **data: Any) -> Record:
        """Change the state by an event; on return the disk agrees. Errors: those of `transition`, OSError."""
        before = self.record
        after = machine.transition(before, Event(kind, stamp(time.time()), data))
        if after != before:
            atomic.write_json(self._paths.identity, after.as_dict())
            self.record = after
            if after.state != before.state:
                self._log.info(f"identity: {before.state} -> {after.state} ({kind})")
                self.changed(after.state)
        self._follow()
        return after

    def settle(self) -> None:
        """After a start: a connect that was cut off ends, followers are brought in line, half-written files go."""
        for folder in (self._paths.own, self._paths.certs):
            for name in os.listdir(folder):
                if atomic.is_temporary(name):
                    erase(os.path.join(folder, name))
        if self.record.state == "connecting":
            self.apply("cut_off")
        else:
            self._follow()

    def _follow(self) -> None:
        identity = self.record.identity
        if identity is not None:
            self._drop_former_credentials(identity)
            public = {name: identity.get(name) for name in PUBLIC}
            try:
                if atomic.read_json(self._paths.agentconfig) == public:
                    return
            except (OSError, ValueError):
                pass
            atomic.write_json(self._paths.agentconfig, public, mode=0o640)
            return
        atomic.unlink(self._paths.agentconfig)
        atomic.unlink(self._paths.lease)
        if self.record.state != "connecting" and self.record.pending is None:
            atomic.unlink(self._paths.evidence)
            for folder in (self._paths.certs, self._paths.desired, self._paths.outbox):
                if os.path.isdir(folder):
                    for name in os.listdir(folder):
                        erase(os.path.join(folder, name))

    def _drop_former_credentials(self, identity: Mapping[str, Any]) -> None:
        """Credentials of slots and names that the machine had before go, also where a crash left them; those of a name
        that it did not get go along."""
        mine, slot = descent_of(identity), int(identity["slot"])
        if not os.path.lexists(key_path(self._paths, slot, mine)):
            return  # the last key there is may be the right one
        for name in os.listdir(self._paths.certs):
            numbers = numbers_of(name)
            if numbers and (numbers < (mine, slot) or (numbers[0] > mine and self.record.pending is None)):
                erase(os.path.join(self._paths.certs, name))

    def _load(self) -> Record:
        try:
            return machine.from_dict(atomic.read_json(self._paths.identity))
        except FileNotFoundError:
            # Nothing ever removes this file: where there is what it once named, it was lost.
            if not is_lost(self._paths):
                return Record(since=stamp(time.time()))
            self._log.error("AZCM0002: identity.json is missing")
        except (OSError, ValueError) as error:
            moved = f"{self._paths.identity}.damaged-{int(time.time())}"
            os.replace(self._paths.identity, moved)
            self._log.error(f"AZCM0002: identity.json cannot be read ({error}); it was moved to {moved}")
        record = self._rebuilt()
        atomic.write_json(self._paths.identity, record.as_dict())
        return record

    def _rebuilt(self) -> Record:
        """Sealed in an image that nobody unsealed; from agentconfig.json and certs/ if both are whole; else
        disconnected. An identity that was lost may have been held: where no evidence is left to judge it by, the hub
        is asked before it is used."""
        now = stamp(time.time())
        if birth.is_sealed(self._paths):
            return Record("sealed", now)
        try:
            public = atomic.read_json(self._paths.agentconfig)
            found = [numbers_of(name) for name in os.listdir(self._paths.certs) if name.endswith(".crt")]
            descent, slot = max((numbers for numbers in found if numbers), default=(0, -1))
            identity = {**public, "slot": slot, **({"descent": descent} if descent else {})}
            machine.check_identity(identity)
            os.stat(key_path(self._paths, slot, descent))
        except (OSError, ValueError) as error:
            self._log.error(f"AZCM0002: the identity cannot be rebuilt ({error}); the machine is disconnected")
            return Record(since=now)
        self._log.warning(f"AZCM0002: the identity was rebuilt from agentconfig.json with credential slot {slot}")
        if self._has_evidence():
            return Record("connected", now, identity)
        message = "identity.json and evidence.json were lost; the identity is not used before the hub has decided"
        number = machine.EVENTS["park"]
        self._log.error(f"event {number}: {machine.HELD_CODE}: {message}")
        why = {"code": machine.HELD_CODE, "message": message, "reason": "evidence", "event": number, "at": now}
        return Record("parked", now, identity, None, why)

    def _has_evidence(self) -> bool:
        try:
            return bool(evidence.valid(atomic.read_json(self._paths.evidence).get("items")))
        except (OSError, ValueError):
            return False


def is_lost(paths: Paths) -> bool:
    """Whether an `identity.json` that is missing was there once: the image was sealed, or an identity's files are
    there."""
    return birth.is_sealed(paths) or holds_identity(paths)


def holds_identity(paths: Paths) -> bool:
    """Whether a registration or a certificate is there, whatever `identity.json` says. A key alone never spoke."""
    try:
        names = os.listdir(paths.certs)
    except OSError:
        names = []
    return os.path.lexists(paths.agentconfig) or any(numbers_of(n) and n.endswith(".crt") for n in names)

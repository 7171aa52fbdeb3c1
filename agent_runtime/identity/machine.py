# SPDX-License-Identifier: Apache-2.0
"""The states of a machine's identity and the one function that changes them (design, states of an identity). Pure.

disconnected → connecting → connected → parked | quarantined | expired → disconnected; disconnected ↔ sealed;
parked → connecting under a new name, and back when that fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from agent_runtime import errors

STATES = ("disconnected", "connecting", "connected", "parked", "quarantined", "expired", "sealed")
# States in which the machine has an identity at the hub.
BOUND = frozenset({"connected", "parked", "quarantined", "expired"})
# States in which the identity is kept and not used: the hub is asked about it.
HELD = frozenset({"parked", "quarantined"})
STEPS = ("key", "put", "enrol", "checkin")
# The identity is in use elsewhere; numbers of what himds logs about it (docs/golden-images.md).
HELD_CODE = "AZCM0044"
EVENTS = {"park": 4101, "quarantine": 4102, "resume": 4103}
# Members without which nobody can speak as a machine.
NEEDED = ("resourceId", "clientId", "tenantId", "vmId", "cloud")
SLOT_LIMIT, DESCENT_LIMIT = 10**9, 10**6
FAR_FUTURE = 253402300800.0  # the year 10000


class Record(NamedTuple):
    """What `identity.json` holds (docs/protocol.md section 12).

    `identity`: members of agentconfig.json and `slot`; only in BOUND states. `pending`: `{"step", "requestId",
    "args", "slot"}` of a connect that is under way or was cut off; `args` never hold a token; while a held machine
    takes a new name also `from`: `{"state", "identity", "error"}` to return to. `error`: `{"code", "message", "at"}` of
    the last failure; of a held identity also why (docs/protocol.md section 12).
    """

    state: str = "disconnected"
    since: str = ""
    identity: Mapping[str, Any] | None = None
    pending: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"v": 1, **self._asdict()}


class Event(NamedTuple):
    """`kind` and what it brings; `at` is RFC 3339."""

    kind: str
    at: str
    data: Mapping[str, Any] = {}


def from_dict(raw: Mapping[str, Any]) -> Record:
    """A record out of its file. Errors: ValueError when it is none, holds a state that its members contradict, or
    members with which nothing could be done."""
    state, identity, pending, error = (raw.get(name) for name in ("state", "identity", "pending", "error"))
    if raw.get("v") != 1 or state not in STATES:
        raise ValueError("not an identity record of version 1")
    for member in (identity, pending, error):
        if member is not None and not isinstance(member, dict):
            raise ValueError("a member of the identity record is not an object")
    if (state in BOUND) != (identity is not None) or (state == "connecting" and pending is None):
        raise ValueError(f"an identity record in state {state} with the members of another state")
    if identity is not None:
        check_identity(identity)
    if pending is not None:
        _check_pending(pending)
    return Record(str(state), str(raw.get("since", "")), identity, pending, error)


def check_identity(identity: Mapping[str, Any]) -> None:
    """Errors: ValueError for an identity that nobody can speak as, or whose files have no names. Pure."""
    if not all(isinstance(identity.get(name), str) for name in NEEDED):
        raise ValueError("an identity without its names")
    descent, expires = identity.get("descent"), identity.get("certificateExpires")
    if not _is_number(identity.get("slot"), 0, SLOT_LIMIT):
        raise ValueError("an identity without a credential slot")
    if descent is not None and not _is_number(descent, 0, DESCENT_LIMIT):
        raise ValueError("an identity with a descent that is no number")
    is_date = isinstance(expires, (int, float)) and not isinstance(expires, bool) and math.isfinite(expires)
    if expires is not None and not (is_date and 0 <= expires < FAR_FUTURE):
        raise ValueError("an identity whose certificate ends at no time")


def _check_pending(pending: Mapping[str, Any]) -> None:
    if not isinstance(pending.get("args"), dict) or not isinstance(pending.get("requestId"), str):
        raise ValueError("a connect that was cut off, without its arguments")
    kept = pending.get("from")
    if kept is None:
        return
    if not isinstance(kept, dict) or kept.get("state") not in HELD or not isinstance(kept.get("identity"), dict):
        raise ValueError("a change of name without the identity that was held")
    if not isinstance(kept.get("error"), (dict, type(None))):
        raise ValueError("a held identity with a reason that is none")
    check_identity(kept["identity"])


def _is_number(value: object, least: int, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < limit


def transition(record: Record, event: Event) -> Record:
    """The record after `event`. Errors: AZCM0067, AZCM0027 for what this state does not allow.

    | event | data | from | to |
    |---|---|---|---|
    | begin | args, requestId | disconnected | connecting |
    | adopt | args, requestId | parked, quarantined | connecting, the held identity kept aside |
    | step | step | connecting | connecting |
    | connected | identity | connecting | connected |
    | failed | error | connecting | disconnected, nothing kept; after adopt: held as before |
    | cut_off | - | connecting | disconnected, after adopt held as before; pending kept |
    | renewed | slot, certificateThumbprint, certificateExpires | connected, expired | connected |
    | park, quarantine | error | bound states | that state |
    | expire | error | connected | expired |
    | resume | as renewed, or nothing | parked, quarantined, expired | connected |
    | trouble | error or None | any | same |
    | release | - | any but sealed | disconnected |
    | seal | force | disconnected, sealed, with force bound states | sealed |
    | unseal | - | sealed, disconnected | disconnected |
    """
    handler: Callable[[Record, Event], Record] = _EVENTS[event.kind]
    after = handler(record, event)
    return after if after.state == record.state else after._replace(since=event.at)


def _begin(record: Record, event: Event) -> Record:
    if record.state == "connecting":
        raise errors.ConfigurationConflict(
            "another command is connecting this machine", "Wait until it has ended; see 'azcmagent show'"
        )
    if record.state in BOUND:
        where = (record.identity or {}).get("resourceId")
        raise errors.AlreadyConnected(f"this machine is already connected to {where}")
    if record.state == "sealed":
        refuse_sealed()
    return Record("connecting", record.since, None, _pending(record, event), None)


def refuse_sealed() -> NoReturn:
    """Errors: AZCM0027, with the ways out of the sealed state."""
    raise errors.ConfigurationConflict(
        "this image is sealed", "On the builder run 'azcmagent unseal --here'; a copy unseals at its first boot"
    )


def _pending(record: Record, event: Event) -> dict[str, Any]:
    """A connect that begins. One for the same machine that was cut off goes on with its key and request, so that the
    hub sees one machine."""
    pending = {"step": "key", "requestId": event.data["requestId"], "args": dict(event.data["args"]), "slot": 1}
    before = record.pending
    if before and _same_place(before["args"], pending["args"]):
        pending["requestId"] = before["requestId"]
    return pending


def _adopt(record: Record, event: Event) -> Record:
    if record.state not in HELD:
        raise errors.ConfigurationConflict(
            f"the identity of this machine is {record.state}: there is nothing to adopt", "See 'azcmagent show'"
        )
    kept = {"state": record.state, "identity": record.identity, "error": record.error}
    return Record("connecting", record.since, None, {**_pending(record, event), "from": kept}, None)


def resumes(record: Record, args: Mapping[str, Any]) -> bool:
    """Whether `begin` with these arguments goes on with the key of an attempt that was cut off."""
    return record.pending is not None and _same_place(record.pending["args"], args)


def _same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    names = ("cloud", "tenantId", "subscriptionId", "resourceGroup", "resourceName", "vmId")
    return all(str(one.get(name)).lower() == str(other.get(name)).lower() for name in names)


def _in(record: Record, *states: str) -> None:
    if record.state not in states:
        raise errors.InternalError(f"the identity is {record.state}, not {' or '.join(states)}")


def _step(record: Record, event: Event) -> Record:
    _in(record, "connecting")
    return record._replace(pending={**(record.pending or {}), "step": event.data["step"]})


def _connected(record: Record, event: Event) -> Record:
    _in(record, "connecting")
    return Record("connected", record.since, dict(event.data["identity"]), None, None)


def _failed(record: Record, event: Event) -> Record:
    _in(record, "connecting")
    kept = (record.pending or {}).get("from")
    if kept:
        return Record(kept["state"], record.since, kept["identity"], None, event.data["error"] or kept.get("error"))
    return Record("disconnected", record.since, None, None, event.data["error"])


def _cut_off(record: Record, event: Event) -> Record:
    _in(record, "connecting")
    pending = {name: value for name, value in (record.pending or {}).items() if name != "from"}
    kept = (record.pending or {}).get("from")
    if kept:
        return Record(kept["state"], record.since, kept["identity"], pending, kept.get("error"))
    return Record("disconnected", record.since, None, pending, record.error)


_CREDENTIAL = ("slot", "certificateThumbprint", "certificateExpires")


def _renewed(record: Record, event: Event) -> Record:
    _in(record, "connected", "expired")
    identity = {**(record.identity or {}), **{name: event.data[name] for name in _CREDENTIAL}}
    return Record("connected", record.since, identity, None, None)


def _out_of_use(state: str, *states: str) -> Callable[[Record, Event], Record]:
    def change(record: Record, event: Event) -> Record:
        _in(record, *states)
        return record._replace(state=state, error=event.data["error"])

    return change


def _resume(record: Record, event: Event) -> Record:
    _in(record, "parked", "quarantined", "expired", "connected")
    new = {name: event.data[name] for name in _CREDENTIAL if name in event.data}
    return Record("connected", record.since, {**(record.identity or {}), **new}, None, None)


def _trouble(record: Record, event: Event) -> Record:
    return record._replace(error=event.data["error"])


def _release(record: Record, event: Event) -> Record:
    if record.state == "sealed":
        refuse_sealed()
    _refuse_connecting(record)
    return Record("disconnected", record.since)


def _refuse_connecting(record: Record) -> None:
    if record.state == "connecting":
        raise errors.ConfigurationConflict("another command is connecting this machine", "Wait until it has ended")


def _seal(record: Record, event: Event) -> Record:
    _refuse_connecting(record)
    if record.state in BOUND and not event.data["force"]:
        where = (record.identity or {}).get("resourceId")
        raise errors.ConfigurationConflict(
            f"this machine is connected to {where}, and an image must not be",
            "Disconnect it first with 'azcmagent disconnect'; or drop its identity here with --force, "
            "which leaves the machine at the hub",
        )
    return Record("sealed", record.since)


def _unseal(record: Record, event: Event) -> Record:
    _in(record, "sealed", "disconnected")
    return record._replace(state="disconnected")


_EVENTS: dict[str, Callable[[Record, Event], Record]] = {
    "begin": _begin,
    "adopt": _adopt,
    "step": _step,
    "connected": _connected,
    "failed": _failed,
    "cut_off": _cut_off,
    "renewed": _renewed,
    "park": _out_of_use("parked", *BOUND),
    "quarantine": _out_of_use("quarantined", *BOUND),
    "expire": _out_of_use("expired", "connected"),
    "resume": _resume,
    "trouble": _trouble,
    "release": _release,
    "seal": _seal,
    "unseal": _unseal,
}

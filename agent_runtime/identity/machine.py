# SPDX-License-Identifier: Apache-2.0
"""The states of a machine's identity and the one function that changes them (design, states of an identity). Pure.

disconnected → connecting → connected → parked | expired → disconnected; sealed belongs to golden images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_runtime import errors

STATES = ("disconnected", "connecting", "connected", "parked", "quarantined", "expired", "sealed")
# States in which the machine has an identity at the hub.
BOUND = frozenset({"connected", "parked", "quarantined", "expired"})
STEPS = ("key", "put", "enrol", "checkin")


@dataclass(frozen=True)
class Record:
    """What `identity.json` holds (docs/protocol.md section 12).

    `identity`: members of agentconfig.json and `slot`; only in BOUND states. `pending`: `{"step", "requestId",
    "args", "slot"}` of a
    connect that is under way or was cut off; `args` never hold a token. `error`: `{"code", "message", "at"}` of the
    last failure.
    """

    state: str = "disconnected"
    since: str = ""
    identity: Mapping[str, Any] | None = None
    pending: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"v": 1, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Event:
    """`kind` and what it brings; `at` is RFC 3339."""

    kind: str
    at: str
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def from_dict(raw: Mapping[str, Any]) -> Record:
    """A record out of its file. Errors: ValueError when it is none, or holds a state that its members contradict."""
    state, identity, pending, error = (raw.get(name) for name in ("state", "identity", "pending", "error"))
    if raw.get("v") != 1 or state not in STATES:
        raise ValueError("not an identity record of version 1")
    for member in (identity, pending, error):
        if member is not None and not isinstance(member, dict):
            raise ValueError("a member of the identity record is not an object")
    if (state in BOUND) != (identity is not None) or (state == "connecting" and pending is None):
        raise ValueError(f"an identity record in state {state} with the members of another state")
    return Record(str(state), str(raw.get("since", "")), identity, pending, error)


def transition(record: Record, event: Event) -> Record:
    """The record after `event`. Errors: AZCM0067, AZCM0027 for what this state does not allow.

    | event | data | from | to |
    |---|---|---|---|
    | begin | args, requestId | disconnected | connecting |
    | step | step | connecting | connecting |
    | connected | identity | connecting | connected |
    | failed | error | connecting | disconnected, nothing kept |
    | cut_off | - | connecting | disconnected, pending kept |
    | renewed | slot, certificateThumbprint | connected, expired | connected |
    | park, quarantine, expire | error | bound states | that state |
    | resume | - | parked, expired | connected |
    | trouble | error or None | any | same |
    | release | - | any but sealed | disconnected |
    """
    handler: Callable[[Record, Event], Record] = _EVENTS[event.kind]
    after = handler(record, event)
    return after if after.state == record.state else dataclasses.replace(after, since=event.at)


def _begin(record: Record, event: Event) -> Record:
    if record.state == "connecting":
        raise errors.ConfigurationConflict(
            "another command is connecting this machine", "Wait until it has ended; see 'azcmagent show'"
        )
    if record.state in BOUND:
        where = (record.identity or {}).get("resourceId")
        raise errors.AlreadyConnected(f"this machine is already connected to {where}")
    if record.state == "sealed":
        raise errors.ConfigurationConflict("this image is sealed", "Unseal it first")
    pending = {"step": "key", "requestId": event.data["requestId"], "args": dict(event.data["args"]), "slot": 1}
    before = record.pending
    if before and _same_place(before["args"], pending["args"]):
        # An attempt for the same machine was cut off: its key and request go on, so that the hub sees one machine.
        pending["requestId"] = before["requestId"]
    return Record("connecting", record.since, None, pending, None)


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
    return dataclasses.replace(record, pending={**(record.pending or {}), "step": event.data["step"]})


def _connected(record: Record, event: Event) -> Record:
    _in(record, "connecting")
    return Record("connected", record.since, dict(event.data["identity"]), None, None)


def _failed(record: Record, event: Event) -> Record:
    _in(record, "connecting")
    return Record("disconnected", record.since, None, None, event.data["error"])


def _cut_off(record: Record, event: Event) -> Record:
    _in(record, "connecting")
    return Record("disconnected", record.since, None, record.pending, record.error)


def _renewed(record: Record, event: Event) -> Record:
    _in(record, "connected", "expired")
    names = ("slot", "certificateThumbprint", "certificateExpires")
    identity = {**(record.identity or {}), **{name: event.data[name] for name in names}}
    return Record("connected", record.since, identity, None, None)


def _held(state: str) -> Callable[[Record, Event], Record]:
    def change(record: Record, event: Event) -> Record:
        _in(record, *BOUND)
        return dataclasses.replace(record, state=state, error=event.data["error"])

    return change


def _resume(record: Record, event: Event) -> Record:
    _in(record, "parked", "expired", "connected")
    return dataclasses.replace(record, state="connected", error=None)


def _trouble(record: Record, event: Event) -> Record:
    return dataclasses.replace(record, error=event.data["error"])


def _release(record: Record, event: Event) -> Record:
    if record.state == "sealed":
        raise errors.ConfigurationConflict("this image is sealed", "Unseal it first")
    if record.state == "connecting":
        raise errors.ConfigurationConflict("another command is connecting this machine", "Wait until it has ended")
    return Record("disconnected", record.since)


_EVENTS: dict[str, Callable[[Record, Event], Record]] = {
    "begin": _begin,
    "step": _step,
    "connected": _connected,
    "failed": _failed,
    "cut_off": _cut_off,
    "renewed": _renewed,
    "park": _held("parked"),
    "quarantine": _held("quarantined"),
    "expire": _held("expired"),
    "resume": _resume,
    "trouble": _trouble,
    "release": _release,
}

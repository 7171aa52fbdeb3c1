# SPDX-License-Identifier: GPL-3.0-or-later
"""Follows a long-running operation of ARM to its end (identity-and-arm-api.md C.3).

How an answer is to be followed and what a look at it means are pure functions; `Follower` asks and waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError, HubError
from ansible_collections.hawser.machine.plugins.plugin_utils._http import Reply
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub

FINAL = frozenset({"succeeded", "failed", "canceled"})
AWAY = "AZCM0026"  # of a hub that cannot be reached or is busy
INTERVAL = 2.0
LONGEST_INTERVAL = 60.0


@dataclass(frozen=True)
class Way:
    """How to follow: `kind` is `operation`, `location` (both have a `url` to ask), `resource` or `done`."""

    kind: str
    url: str = ""


@dataclass(frozen=True)
class State:
    """What an operation is in: the hub's word, its percentage if it gives one, the error of a failed one."""

    word: str
    percent: int | None = None
    error: Mapping[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.word.lower() in FINAL

    @property
    def well(self) -> bool:
        """Whether it has ended well."""
        return self.word.lower() == "succeeded"


def way_of(method: str, reply: Reply) -> Way:
    """How the first answer to a write is followed. Pure."""
    if reply.headers.get("azure-asyncoperation"):
        return Way("operation", reply.headers["azure-asyncoperation"])
    if reply.status == 202 and reply.headers.get("location"):
        return Way("location", reply.headers["location"])
    if method != "DELETE" and not state_of_resource(reply.body).final:
        return Way("resource")
    return Way("done")


def state_of_resource(body: Any) -> State:
    """The state of a resource by its `provisioningState`; one that has none is done. Pure."""
    properties = body.get("properties") if isinstance(body, dict) else None
    return State(str((properties or {}).get("provisioningState") or "Succeeded"))


def state_of_operation(body: Any) -> State:
    """The state in the body of an operation. Pure; HubError when it is none."""
    if not isinstance(body, dict) or not isinstance(body.get("status"), str):
        raise HubError("the hub's operation has no status", "Check arm: it must be the hub's address")
    percent = body.get("percentComplete")
    error = body.get("error")
    return State(
        body["status"],
        int(percent) if isinstance(percent, (int, float)) else None,
        error if isinstance(error, dict) else {},
    )


def pause(headers: Mapping[str, str], left: float) -> float:
    """Seconds until the next look: what the hub wishes, never beyond the time that is left. Pure."""
    try:
        wished = float(headers.get("retry-after") or INTERVAL)
    except ValueError:
        wished = INTERVAL
    return max(0.0, min(max(wished, 1.0), LONGEST_INTERVAL, left))


class Follower:
    """Looks at an operation until it has ended or `timeout` seconds are over.

    `started`: the hub has taken the write. `steps`: what was seen, and when.
    """

    def __init__(
        self,
        hub: Hub,
        timeout: float,
        tell: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._timeout = timeout
        self._tell = tell
        self._sleep = sleep
        self._clock = clock
        self._begin = clock()
        self.started = False
        self.steps: list[dict[str, Any]] = []

    def _seen(self, state: State) -> None:
        if self.steps and (self.steps[-1]["name"], self.steps[-1]["percent"]) == (state.word, state.percent):
            return
        seconds = round(self._clock() - self._begin, 1)
        self.steps.append({"name": state.word, "percent": state.percent, "seconds": seconds})
        self._tell(f"{state.word}{'' if state.percent is None else f' {state.percent} %'} after {seconds} s")

    def start(self, method: str, resource_id: str, body: Any = None) -> Reply:
        """Send the write. Raises HubError."""
        try:
            reply = self._hub.send(method, resource_id, body)
        except HubError as error:
            if error.status == 409:
                error.remedy = "Wait until what is done with it has ended, then try again"
            raise
        self.started = True
        return reply

    def follow(self, method: str, resource_id: str, reply: Reply) -> State:
        """The state in which the write ended. Raises HawserError when the time is up, HubError for a refusal."""
        way = way_of(method, reply)
        if way.kind == "done":
            return State("Succeeded") if method == "DELETE" else state_of_resource(reply.body)
        return self.until(lambda: self._look(way, resource_id), reply.headers)

    def until(self, look: Callable[[], tuple[State, Mapping[str, str]]], headers: Mapping[str, str]) -> State:
        """Look again and again until the state is final. A hub that is away meanwhile is waited for."""
        what = "the last state that the hub told was none"
        while True:
            try:
                state, headers = look()
            except HubError as error:
                if error.code != AWAY:
                    raise
                what = f"the hub cannot be asked ({error.message})"
            else:
                self._seen(state)
                if state.final:
                    return state
                what = f"it is {state.word}"
            left = self._timeout - (self._clock() - self._begin)
            if left <= 0:
                raise HawserError(
                    f"the operation has not ended after {self._timeout:g} s: {what}",
                    "It goes on without us: a machine that is not connected carries it out when it is back. "
                    "Look at the machine's status, or give more time",
                    "AZCM0026",
                )
            self._sleep(pause(headers, left))

    def _look(self, way: Way, resource_id: str) -> tuple[State, Mapping[str, str]]:
        if way.kind == "resource":
            return self.look_at(resource_id)
        reply = self._hub.look(way.url)
        if way.kind == "operation":
            return state_of_operation(reply.body), reply.headers
        return (State("InProgress") if reply.status == 202 else state_of_resource(reply.body)), reply.headers

    def look_at(self, resource_id: str) -> tuple[State, Mapping[str, str]]:
        """The state of a resource; one that is gone is done."""
        body = self._hub.resource(resource_id)
        return (State("Succeeded") if body is None else state_of_resource(body)), {}

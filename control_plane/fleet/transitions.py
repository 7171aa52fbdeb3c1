# SPDX-License-Identifier: Apache-2.0
"""When a machine's status is announced to have changed. Pure.

What is shown is computed from the last heartbeat alone (arm/status.py). What is *announced*, by events, notifications
and history, is said of machines that the hub could have heard: silence that began while nobody listened is counted from
the time when the hub listened again. So neither a restart nor a restored backup announces a fleet as lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.arm.status import (
    AWAITING,
    CONNECTED,
    DISCONNECTED,
    DISCONNECTED_AFTER,
    EXPIRED,
    EXPIRED_AFTER,
    Status,
    status,
)

ALIVE_EVERY = 10
GAP = 3 * ALIVE_EVERY


@dataclass(frozen=True)
class Heard:
    """Unix seconds. `since`: the hub has listened from then on; `deaf_from`: it did not listen between this and
    `since`; 0 when nothing is known of before."""

    since: int
    deaf_from: int


@dataclass(frozen=True)
class Beats:
    """What is known of a machine's heartbeats; `seen` None: none ever."""

    seen: int | None
    connected_since: int | None
    created: int


def listening(before: tuple[int, int, int] | None, at: int) -> tuple[Heard, tuple[int, int] | None]:
    """What a hub may conclude that starts at `at`, and the outage that ends here, if one does. `before`: since, alive
    and deaf_from of the row that the last processes left.

    A run too short to hear every machine does not end the deafness before it.
    """
    if before is None:
        return Heard(at, 0), None
    since, alive, deaf_from = before
    if alive > at + GAP:  # the clock was set back: nothing before can be compared
        return Heard(at, 0), None
    if at - alive <= GAP:
        return Heard(since, deaf_from), None
    heard_all = alive - since > DISCONNECTED_AFTER
    return Heard(at, alive if heard_all else deaf_from), (alive, at)


def _silent_since(seen: int, heard: Heard) -> int:
    """From when on silence counts: the last heartbeat, unless the time to miss the next one was spent deaf."""
    missed_before = heard.deaf_from > 0 and seen + DISCONNECTED_AFTER < heard.deaf_from
    return seen if missed_before else max(seen, heard.since)


def announced(beats: Beats, heard: Heard, at: int) -> Status:
    """The status to announce at `at`, and since when it has been so."""
    found = status(beats.seen, beats.connected_since, beats.created, at)
    if beats.seen is None or found.word in (AWAITING, CONNECTED):
        return found
    lost = _silent_since(beats.seen, heard) + DISCONNECTED_AFTER
    if at <= lost:
        return Status(CONNECTED, beats.connected_since if beats.connected_since is not None else beats.seen)
    return Status(found.word, lost if found.word == DISCONNECTED else max(lost, found.since))


def deadline(beats: Beats, heard: Heard, word: str) -> int | None:
    """The first second at which another status than `word` may have to be announced; None: only a heartbeat can."""
    if beats.seen is None or word in (AWAITING, EXPIRED):
        return None
    if word == CONNECTED:
        return _silent_since(beats.seen, heard) + DISCONNECTED_AFTER + 1
    return beats.seen + EXPIRED_AFTER + 1

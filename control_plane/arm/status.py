# SPDX-License-Identifier: Apache-2.0
"""The status of a machine, computed when it is read (identity-and-arm-api.md C.5, docs/protocol.md section 13)."""

from __future__ import annotations

from dataclasses import dataclass

AWAITING, CONNECTED, DISCONNECTED, EXPIRED = "AwaitingConnection", "Connected", "Disconnected", "Expired"

DISCONNECTED_AFTER = 900
EXPIRED_AFTER = 45 * 86400


@dataclass(frozen=True)
class Status:
    """`word` as ARM shows it; `since`: Unix seconds of the last change."""

    word: str
    since: int


def status(seen: int | None, connected_since: int | None, created: int, at: int) -> Status:
    """Status at the time `at`, from the last heartbeat, the beginning of the present series of them, and the
    resource's creation. A heartbeat from the future (clock set back) counts as one now."""
    if seen is None:
        return Status(AWAITING, created)
    silence = max(0, at - seen)
    if silence > EXPIRED_AFTER:
        return Status(EXPIRED, seen + EXPIRED_AFTER)
    if silence > DISCONNECTED_AFTER:
        return Status(DISCONNECTED, seen + DISCONNECTED_AFTER)
    return Status(CONNECTED, connected_since if connected_since is not None else seen)

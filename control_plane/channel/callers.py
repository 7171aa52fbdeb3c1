# SPDX-License-Identifier: Apache-2.0
"""Who calls the channel: a machine with a channel token of a credential slot that is still good."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from control_plane.authority.audiences import CHANNEL
from control_plane.callers import bearer
from control_plane.channel import verdict
from control_plane.channel.branches import Seal
from control_plane.channel.live import Record
from control_plane.channel.verdict import Slot
from control_plane.errors import ApiError, bad_content
from control_plane.hub import Hub
from control_plane.storage.models import HubState

PROTOCOL = 1
LEASE_HEADER = "hawser-lease"
_AUDIENCES = frozenset({CHANNEL})


def check_protocol(body: dict[str, Any]) -> None:
    """Errors: ApiError 400 `ProtocolUnsupported` for another version than 1."""
    version = body.get("protocol")
    if isinstance(version, bool) or not isinstance(version, int):
        raise bad_content("'protocol' must be an integer.", "protocol")
    if version != PROTOCOL:
        raise ApiError(400, "ProtocolUnsupported", f"Protocol version {version} is not supported; supported: 1.")


def superseded() -> ApiError:
    """401: the credential was retired by a newer one of the same machine."""
    return ApiError(
        401,
        "superseded",
        "This credential was replaced by a newer one of the same machine. If this machine is a copy or was rolled "
        "back, disconnect it locally with 'azcmagent disconnect --force-local-only' and connect it anew.",
    )


async def machine(hub: Hub, authorization: str | None, at: int, given_slot: object = None) -> tuple[Record, bool]:
    """The record of the calling machine, and whether its credential is the next one, which retires the current one with
    a heartbeat of the main branch.

    `given_slot`: the slot in the body, where there is one; it must be the token's.
    Errors: ApiError 401 (token, `superseded`), 404 (the machine was deleted).
    """
    claims = hub.tokens.verify(bearer(authorization), _AUDIENCES, at)
    slot, client_id = claims.get("hawser_slot"), claims.get("appid")
    if not isinstance(slot, int) or not isinstance(client_id, str):
        raise ApiError(401, "InvalidAuthenticationToken", "The access token is not that of a machine.")
    record = await hub.live.find(client_id)
    if record is None:
        if await asyncio.to_thread(_forgotten, hub, claims.get("iat")):
            raise _anew("The hub was restored from a backup that is older than this token; get a new one.")
        raise ApiError(404, "ResourceNotFound", "The machine of this token does not exist; it was deleted.")
    judged = verdict.slot(record.slots, slot)
    if judged is Slot.SUPERSEDED:
        raise superseded()
    if judged is Slot.UNKNOWN:
        # The token is ours, the slot is not in the database: it was restored, or the machine enrolled anew meanwhile.
        raise _anew(f"Credential slot {slot} is not known here; get a new token.")
    if given_slot is not None and given_slot != slot:
        raise _anew(f"The access token belongs to credential slot {slot}; get a new token.")
    return record, judged is Slot.TAKE_OVER


async def holder(
    hub: Hub,
    headers: Mapping[str, str],
    at: int,
    given_slot: object = None,
    *,
    renews: bool = False,
    certifies: bool = False,
) -> Record:
    """The record of a machine whose request is no heartbeat, from the holder of the identity that may make it.

    Errors: as `machine`, and ApiError 409 `StaleLease`.
    """
    record, _ = await machine(hub, headers.get("authorization"), at, given_slot)
    seal = Seal(hub.keys.lease_key, record.machine_id, hub.epoch)
    hub.twins.vouch(record, seal, hub.epoch, headers.get(LEASE_HEADER), renews=renews, certifies=certifies)
    return record


def _anew(message: str) -> ApiError:
    return ApiError(401, "InvalidAuthenticationToken", message)


def _forgotten(hub: Hub, issued: object) -> bool:
    with hub.database.read() as session:
        gaps = session.get_one(HubState, 1).gaps
    return isinstance(issued, int) and verdict.in_gap(issued, gaps)

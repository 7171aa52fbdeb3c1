# SPDX-License-Identifier: Apache-2.0
"""Connecting and disconnecting through himds, and `binding.json`, which says whom root's services obey.

Source: docs/protocol.md sections 3, 10 and 12. The command line, as root, draws the vmId and writes the file before it
asks himds to connect, because himds faces the network and must not choose it.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable

from agent_runtime import errors
from agent_runtime.cli import naming
from agent_runtime.cli.himds_client import ConnectionLost
from agent_runtime.identity import machine
from agent_runtime.platform import local
from agent_runtime.state import atomic

if TYPE_CHECKING:
    from agent_runtime.cli.session import Session

Progress = Callable[[int, str], None]


def connect(
    session: Session,
    place: Mapping[str, Any],
    token: str,
    progress: Progress,
    vm_id: str | None = None,
    adopt: bool = False,
) -> dict[str, Any]:
    """Connects to `place` (members of planning.PLACE, `tags`, `correlation_id`, and `automatic_upgrade` where it was
    said), as `vm_id` when it is given. With `adopt` a held machine takes that name in the place of the one it has.

    Result: `resourceId`, `vmId`, `warnings`. Errors: what himds answers; AZCM0027 while another command is at it.
    A definite refusal takes the binding away again (with `adopt` the old one comes back); it stays where the machine
    could not be deleted at the hub again, and after a lost connection, because himds may go on.
    """
    with only_one(session):
        old = read(session)
        status = session.himds().status()
        if not adopt:
            refuse_connected(status)  # himds would, and until then the binding would be another one
        bound = _bound_for(place, vm_id or _unfinished(status, old, place))
        if adopt and old is not None:
            # Whoever kills this leaves a held machine under its old name, or a connected one under the new.
            bound["previous"] = {name: value for name, value in old.items() if name != "previous"}
        atomic.write_json(session.paths.binding, bound, mode=0o644)
        arguments = {
            "cloud": place["cloud"],
            "tenantId": place["tenant_id"],
            "subscriptionId": place["subscription_id"],
            "resourceGroup": place["resource_group"],
            "location": place["location"],
            "resourceName": place["name"],
            "tags": dict(place["tags"]),
            "vmId": bound["vmId"],
            "accessToken": token,
            "correlationId": place["correlation_id"],
            "automaticUpgrade": place.get("automatic_upgrade"),
            **({"adopt": True} if adopt else {}),
        }
        try:
            result = session.himds().call("connect", arguments, progress)
            if adopt:
                atomic.write_json(
                    session.paths.binding, {k: v for k, v in bound.items() if k != "previous"}, mode=0o644
                )
            return result
        except ConnectionLost:
            raise
        except errors.AgentError as refusal:
            # Refused before anything began: whoever was bound before still is.
            if old and (adopt or refusal.code in ("AZCM0027", "AZCM0067")):
                atomic.write_json(session.paths.binding, old, mode=0o644)
            else:
                with contextlib.suppress(errors.AgentError):  # a himds that is away says nothing: the binding stays
                    if adopt or _unfinished(session.himds().status(), bound, place) is None:
                        forget(session)
            raise


def refuse_connected(status: Mapping[str, Any]) -> None:
    """Errors: AZCM0067 with the resource id; AZCM0027 while another command connects, and in a sealed image."""
    state = status.get("identityState")
    if state == "connecting":
        raise errors.ConfigurationConflict(
            "another command is connecting this machine", "Wait until it has ended; see: azcmagent show"
        )
    if state == "sealed":
        machine.refuse_sealed()
    if state not in (None, "disconnected"):
        raise errors.AlreadyConnected(
            f"this machine is already connected to {status.get('resourceId')}",
            "Disconnect it first with: azcmagent disconnect",
        )


def disconnect(session: Session, token: str | None, local_only: bool) -> dict[str, Any]:
    """Result: `resourceId`, `deleted`. The binding goes once himds has let go."""
    with only_one(session):
        arguments = {"accessToken": token, "forceLocalOnly": local_only}
        result = session.himds().call("disconnect", arguments, session.out.progress)
        forget(session)
        # himds told the services before the binding went; now they can see that it is gone.
        session.tell_himds()
        return result


def settled(session: Session, is_held: bool) -> dict[str, Any] | None:
    """The binding after a change of name that was cut off: the old one while the identity is held, else the new."""
    bound = read(session)
    return _settle(session, bound, is_held) if bound and isinstance(bound.get("previous"), dict) else bound


def _settle(session: Session, bound: Mapping[str, Any], is_held: bool) -> dict[str, Any]:
    kept = dict(bound["previous"]) if is_held else {k: v for k, v in bound.items() if k != "previous"}
    atomic.write_json(session.paths.binding, kept, mode=0o644)
    return kept


def forget(session: Session) -> None:
    """Removes the binding, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(session.paths.binding)


def read(session: Session) -> dict[str, Any] | None:
    """The binding, None when there is none or it cannot be read."""
    try:
        with open(session.paths.binding, "rb") as file:
            found = json.loads(file.read(65536))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@contextlib.contextmanager
def only_one(session: Session) -> Iterator[None]:
    """One command at a time changes the connection. Errors: AZCM0027, at once."""
    try:
        with local.alone(session.paths.clouds):
            yield
    except BlockingIOError:
        raise errors.ConfigurationConflict(
            "another command is connecting or disconnecting this machine", "Wait until it has ended"
        ) from None


def _unfinished(status: Mapping[str, Any], bound: Mapping[str, Any] | None, place: Mapping[str, Any]) -> str | None:
    """The vmId of this binding if an attempt to connect to `place` with it has not ended by what himds says: the hub
    may know it. One of a connection that has ended is not used again: what the hub counts for a machine would begin
    anew, below what root's services have seen. Pure."""
    if bound is None or str(bound.get("resourceId")).lower() != naming.resource_id_of(place).lower():
        return None
    kept = str(bound.get("vmId"))
    is_it = bound.get("cloud") == place["cloud"] and naming.GUID.match(kept)
    return kept if is_it and status.get("unfinishedVmId") == kept else None


def _bound_for(place: Mapping[str, Any], vm_id: str | None) -> dict[str, Any]:
    """A new binding, for a machine that is known by this vmId already if one is given."""
    return {
        "v": 1,
        "vmId": vm_id or str(uuid.uuid4()),
        "cloud": place["cloud"],
        "resourceId": naming.resource_id_of(place),
        "tenantId": place["tenant_id"],
    }

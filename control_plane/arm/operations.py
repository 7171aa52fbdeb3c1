# SPDX-License-Identifier: Apache-2.0
"""Long-running operations: their headers, and what is answered to who asks for them (identity-and-arm-api.md C.3).

Most of what the hub is asked to do it does within the request, in one transaction with the operation's row; clients
that follow the headers find it finished. What a machine has to do runs until the machine has told how it went, or six
hours are over. A row is kept for a day after its end and does not mind a restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm import paths
from control_plane.arm.roles import Action
from control_plane.bodies import is_guid
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, not_found
from control_plane.extensions.operations import stored
from control_plane.extensions.progress import RUNNING, SUCCEEDED, Wait
from control_plane.extensions.view import extension_json
from control_plane.http import Reply
from control_plane.runcommands.view import command_json
from control_plane.storage import extensions, run_commands
from control_plane.storage.models import Machine
from control_plane.storage.resource_models import Operation

RETRY_AFTER = "1"
_RUNNING_RETRY_AFTER = "2"
"""Seconds between polls of what runs on a machine."""


def finished(
    call: HubCall, session: Session, action: Action, target: str, location: str, result: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Keep the row of an operation that this transaction completes; the headers of its answer."""
    operation = _new(call, action, target)
    operation.status, operation.ended = SUCCEEDED, call.at
    operation.result = dict(result) if result is not None else None
    session.add(operation)
    return _headers(call, operation, location)


def begun(
    call: HubCall,
    session: Session,
    action: Action,
    target: str,
    machine: Machine,
    waits: Sequence[Wait],
    result: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Keep the row of an operation that ends when the machine has told of all that it waits for."""
    operation = _new(call, action, target)
    operation.machine_id, operation.waits = machine.id, stored(waits)
    operation.result = dict(result) if result is not None else None
    session.add(operation)
    return _headers(call, operation, machine.location)


def former(
    call: HubCall, session: Session, action: Action, target: str, machine: Machine, waits: Sequence[Wait]
) -> dict[str, str]:
    """Headers of the operation that the caller has `begun` so before; none when it is not kept any more."""
    query = select(Operation).where(
        Operation.machine_id == machine.id,
        Operation.object_id == call.caller.object_id,
        Operation.action == action.value,
        Operation.target == target,
    )
    known = session.scalars(query.order_by(Operation.started))
    found = next((operation for operation in known if operation.waits == stored(waits)), None)
    return _headers(call, found, machine.location) if found is not None else {}


def _new(call: HubCall, action: Action, target: str) -> Operation:
    return Operation(
        id=str(uuid4()),
        subscription_id=call.names[0].lower(),
        object_id=call.caller.object_id,
        action=action.value,
        target=target,
        status=RUNNING,
        started=call.at,
    )


def _headers(call: HubCall, operation: Operation, location: str) -> dict[str, str]:
    base = (
        f"{call.http.origin}/subscriptions/{operation.subscription_id}/providers/{paths.PROVIDER}/locations/{location}"
    )
    version = f"?api-version={call.query['api-version']}"
    return {
        "Azure-AsyncOperation": f"{base}/operationStatus/{operation.id}{version}",
        "Location": f"{base}/operationResults/{operation.id}{version}",
        "Retry-After": RETRY_AFTER if operation.status == SUCCEEDED else _RUNNING_RETRY_AFTER,
    }


def _find(call: HubCall, session: Session) -> Operation:
    """The operation, for who began it and for who may read what it was about; nobody else learns that there is one."""
    wanted = call.names[2].lower()
    found = session.get(Operation, wanted) if is_guid(wanted) else None
    if found is not None and found.subscription_id == call.names[0].lower():
        mine = found.object_id == call.caller.object_id and call.caller.grant is None
        if mine or call.may(Action.RESOURCE_READ, found.target):
            return found
    raise not_found(call.http.path)


def status(call: HubCall) -> Reply:
    """GET operationStatus."""
    with call.hub.database.read() as session:
        found = _find(call, session)
    shown: dict[str, Any] = {
        "id": call.http.path,
        "name": found.id,
        "status": found.status,
        "startTime": rfc3339(found.started),
        "percentComplete": 0.0 if found.ended is None else 100.0,
        "properties": {"action": found.action, "resourceId": found.target},
    }
    if found.ended is not None:
        shown["endTime"] = rfc3339(found.ended)
    if found.error is not None:
        shown["error"] = found.error
    return Reply(200, shown, {"Retry-After": _RUNNING_RETRY_AFTER} if found.ended is None else {})


def result(call: HubCall) -> Reply:
    """GET operationResults: 202 while it runs, then what the operation gave, or 204.

    Errors: ApiError 400 with the error of an operation that failed, 404.
    """
    with call.hub.database.read() as session:
        found = _find(call, session)
        written = _written(call, session, found)
    if found.ended is None:
        here = f"{call.http.origin}{call.http.path}?api-version={call.query['api-version']}"
        return Reply(202, None, {"Location": here, "Retry-After": _RUNNING_RETRY_AFTER})
    if found.error is not None:
        raise ApiError(400, found.error["code"], found.error["message"], details=found.error.get("details"))
    if found.result is not None:
        return Reply(200, found.result)
    return Reply(200, written) if written is not None else Reply(204)


def _written(call: HubCall, session: Session, found: Operation) -> dict[str, Any] | None:
    """The resource that an operation wrote, as it is now, for who may read it now."""
    target = found.target.lower()
    if found.action == Action.EXTENSION_WRITE and call.may(Action.EXTENSION_READ, found.target):
        kept = extensions.find(session, target)
        return extension_json(kept) if kept else None
    if found.action == Action.RUN_COMMAND_WRITE and call.may(Action.RUN_COMMAND_READ, found.target):
        command = run_commands.find(session, target)
        return command_json(command) if command else None
    return None

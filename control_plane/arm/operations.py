# SPDX-License-Identifier: Apache-2.0
"""Long-running operations: their headers, and what is answered to who asks for them (identity-and-arm-api.md C.3).

The hub carries out what it is asked to within the request, in one transaction with the operation's row; clients that
follow the headers find it finished. The row is kept for a day and does not mind a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sqlalchemy.orm import Session

from control_plane.arm import paths
from control_plane.arm.roles import Action
from control_plane.bodies import is_guid
from control_plane.call import HubCall
from control_plane.clock import rfc3339
from control_plane.errors import not_found
from control_plane.http import Reply
from control_plane.storage.resource_models import Operation

RETRY_AFTER = "1"


def finished(
    call: HubCall, session: Session, action: Action, target: str, location: str, result: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Keep the row of an operation that this transaction completes; the headers of its answer."""
    operation = Operation(
        id=str(uuid4()),
        subscription_id=call.names[0].lower(),
        object_id=call.caller.object_id,
        action=action.value,
        target=target,
        status="Succeeded",
        result=dict(result) if result is not None else None,
        started=call.at,
        ended=call.at,
    )
    session.add(operation)
    base = (
        f"{call.http.origin}/subscriptions/{operation.subscription_id}/providers/{paths.PROVIDER}/locations/{location}"
    )
    version = f"?api-version={call.query['api-version']}"
    return {
        "Azure-AsyncOperation": f"{base}/operationStatus/{operation.id}{version}",
        "Location": f"{base}/operationResults/{operation.id}{version}",
        "Retry-After": RETRY_AFTER,
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
    return Reply(
        200,
        {
            "id": call.http.path,
            "name": found.id,
            "status": found.status,
            "startTime": rfc3339(found.started),
            "endTime": rfc3339(found.ended),
            "percentComplete": 100.0,
            "properties": {"action": found.action, "resourceId": found.target},
        },
    )


def result(call: HubCall) -> Reply:
    """GET operationResults: what the operation gave, or 204."""
    with call.hub.database.read() as session:
        found = _find(call, session)
    return Reply(204) if found.result is None else Reply(200, found.result)

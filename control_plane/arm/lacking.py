# SPDX-License-Identifier: Apache-2.0
"""What ARM has and this hub does not: lists that are empty, and refusals that say so.

400 `OperationNotSupported`, because clients repeat what is answered with 5xx (identity-and-arm-api.md F.18).
"""

from __future__ import annotations

from control_plane.arm import paths
from control_plane.arm.roles import Action
from control_plane.call import Handler, HubCall
from control_plane.errors import ApiError, not_found
from control_plane.http import Reply
from control_plane.storage import machines


def _machine(call: HubCall) -> str:
    """The id of the machine in the path, which is there.

    Errors: ApiError 404.
    """
    with call.hub.database.read() as session:
        machine = machines.find_machine(session, call.group(session), call.names[2])
    if machine is None:
        raise not_found(str(paths.MachineId(*call.names[:3])))
    return machine.name


def refused(action: Action, sentence: str) -> Handler:
    """A write on a machine that this hub cannot carry out: `sentence` with `{name}`."""

    def refuse(call: HubCall) -> Reply:
        call.require(action, str(paths.MachineId(*call.names[:3])))
        raise ApiError(400, "OperationNotSupported", sentence.format(name=_machine(call)))

    return refuse


def none_below(action: Action) -> Handler:
    """GET, DELETE of something below a machine that this hub keeps none of: 404, 200. azure-mgmt-guestconfig takes no
    204 (identity-and-arm-api.md D)."""

    def absent(call: HubCall) -> Reply:
        call.require(action, str(paths.MachineId(*call.names[:3])))
        _machine(call)
        if call.http.method == "DELETE":
            return Reply(200)
        raise not_found(call.http.path)

    return absent


def none_listed(_call: HubCall) -> Reply:
    """GET of a list that is empty for everybody."""
    return Reply(200, {"value": []})


def none_listed_below(action: Action) -> Handler:
    """GET of a list of what hangs below a machine, of which this hub keeps none."""

    def empty(call: HubCall) -> Reply:
        call.require(action, str(paths.MachineId(*call.names[:3])))
        _machine(call)
        return Reply(200, {"value": []})

    return empty


def none_in(action: Action) -> Handler:
    """GET of a list in a subscription or a resource group, of what this hub keeps none of."""

    def empty(call: HubCall) -> Reply:
        with call.hub.database.read() as session:
            found = call.subscription(session)
            scope = f"/subscriptions/{found.id}"
            if len(call.names) > 1:
                scope = paths.group_id(found.id, call.group(session).name)
        call.require(action, scope)
        return Reply(200, {"value": []})

    return empty

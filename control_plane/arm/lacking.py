# SPDX-License-Identifier: Apache-2.0
"""What Microsoft.HybridCompute has and this hub does not: refusals that say so.

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

# SPDX-License-Identifier: Apache-2.0
"""How the hub is: GET /hawser/v1/hub."""

from __future__ import annotations

from control_plane import figures
from control_plane.arm.roles import HUB, Action
from control_plane.call import HubCall
from control_plane.http import Reply


def read(call: HubCall) -> Reply:
    """GET /hawser/v1/hub.

    Errors: ApiError 403.
    """
    call.require(Action.HEALTH_READ, HUB)
    return Reply(200, figures.health(call.hub))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.access_token: a token for the controller's principal."""

from __future__ import annotations

from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._base import HubAction
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec


class ActionModule(HubAction):
    """Fetches a token by client credentials."""

    MODULE = "access_token"
    SPEC = argument_spec("access_token")

    def ask(self, hub: Hub, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return the token; it is what the task is for, so it is not hidden from the result."""
        if hub.settings.client_id is None or hub.settings.client_secret is None:
            raise OptionError(
                "access_token fetches a token for client_id and client_secret, and one of them is missing",
                "Set HAWSER_CLIENT_ID and HAWSER_CLIENT_SECRET or HAWSER_CLIENT_SECRET_FILE in the controller's "
                "environment",
                code="AZCM0016",
            )
        return dict(hub.token(options["resource"]))

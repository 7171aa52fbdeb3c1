# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.extension_info: the extensions of a machine as the hub sees them."""

from __future__ import annotations

from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils import _place
from ansible_collections.hawser.machine.plugins.plugin_utils._base import HubAction
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import EXPANDED, Hub
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec


class ActionModule(HubAction):
    """Asks ARM for one extension or for all of a machine."""

    MODULE = "extension_info"
    SPEC = argument_spec("extension_info")

    def ask(self, hub: Hub, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the list `extensions`; an extension or machine that does not exist is an empty list."""
        machine = _place.machine_of(options, task_vars)
        if options["name"] is None:
            return {"extensions": hub.children(machine, "extensions")}
        found = hub.resource(_place.child_of(machine, "extensions", options["name"]), **EXPANDED)
        return {"extensions": [found] if found else []}

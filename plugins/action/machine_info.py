# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.machine_info: machines as the hub sees them."""

from __future__ import annotations

from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils import _fleet
from ansible_collections.hawser.machine.plugins.plugin_utils._base import HubAction
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec
from ansible_collections.hawser.machine.plugins.plugin_utils._wish import resource_id

FILTERS = ("statuses", "os_types", "locations", "agent_versions", "tags", "search")


class ActionModule(HubAction):
    """Asks ARM for one machine, a resource group or a subscription."""

    MODULE = "machine_info"
    SPEC = argument_spec("machine_info")

    def ask(self, hub: Hub, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the list `machines`; a machine that does not exist is an empty list."""
        needed = ["subscription_id"] + (["resource_group"] if options["scope"] != "subscription" else [])
        missing = [option for option in needed if not options.get(option)]
        if missing:
            raise OptionError(
                f"{' and '.join(missing)} missing for the scope {options['scope']}",
                f"Set the option, or HAWSER_{missing[0].upper()} in the controller's environment",
                code="AZCM0016",
            )
        place = {"subscription_id": options["subscription_id"]}
        if options["scope"] == "machine":
            given = [option for option in FILTERS if options.get(option)]
            if given:
                raise OptionError(
                    f"{' and '.join(given)} cannot be used with the scope machine",
                    "Set scope to resource_group or subscription",
                )
            name = str(options.get("name") or task_vars.get("inventory_hostname", ""))
            machine = hub.resource(resource_id(options["subscription_id"], options["resource_group"], name))
            found = [machine] if machine else []
            query = [*_fleet.query({**place, "resource_groups": [options["resource_group"]]}), ("name", name)]
            rows = hub.fleet(query) if found else []
        else:
            group = options["resource_group"] if options["scope"] == "resource_group" else None
            filters = {option: options.get(option) for option in FILTERS}
            rows = hub.fleet(_fleet.query({**place, **filters, "resource_groups": [group] if group else None}))
            found = hub.machines(options["subscription_id"], group)
            if any(filters.values()):
                wanted = {row["id"].lower() for row in rows}
                found = [machine for machine in found if machine["id"].lower() in wanted]
        known = {row["id"].lower(): row for row in rows}
        return {"machines": [{**machine, "fleet": known.get(machine["id"].lower())} for machine in found]}

# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.wait_ready: waits on the controller until the hub has heard from a machine."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._base import HubAction
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError, HubError, OptionError
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub
from ansible_collections.hawser.machine.plugins.plugin_utils._operation import AWAY
from ansible_collections.hawser.machine.plugins.plugin_utils._place import needed
from ansible_collections.hawser.machine.plugins.plugin_utils._ready import verdict
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec


class ActionModule(HubAction):
    """Looks at the fleet query until the machine is ready or the time is up."""

    MODULE = "wait_ready"
    SPEC = argument_spec("wait_ready")

    def ask(self, hub: Hub, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return `ready` and the machine; fail with what is missing when the time is up. A hub that is away meanwhile
        is waited for.

        Check mode looks once, and fails for a hub alone that refuses.
        """
        needed(options)
        if options["interval"] < 1:
            raise OptionError(f"interval is {options['interval']}", "Give at least 1 second")
        name = str(options.get("name") or task_vars.get("inventory_hostname", ""))
        query = [
            ("subscriptionId", options["subscription_id"]),
            ("resourceGroup", options["resource_group"]),
            ("name", name),
        ]
        begin = time.monotonic()
        while True:
            machine = None
            try:
                found = hub.fleet(query)
            except HubError as error:
                if error.code != AWAY:
                    raise
                lacking: str | None = f"the hub cannot be asked ({error.message})"
            else:
                machine = found[0] if found else None
                lacking = verdict(machine, hub.now(), options["heartbeat_age"], options["agent_version"])
            waited = time.monotonic() - begin
            if lacking is None or self._task.check_mode:
                return {"ready": lacking is None, "machine": machine, "lacking": lacking, "waited": round(waited, 1)}
            if waited + options["interval"] > options["timeout"]:
                raise HawserError(
                    f"{name} is not ready after {options['timeout']} s: {lacking}",
                    "Run `azcmagent show` and `azcmagent check` on the host, and look at its himds.log",
                    "AZCM0026",
                )
            time.sleep(options["interval"])

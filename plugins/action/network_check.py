# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.network_check: what `azcmagent check --json` says."""

from __future__ import annotations

from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils import _network
from ansible_collections.hawser.machine.plugins.plugin_utils._answer import parse_object
from ansible_collections.hawser.machine.plugins.plugin_utils._base import Action
from ansible_collections.hawser.machine.plugins.plugin_utils._carrier import Carrier
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec


class ActionModule(Action):
    """One remote command, which reads only."""

    MODULE = "network_check"
    SPEC = argument_spec("network_check")

    def act(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the endpoints; fail if a required one does not answer and the options say so."""
        carrier = Carrier(self, task_vars)
        outcome = carrier.run(_network.arguments(options))
        if carrier.missing(outcome):
            raise HawserError(
                "azcmagent is not installed on the host, so nothing could be checked",
                "Install it with the role hawser.machine.agent",
            )
        return _network.result(parse_object(*outcome), outcome[0], options["fail_on_unreachable"])

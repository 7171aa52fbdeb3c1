# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.agent: compares the installed version of the agent with the wanted one."""

from __future__ import annotations

from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils import _answer, _wish
from ansible_collections.hawser.machine.plugins.plugin_utils._base import HostAction
from ansible_collections.hawser.machine.plugins.plugin_utils._carrier import Carrier
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec


class ActionModule(HostAction):
    """Asks with an empty wish, which changes nothing."""

    MODULE = "agent"
    SPEC = argument_spec("agent")

    def act(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Report version, install_required, upgrade_required; never changes the host."""
        host = str(task_vars.get("inventory_hostname", ""))
        check_mode = bool(self._task.check_mode)
        carrier = Carrier(self, task_vars)
        outcome = carrier.run(["plan", "-"], _wish.dump({"schema": 1}))
        if carrier.missing(outcome):
            return _answer.missing_result(check_mode, host, self.shows_diff)
        result = _answer.result_of(_answer.parse_answer(*outcome), host, self.shows_diff)
        _answer.judge_version(result, options["version"], check_mode)
        return result

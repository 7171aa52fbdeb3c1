# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.agent_info: what `azcmagent show --json` says."""

from __future__ import annotations

from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils import _answer
from ansible_collections.hawser.machine.plugins.plugin_utils._base import Action
from ansible_collections.hawser.machine.plugins.plugin_utils._carrier import Carrier
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import AnswerError
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec


class ActionModule(Action):
    """One remote command, which reads only."""

    MODULE = "agent_info"
    SPEC = argument_spec("agent_info")

    def act(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - it has no options
        """Return `installed` and the object of `show`."""
        carrier = Carrier(self, task_vars)
        outcome = carrier.run(["show", "--json"])
        if carrier.missing(outcome):
            return {"installed": False, "agent": None}
        agent = _answer.parse_object(*outcome)
        if "status" not in agent:
            error = agent.get("error") or {}
            raise AnswerError(
                f"azcmagent show failed with exit code {outcome[0]}: {error.get('message', 'it did not say why')}",
                str(error.get("remedy") or "Look at the host's azcmagent.log"),
                error.get("code"),
            )
        return {"installed": True, "agent": agent}

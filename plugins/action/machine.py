# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.machine: all of it is the shared base."""

from __future__ import annotations

from ansible_collections.hawser.machine.plugins.plugin_utils._base import HostAction
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec


class ActionModule(HostAction):
    """Sends the desired state to azcmagent on the host."""

    MODULE = "machine"
    SPEC = argument_spec("machine")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.image: all of it is the shared base."""

from __future__ import annotations

from ansible_collections.hawser.machine.plugins.plugin_utils._base import HostAction
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec
from ansible_collections.hawser.machine.plugins.plugin_utils._wish import compose_image


class ActionModule(HostAction):
    """Sends the desired state to azcmagent on the host."""

    MODULE = "image"
    SPEC = argument_spec("image")

    compose = staticmethod(compose_image)

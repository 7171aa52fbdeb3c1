# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machine of the hub a task on the controller is about, and what lies below it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError, OptionError
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub
from ansible_collections.hawser.machine.plugins.plugin_utils._wish import resource_id

_CHILD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def needed(options: Mapping[str, Any]) -> None:
    """Refuse a task whose place is not complete: options, and the variables that stand for them."""
    for option in ("subscription_id", "resource_group"):
        if not options.get(option):
            raise OptionError(
                f"{option} is missing",
                f"Set the option, or HAWSER_{option.upper()} in the controller's environment",
                code="AZCM0016",
            )


def machine_of(options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
    """The resource id of the machine in the option `machine`, by default of the inventory's host."""
    needed(options)
    name = str(options.get("machine") or task_vars.get("inventory_hostname", ""))
    return resource_id(options["subscription_id"], options["resource_group"], name)


def child_of(machine: str, kind: str, name: str) -> str:
    """The resource id of an extension or a run command of a machine."""
    if not _CHILD.fullmatch(name) or set(name) <= {"."}:
        raise OptionError(f"the name {name!r} cannot be used", "Use 1 to 64 letters, digits, '.', '_' and '-'")
    return f"{machine}/{kind}/{name}"


def location_of(hub: Hub, machine: str, options: Mapping[str, Any]) -> str:
    """The location for what is made below a machine: the option, else the machine's. Raises HawserError."""
    if options.get("location"):
        return str(options["location"])
    resource = hub.resource(machine)
    if resource is None:
        raise HawserError(
            f"there is no machine {machine.rpartition('/')[2]} in the resource group {options['resource_group']}",
            "Connect the machine first, or correct machine and resource_group",
            "AZCM0042",
        )
    return str(resource.get("location") or "")

# SPDX-License-Identifier: Apache-2.0
"""What the audit calls a write, told by its path: a refused one is found by the same word as one that was carried out,
also when it was refused before its handler could say what it is."""

from __future__ import annotations

from control_plane.arm import kinds, paths
from control_plane.arm.roles import Action

WRITES = frozenset({"PUT", "PATCH", "POST", "DELETE"})
# Type of what is written: the action of a write, and of a DELETE.
_OF: dict[str, tuple[Action, Action]] = {
    "subscriptions/resourcegroups": (Action.GROUP_WRITE, Action.GROUP_DELETE),
    paths.MACHINE_TYPE.lower(): (Action.MACHINE_WRITE, Action.MACHINE_DELETE),
    f"{paths.MACHINE_TYPE.lower()}/addextensions": (Action.EXTENSION_WRITE, Action.EXTENSION_WRITE),
    f"{paths.MACHINE_TYPE.lower()}/upgradeextensions": (Action.EXTENSION_WRITE, Action.EXTENSION_WRITE),
    paths.EXTENSION_TYPE.lower(): (Action.EXTENSION_WRITE, Action.EXTENSION_DELETE),
    paths.RUN_COMMAND_TYPE.lower(): (Action.RUN_COMMAND_WRITE, Action.RUN_COMMAND_DELETE),
    f"{paths.PROVIDER.lower()}/validatelicense": (Action.LICENSE_WRITE, Action.LICENSE_WRITE),
    "microsoft.authorization/locks": (Action.LOCK_WRITE, Action.LOCK_DELETE),
    "microsoft.authorization/roleassignments": (Action.ROLE_ASSIGNMENT_WRITE, Action.ROLE_ASSIGNMENT_DELETE),
    "microsoft.resources/tags": (Action.TAGS_WRITE, Action.TAGS_DELETE),
    **{kind.key: (kind.write, kind.delete or kind.write) for kind in kinds.KINDS},
}


def of(method: str, path: str, *, exists: bool = True) -> Action | None:
    """The action of a write at an ARM path; None where nothing can be written. What is written below something that
    keeps nothing of its own there is a write of that. `exists`: whether a machine of that path is there. Pure."""
    route = paths.read(path)
    if route is None or method not in WRITES:
        return None
    words = [word for word in route.shape.rpartition("providers/")[2].split("/") if word != "*"]
    if words[-1] == "register":
        return Action.PROVIDER_REGISTER
    for depth in range(len(words), 1, -1):
        known = _OF.get("/".join(words[:depth]))
        if known is not None:
            action = known[method == "DELETE" and depth == len(words)]
            makes = action is Action.MACHINE_WRITE and method == "PUT" and depth == len(words) and not exists
            return Action.MACHINE_CREATE if makes else action
    return None

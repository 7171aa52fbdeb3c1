# SPDX-License-Identifier: Apache-2.0
"""Reading ARM paths: every word without case, every name with the case it came in (identity-and-arm-api.md C.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

PROVIDER = "Microsoft.HybridCompute"
MACHINE_TYPE = f"{PROVIDER}/machines"
EXTENSION_TYPE = f"{MACHINE_TYPE}/extensions"
RUN_COMMAND_TYPE = f"{MACHINE_TYPE}/runcommands"

_API_VERSION = re.compile(r"^\d{4}-\d{2}-\d{2}(-[a-z]+)?$", re.IGNORECASE)
_MACHINE_NAME = re.compile(r"^[a-zA-Z0-9\-_.]{1,54}$")
_GROUP_NAME = re.compile(r"^[-\w.()]{0,89}[-\w()]$")
_CONTAINERS = frozenset({"subscriptions", "resourcegroups"})
_SLASHES = re.compile("//+")
MAX_PATH = 2048
MAX_SEGMENTS = 24


@dataclass(frozen=True)
class Route:
    """`shape`: lower-case path with `*` for each name; `names`: those names in order."""

    shape: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class MachineId:
    """The parts of a machine's resource id, in the case they were written."""

    subscription: str
    group: str
    name: str

    @property
    def key(self) -> str:
        """The form in which ids are compared."""
        return str(self).lower()

    def __str__(self) -> str:
        return f"{group_id(self.subscription, self.group)}/providers/{MACHINE_TYPE}/{self.name}"


def without_gaps(path: str) -> str:
    """The path with one slash where clients send several: az writes `providers/NAMESPACE//TYPE/NAME` for a resource
    without parent, SDKs `//subscriptions/..` for a scope that begins with a slash."""
    return _SLASHES.sub("/", path)


def scope_of(path: str) -> str:
    """What an extension resource's path hangs below: all before its last `/providers/`."""
    return path[: path.lower().rindex("/providers/")]


def group_id(subscription: str, group: str) -> str:
    """Resource id of a resource group."""
    return f"/subscriptions/{subscription}/resourceGroups/{group}"


def read(path: str) -> Route | None:
    """The shape of a path, or None when it cannot be one (too long, empty segments).

    Below `subscriptions`, `resourcegroups` and below a provider's namespace, words and names alternate.
    """
    if len(path) > MAX_PATH or not path.startswith("/"):
        return None
    segments = path[1:].split("/")
    if segments[-1] == "" and len(segments) > 1:
        segments.pop()
    if not 1 <= len(segments) <= MAX_SEGMENTS or not all(segments):
        return None
    shape: list[str] = []
    names: list[str] = []
    index = 0
    while index < len(segments):
        word = segments[index].lower()
        shape.append(word)
        index += 1
        if word == "providers":
            if index < len(segments):
                shape.append(segments[index].lower())
                index += 1
            continue
        takes_names = "providers" in shape or word in _CONTAINERS
        if takes_names and index < len(segments) and segments[index].lower() != "providers":
            shape.append("*")
            names.append(segments[index])
            index += 1
    return Route("/".join(shape), tuple(names))


def machine_id(text: str) -> MachineId | None:
    """The parts of a machine's resource id, or None when the text is not one."""
    route = read(text)
    if route is None or route.shape != f"subscriptions/*/resourcegroups/*/providers/{MACHINE_TYPE.lower()}/*":
        return None
    found = MachineId(*route.names)
    return found if is_machine_name(found.name) and is_group_name(found.group) else None


def is_machine_name(name: str) -> bool:
    """1 to 54 letters, digits, `-`, `_`, `.`; not dots alone, which clients take for a way up the path."""
    return _MACHINE_NAME.fullmatch(name) is not None and name.strip(".") != ""


def is_group_name(name: str) -> bool:
    """1 to 90 letters, digits, `-`, `_`, `.`, parentheses; no dot at the end."""
    return _GROUP_NAME.fullmatch(name) is not None


def is_api_version(text: str) -> bool:
    """`YYYY-MM-DD` with an optional suffix such as `-preview`."""
    return _API_VERSION.fullmatch(text) is not None


def folded_location(text: str) -> str:
    """Locations are compared without blanks and case: 'West Europe' is `westeurope`."""
    return text.replace(" ", "").lower()

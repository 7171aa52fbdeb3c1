# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines of the hub as hosts of an inventory: safe addresses, safe names, one name for one machine. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
# A host of such a name would stand for the controller, or for a whole group, wherever a play names it.
_TAKEN = frozenset({"all", "ungrouped", "localhost", "127.0.0.1", "inventory"})


def cache_suffix(parts: Iterable[str]) -> str:
    """A name for a cached list: what it was asked of whom, and nothing secret."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def rows_of(cached: Any) -> list[dict[str, Any]] | None:
    """A cached list, or None if it is not one."""
    if isinstance(cached, list) and all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in cached):
        return cached
    return None


def _is_address(text: Any) -> bool:
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except (TypeError, ValueError):
        return False


def once(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each machine once, with addresses that are addresses.

    One that moved while the pages were read may stand on two of them; the later one counts. What a machine reports as
    its address ends as an argument of ssh, so nothing else than an IP address is let through.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        row["addresses"] = [address for address in row.get("addresses") or () if _is_address(address)]
        row["address"] = row.get("address") if _is_address(row.get("address")) else next(iter(row["addresses"]), None)
        row["name"] = str(row.get("name") or row["id"].rsplit("/", 1)[-1])
        found[row["id"].lower()] = row
    return list(found.values())


def safe_name(text: str) -> str:
    """A text as the name of a host: nothing in it has a meaning in host patterns, paths or command lines."""
    name = _UNSAFE.sub("_", text.strip())
    return "_" + name[1:] if name[:1] in {"-", "."} else name


def _group_of(row: Mapping[str, Any]) -> str:
    return safe_name(str(row.get("resourceGroup") or "")).lower()


def host_names(wished: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The names of the hosts for `rows`, and those of `wished` that were not given to anybody.

    A name that several machines wish (compared without case), or that has a meaning of its own to Ansible, is given to
    none of them: each gets its resource group behind it, and its subscription too where that is not enough. So it does
    not depend on the order of the machines who is meant, and variables of one host never reach another. Raises
    OptionError where even that leaves two the same.
    """
    names = [safe_name(name) for name in wished]
    qualified: set[str] = set()
    for part in (_group_of, lambda row: str(row.get("subscriptionId") or "")):
        counted = Counter(name.lower() for name in names)
        again = [counted[name.lower()] > 1 or name.lower() in _TAKEN for name in names]
        if not any(again):
            break
        qualified |= {name for name, clash in zip(names, again, strict=True) if clash}
        names = [f"{name}_{part(row)}" if clash else name for name, clash, row in zip(names, again, rows, strict=True)]
    counted = Counter(name.lower() for name in names)
    same = sorted(name for name, number in counted.items() if number > 1)
    if same:
        raise OptionError(
            f"several machines would be the host {same[0]}", "Correct hostnames so that it tells them apart"
        )
    return names, sorted(qualified)

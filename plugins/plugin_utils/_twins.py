# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts share an identity, and which are held as clones. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What `azcmagent show` says, and what it is called in a sentence. The firmware's UUID is none of them: all containers
# of a machine have the same, and cheap boards repeat theirs (it is evidence for the hub, which knows more).
SHOWN = {"vmId": "machine at the hub", "identityCertificateThumbprint": "certificate"}
HELD = ("parked", "quarantined")
WITHOUT_IDENTITY = ("sealed", "disconnected", "connecting")
_KEY_TYPES = ("ssh-", "ecdsa-", "sk-")


def twins(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hosts that share something, largest group first, then those that are held as clones and share with nobody here.

    `found`: by host `agent` (the object of `azcmagent show --json`, None where it is not installed) and `files` (the
    text of /etc/machine-id, of the public SSH host keys, and a line `vmgenid` with the bytes of the generation id).
    Each entry has `hosts`, `shares` and `sentence`.
    """
    holders: dict[tuple[str, str], list[str]] = {}
    for host, facts in found.items():
        for fact in _facts(facts):
            holders.setdefault(fact, []).append(host)
    groups: dict[tuple[str, ...], set[str]] = {}
    for (kind, _), hosts in holders.items():
        if len(hosts) > 1:
            groups.setdefault(tuple(sorted(hosts)), set()).add(kind)
    answer = []
    for group, kinds in sorted(groups.items(), key=lambda item: (-len(item[0]), item[0])):
        shares = sorted(kinds, key=str.lower)
        sentence = f"{listed(list(group))} share an identity ({listed(shares)})"
        answer.append({"hosts": list(group), "shares": shares, "sentence": sentence})
    for host, facts in sorted(found.items()):
        agent = facts.get("agent") or {}
        state = agent.get("identityState")
        if state in HELD:
            name = agent.get("resourceName") or "another machine"
            sentence = f"{host} is {state}, because its identity is that of {name} at the hub"
            answer.append({"hosts": [host], "shares": [], "sentence": sentence})
    return answer


def _facts(facts: Mapping[str, Any]) -> set[tuple[str, str]]:
    agent = facts.get("agent") or {}
    told: set[tuple[str, str]] = set()
    if agent.get("identityState") not in WITHOUT_IDENTITY:
        told = {(kind, str(agent[key]).lower()) for key, kind in SHOWN.items() if agent.get(key)}
    for line in str(facts.get("files") or "").splitlines():
        words = line.split()
        if len(words) == 1 and len(words[0]) == 32 and set(words[0]) <= set("0123456789abcdef"):
            told.add(("machine id", words[0]))
        elif words[:1] == ["vmgenid"] and len(words) == 17 and set(words[1:]) != {"00"}:
            told.add(("generation id", "".join(words[1:])))
        elif len(words) >= 2 and words[0].startswith(_KEY_TYPES):
            told.add(("SSH host key", f"{words[0]} {words[1]}"))
    return told


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)

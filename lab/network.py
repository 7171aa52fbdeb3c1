# SPDX-License-Identifier: Apache-2.0
"""One bridge for each lab. No routing, no address translation: hosts see each other, the machine, and nothing else."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.errors import LabError
from lab.ledger import Ledger, run

Network = ipaddress.IPv4Network

# From 198.18.0.0/15, reserved for laboratories (RFC 2544, RFC 6890): it collides with no office and no home network.
POOL = ipaddress.IPv4Network("198.18.0.0/16")


def bridge_name(lab: str) -> str:
    """Name of the bridge; Linux allows 15 characters, so a lab's name has at most 8."""
    return f"hawser-{lab}"


def host_interface(machine: str) -> str:
    """The machine's side of a host's cable, as systemd-nspawn names it (systemd-nspawn(1), --network-bridge)."""
    return f"vb-{machine}"[:15]


def overlapping(wanted: Network, routes: Iterable[str]) -> str | None:
    """The first route (destination as `ip -j route` shows it) that the wanted network would collide with."""
    for route in routes:
        if route == "default":
            continue
        if ipaddress.IPv4Network(route, strict=False).overlaps(wanted):
            return route
    return None


def first_free(routes: Sequence[str], pool: Network = POOL) -> Network:
    """The first /24 of the pool that no route touches."""
    for candidate in pool.subnets(new_prefix=24):
        if overlapping(candidate, routes) is None:
            return candidate
    raise LabError(f"Every /24 of {pool} is in use.", "Stop other labs, or remove their bridges.")


def routes() -> list[str]:
    """Destinations of the machine's IPv4 routes."""
    answer = json.loads(run(["ip", "-4", "-j", "route", "show", "table", "main"]).stdout or "[]")
    return [str(entry["dst"]) for entry in answer]


def refuse_existing(interface: str) -> None:
    """Only what is not there yet may go into a ledger: what is in it gets removed."""
    if Path("/sys/class/net", interface).exists():
        raise LabError(
            f"The interface {interface} exists already, and not from here.",
            f"Stop the lab that made it; if there is none: ip link delete {interface}.",
        )


def make_bridge(ledger: Ledger, name: str, network: Network) -> ipaddress.IPv4Address:
    """Make the bridge and give it the network's first address, which is returned."""
    address = next(network.hosts())
    refuse_existing(name)
    ledger.record("interface", name=name)
    run(["ip", "link", "add", "name", name, "type", "bridge", "forward_delay", "0"])
    run(["ip", "address", "add", f"{address}/{network.prefixlen}", "dev", name])
    run(["ip", "link", "set", "dev", name, "up"])
    return address


def unplug(interface: str) -> None:
    """Take a host off its bridge: packets vanish without an answer, its own link stays up."""
    run(["ip", "link", "set", "dev", interface, "nomaster"])


def plug(interface: str, bridge: str) -> None:
    """Put a host back on its bridge."""
    run(["ip", "link", "set", "dev", interface, "master", bridge])

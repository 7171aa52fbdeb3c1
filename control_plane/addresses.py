# SPDX-License-Identifier: Apache-2.0
"""Addresses of callers: under which one they are counted, and networks of them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_ONE_SITE = 64


def address(peer: str) -> Address | None:
    """The address of a peer, None where it is none. A listener on `[::]` shows IPv4 within IPv6; it is IPv4 here."""
    try:
        found = ipaddress.ip_address(peer)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def counted(peer: str) -> str:
    """Under what a peer is counted: its address; of IPv6 the /64, for whoever has one address of it has them all."""
    found = address(peer)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found), _ONE_SITE), strict=False))
    return peer if found is None else str(found)


def network(text: str) -> Network | None:
    """The network of `ADDRESS` or `ADDRESS/BITS`, None where it is none."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def within(peer: str, networks: Iterable[str]) -> bool:
    """Whether a peer is in one of the networks."""
    found = address(peer)
    return found is not None and any((known := network(item)) is not None and found in known for item in networks)


def as_sockets_show(networks: Iterable[str]) -> list[str]:
    """The networks, those of IPv4 also as a listener on `[::]` shows them."""
    found = [known for item in networks if (known := network(item)) is not None]
    mapped = [f"::ffff:{known.network_address}/{96 + known.prefixlen}" for known in found if known.version == 4]
    return [*map(str, found), *mapped]

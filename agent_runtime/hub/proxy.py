# SPDX-License-Identifier: Apache-2.0
"""Through which proxy the hub is reached, and what is wrong on the way in words: for himds and the command line."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Optional
from urllib.parse import urlsplit


def proxy_for(
    part: str, config: Mapping[str, Any], environment: Mapping[str, str], url: str
) -> tuple[Optional[str], str]:
    """The proxy for a part of the hub (`AAD`, `ARM`, `Arc` channel) at `url`, and what `check` calls that. Pure.

    Source: agent-surface.md section 10: `proxy.url`, then HTTPS_PROXY; `proxy.bypass` names parts. NO_PROXY belongs to
    the environment's proxy alone: who sets `proxy.url` means the agent, whatever the machine's other programs do.
    """
    proxy = config.get("proxy.url")
    listed = ""
    if not proxy:
        proxy = environment.get("HTTPS_PROXY") or environment.get("https_proxy")
        listed = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    if not proxy:
        return None, "not set"
    if any(str(name).lower() == part.lower() for name in config.get("proxy.bypass") or ()):
        return None, "bypassed"
    if listed and excepted(url, listed):
        return None, "bypassed"
    return str(proxy), "set"


def excepted(url: str, listed: str) -> bool:
    """Whether NO_PROXY's list names the host of `url`. Pure.

    Entries, separated by commas or blanks: `*`; a name, which stands for itself and the names below it, with or without
    a dot or `*.` before it; an address or a network; each with or without a port.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or 443
    except ValueError:
        return False
    return any(_names(entry.lower(), host, port) for entry in listed.replace(",", " ").split())


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, colon, number = entry.rpartition(":")
    bracketed = entry.startswith("[")
    if colon and number.isdigit() and (bracketed or ":" not in name):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if host.replace(".", "").isdigit() or ":" in host:
        return _holds(entry, host)
    entry = entry.lstrip("*").strip(".")
    return bool(entry) and (host == entry or host.endswith("." + entry))


def _holds(network: str, address: str) -> bool:
    import ipaddress  # not before there is an address to compare: a resident's memory

    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def reason(problem: OSError) -> str:
    """An error of sockets and TLS as a few words for people."""
    import ssl  # whoever met an error of TLS has it already; extd asks for proxies and never needs it

    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({problem.verify_message})"
    if isinstance(problem, ssl.SSLError):
        return f"TLS failed ({(problem.reason or 'handshake').lower().replace('_', ' ')})"
    if isinstance(problem, socket.gaierror):
        return f"the name cannot be resolved ({problem.strerror})"
    if isinstance(problem, (TimeoutError, socket.timeout)):  # not the same before Python 3.10
        return "no answer in time"
    if isinstance(problem, ConnectionRefusedError):
        return "the connection was refused"
    return (problem.strerror or str(problem) or "the connection broke").lower()

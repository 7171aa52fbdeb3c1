# SPDX-License-Identifier: Apache-2.0
"""Through which proxy the hub is reached, and what is wrong on the way in words: for himds and the command line."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any, Optional


def proxy_for(part: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[Optional[str], str]:
    """The proxy for a part of the hub (`AAD` authority, `ARM`, `Arc` channel) and the word of `check`'s column PROXY.

    Source: agent-surface.md section 10: `proxy.url`, then HTTPS_PROXY; `proxy.bypass` names parts.
    """
    proxy = config.get("proxy.url") or environment.get("HTTPS_PROXY") or environment.get("https_proxy")
    if not proxy:
        return None, "not set"
    if any(str(name).lower() == part.lower() for name in config.get("proxy.bypass") or ()):
        return None, "bypassed"
    return str(proxy), "set"


def reason(problem: OSError) -> str:
    """An error of sockets and TLS as a few words for people."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({problem.verify_message})"
    if isinstance(problem, ssl.SSLError):
        return f"TLS failed ({(problem.reason or 'handshake').lower().replace('_', ' ')})"
    if isinstance(problem, socket.gaierror):
        return f"the name cannot be resolved ({problem.strerror})"
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, ConnectionRefusedError):
        return "the connection was refused"
    return (problem.strerror or str(problem) or "the connection broke").lower()

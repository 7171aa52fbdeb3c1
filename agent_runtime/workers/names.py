# SPDX-License-Identifier: Apache-2.0
"""Host names to addresses. The system's resolver blocks for seconds when a server is silent: a worker may, a
resident may not."""

from __future__ import annotations

import socket
from typing import Any

from agent_runtime import errors


def resolve(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"host", "port"}` → `{"addresses": [[family, address], …]}` in the resolver's order."""
    host = arguments["host"]
    try:
        found = socket.getaddrinfo(host, arguments["port"], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "the name is malformed"
        raise errors.NetworkFailed(f"the name {host} cannot be resolved: {why}") from None
    return {"addresses": [[int(family), address[0]] for family, _, _, _, address in found]}

# SPDX-License-Identifier: Apache-2.0
"""Tells the service manager that a service is ready, so that what is ordered after it finds it (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import MutableMapping


def ready(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Send READY=1 once to the socket in NOTIFY_SOCKET, if there is one, and take the variable out of the environment,
    which workers inherit. False when nobody was told."""
    address = environment.pop("NOTIFY_SOCKET", "")
    if sys.platform == "win32" or not address:
        return False
    else:  # noqa: RET505 - mypy judges each system's branch by itself
        # A name that begins with @ is one of the abstract name space (unix(7)).
        target = "\0" + address[1:] if address.startswith("@") else address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            try:
                channel.sendto(b"READY=1", target)
            except OSError:
                return False
        return True

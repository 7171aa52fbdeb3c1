# SPDX-License-Identifier: Apache-2.0
"""Settings of Hawser.HealthProbe, and one probe: HTTP, TCP or a command."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import contract
from contract import HandlerError

KNOWN = (
    "protocol",
    "host",
    "port",
    "requestPath",
    "command",
    "intervalInSeconds",
    "timeoutInSeconds",
    "numberOfProbes",
    "gracePeriod",
)
PROTOCOLS = ("http", "https", "tcp", "command")
_USELESS = {
    "http": ("command",),
    "https": ("command",),
    "tcp": ("command", "requestPath"),
    "command": ("host", "port", "requestPath"),
}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Wish:
    """What is probed and how often. Times in seconds."""

    protocol: str
    host: str
    port: int
    path: str
    command: Optional[str]
    interval: int
    timeout: int
    count: int
    grace: int


def parse(settings: Mapping[str, Any]) -> Wish:
    """The wish of the public settings. Raises HandlerError with one sentence."""
    contract.refuse_unknown(settings, KNOWN)
    protocol = settings.get("protocol")
    if protocol not in PROTOCOLS:
        raise HandlerError(contract.SETTINGS, f"protocol is {protocol!r}. Give one of {', '.join(PROTOCOLS)}.")
    given = [name for name in _USELESS[protocol] if name in settings]
    if given:
        raise HandlerError(contract.SETTINGS, f"{given[0]} means nothing with the protocol {protocol}. Leave it out.")
    if protocol == "command" and not settings.get("command"):
        raise HandlerError(
            contract.SETTINGS, "command is missing. Give the command that says by its exit code 0: healthy."
        )
    if protocol == "tcp" and "port" not in settings:
        raise HandlerError(contract.SETTINGS, "port is missing. Give the port that shall answer.")
    for name in ("host", "requestPath", "command"):
        value = settings.get(name, "")
        if not isinstance(value, str) or "\0" in value or (name != "command" and not _plain(value)):
            raise HandlerError(contract.SETTINGS, f"{name} is {value!r}. Give a text without blanks.")
    interval = contract.number(settings, "intervalInSeconds", 5, 1, 3600)
    timeout = contract.number(settings, "timeoutInSeconds", min(5, interval), 1, 3600)
    if timeout > interval:
        raise HandlerError(
            contract.SETTINGS, f"timeoutInSeconds {timeout} is longer than intervalInSeconds {interval}. Give it less."
        )
    count = contract.number(settings, "numberOfProbes", 1, 1, 24)
    return Wish(
        protocol,
        settings.get("host", "127.0.0.1"),
        contract.number(settings, "port", _PORTS.get(protocol, 1), 1, 65535),
        "/" + settings.get("requestPath", "").lstrip("/"),
        settings.get("command"),
        interval,
        timeout,
        count,
        contract.number(settings, "gracePeriod", interval * count, 0, 86400),
    )


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def probe(wish: Wish) -> tuple[bool, str]:
    """Whether the application answers as it should, and what it said, as part of a sentence without anything that
    changes from probe to probe."""
    if wish.protocol == "command":
        return _run(wish)
    where = f"{wish.host}:{wish.port}"
    try:
        if wish.protocol == "tcp":
            socket.create_connection((wish.host, wish.port), wish.timeout).close()
            return True, f"{where} takes connections"
        status = _get(wish)
    except (OSError, http.client.HTTPException) as error:
        reason = (
            "no answer in time"
            if isinstance(error, (TimeoutError, socket.timeout))
            else getattr(error, "strerror", None) or str(error)
        )
        return False, f"{where}: {reason or type(error).__name__}"
    return 200 <= status < 300, f"{wish.protocol}://{where}{wish.path} answers {status}"


def _get(wish: Wish) -> int:
    connection: http.client.HTTPConnection
    if wish.protocol == "https":
        # The application's own certificate is seldom one for 127.0.0.1, and a probe sends no secret.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(wish.host, wish.port, timeout=wish.timeout, context=context)
    else:
        connection = http.client.HTTPConnection(wish.host, wish.port, timeout=wish.timeout)
    with contextlib.closing(connection):
        connection.request("GET", wish.path, headers={"User-Agent": "Hawser.HealthProbe", "Connection": "close"})
        return connection.getresponse().status


def _run(wish: Wish) -> tuple[bool, str]:
    process = subprocess.Popen(
        ["/bin/sh", "-c", wish.command or ""],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={key: value for key, value in os.environ.items() if key != "ConfigSequenceNumber"},
    )
    try:
        code = process.wait(wish.timeout)
    except subprocess.TimeoutExpired:
        return False, f"the command took longer than {wish.timeout} s"
    finally:
        if process.returncode is None:
            contract.end_group(process, 1.0)
    return code == 0, f"the command ended with {code}"

# SPDX-License-Identifier: Apache-2.0
"""HandlerManifest.json (extension-handler.md section 3). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

NAME = "HandlerManifest.json"
COMMANDS = ("install", "enable", "disable", "update", "uninstall")
_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]{0,127}", re.ASCII)


class Service(NamedTuple):
    """A service that the handler installs, with limits of its own: per cent of one core, MiB; None for none."""

    name: str
    cpu: Optional[int]
    memory: Optional[int]


class Manifest(NamedTuple):
    """What a handler says of itself. `commands` by operation, relative to its folder; `warnings` are for the log."""

    commands: dict[str, str]
    multi: bool
    heartbeat: bool
    with_install: bool
    go_on: bool
    cpu: Optional[int]
    memory: Optional[int]
    services: tuple[Service, ...]
    warnings: tuple[str, ...]


def parse(content: bytes) -> Manifest:
    """The manifest in a file's content. Errors: ValueError with the reason, for code 1003."""
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise ValueError(f"{NAME} is not JSON") from None
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        raise ValueError(f"{NAME} is not an array that begins with an object")
    body = found[0].get("handlerManifest")
    if not isinstance(body, dict):
        raise ValueError(f"{NAME} has no handlerManifest")
    warnings: list[str] = []
    limits = found[0].get("resourceLimits")
    cpu, memory, services = _limits(limits if isinstance(limits, dict) else {}, warnings)
    return Manifest(
        {operation: _command(body, operation) for operation in COMMANDS},
        _truth(body, "supportsMultipleExtensions", warnings),
        _truth(body, "reportHeartbeat", warnings),
        _with_install(body, warnings),
        _truth(body, "continueOnUpdateFailure", warnings),
        cpu,
        memory,
        services,
        tuple(warnings),
    )


def without_mark(content: bytes) -> bytes:
    """The file as it belongs at the root of the handler's folder: without a byte-order mark."""
    return content[3:] if content.startswith(b"\xef\xbb\xbf") else content


def _command(body: Mapping[str, Any], operation: str) -> str:
    value = body.get(f"{operation}Command")
    text = value.strip().lstrip("/") if isinstance(value, str) else ""
    if not text or "\x00" in text or "\n" in text:
        raise ValueError(f"{NAME} has no usable {operation}Command")
    return text


def _truth(body: Mapping[str, Any], name: str, warnings: list[str]) -> bool:
    value = body.get(name, False)
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in ("true", "false"):
        warnings.append(f"{name} is neither true nor false and counts as false")
    return word == "true"


def _with_install(body: Mapping[str, Any], warnings: list[str]) -> bool:
    value = body.get("updateMode")
    word = value.strip().lower() if isinstance(value, str) else ""
    if value is not None and word not in ("", "updatewithinstall", "updatewithoutinstall"):
        warnings.append("updateMode is unknown and counts as UpdateWithInstall")
    return word != "updatewithoutinstall"


def _limits(limits: Mapping[str, Any], warnings: list[str]) -> tuple[Optional[int], Optional[int], tuple[Service, ...]]:
    services = []
    listed = limits.get("services")
    for item in listed if isinstance(listed, list) else ():
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not _SERVICE.fullmatch(name):
            warnings.append("resourceLimits names a service that cannot be one")
            continue
        services.append(Service(name, _number(item, "cpuQuotaPercentage"), _number(item, "memoryQuotaInMB")))
    return _number(limits, "cpuQuotaPercentage"), _number(limits, "memoryQuotaInMB"), tuple(services)


def _number(limits: Mapping[str, Any], name: str) -> Optional[int]:
    value = limits.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value < 10**7:
        return int(value)
    return None

# SPDX-License-Identifier: Apache-2.0
"""What a handler is told of its surroundings: HandlerEnvironment.json and variables (extension-handler.md sections 4
and 8). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from agent_runtime.extensions import events

FILE = "HandlerEnvironment.json"
IMDS = "http://localhost:40342"
NOT_RUN = "NOT_RUN"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Parts of the hub's names in proxy.bypass that stand for extensions (agent-surface.md section 10): by publisher.
_BYPASSES = {"ama": ("microsoft.azure.monitor",), "arcdata": ("microsoft.azuredata",)}


class Operation(NamedTuple):
    """One command of a handler. `version` of the package whose command runs; `old`, `new`: of an update, else None;
    `disabled`: exit codes of the old version's disable by extension, `uninstalled`: of its uninstall, None where it did
    not run."""

    kind: str
    folder: str
    version: str
    sequence: int
    extension: Optional[str]
    multi: bool
    old: Optional[str] = None
    new: Optional[str] = None
    is_downgrade: bool = False
    disabled: Optional[Mapping[str, int]] = None
    uninstalled: Optional[int] = None


def text(name: str, folder: str, logs: str) -> str:
    """Content of the file, for the handler's folder and log folder.

    Shims of real handlers cut `logFolder` out of the text: it stands before others, and separators are a comma or a
    colon with one blank. The folder of events has two names; libraries of handlers refuse to work without it.
    """
    told = f"{logs}/{events.FOLDER}"
    places = {
        "logFolder": logs,
        "configFolder": f"{folder}/config",
        "statusFolder": f"{folder}/status",
        "heartbeatFile": f"{folder}/heartbeat.log",
        "eventsFolder": told,
        "eventsFolder_preview": told,
    }
    return json.dumps([{"name": name, "version": 1.0, "handlerEnvironment": places}])


def variables(operation: Operation) -> dict[str, str]:
    """Variables of the contract for one command."""
    made = {
        "AZURE_GUEST_AGENT_EXTENSION_PATH": operation.folder,
        "AZURE_GUEST_AGENT_EXTENSION_VERSION": operation.version,
        "AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES": json.dumps([events.FEATURE]),
        "ConfigSequenceNumber": str(operation.sequence),
        "IDENTITY_ENDPOINT": f"{IMDS}/metadata/identity/oauth2/token",
        "IMDS_ENDPOINT": IMDS,
    }
    if operation.multi and operation.extension is not None:
        made["ConfigExtensionName"] = operation.extension
    if operation.kind in ("install", "enable"):
        code = operation.uninstalled
        made["AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"] = NOT_RUN if code is None else str(code)
    if operation.kind == "update" and operation.old and operation.new:
        made["VERSION"] = operation.new
        # The old version's own command moves to another one: the reference host names the new version twice.
        made["AZURE_GUEST_AGENT_UPDATING_FROM_VERSION"] = operation.new if operation.is_downgrade else operation.old
        made.update(_disabled(operation))
    return made


def _disabled(operation: Operation) -> dict[str, str]:
    codes = operation.disabled or {}
    if operation.multi:
        listed = [{"extensionName": name, "exitCode": code} for name, code in codes.items()]
        return {"AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS": json.dumps(listed)}
    return {"AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE": str(next(iter(codes.values()), NOT_RUN))}


def surroundings(own: Mapping[str, str], config: Mapping[str, Any], publisher: str) -> dict[str, str]:
    """Variables that are not the contract's: search path, language, home, the agent's proxy. `own`: extd's, from which
    nothing but the language and the proxy is taken: what belongs to our interpreter is no concern of a handler."""
    made = {
        "PATH": PATH,
        "HOME": "/root",
        # Old Python handlers read it without a default.
        "PYTHONPATH": "",
        **{name: value for name, value in own.items() if name == "LANG" or name.startswith("LC_")},
    }
    made.setdefault("LANG", "C.UTF-8")
    passed = {str(name).lower() for name in config.get("proxy.bypass") or ()}
    if any(name in passed and publisher.lower() in publishers for name, publishers in _BYPASSES.items()):
        return made
    proxy = config.get("proxy.url") or own.get("HTTPS_PROXY") or own.get("https_proxy")
    if proxy:
        # The last is what handlers look for that know connected machines.
        made["HTTPS_PROXY"] = made["https_proxy"] = made["ProxySettings"] = str(proxy)
        around = own.get("NO_PROXY") or own.get("no_proxy")
        made["NO_PROXY"] = made["no_proxy"] = around or "localhost,127.0.0.1"
    return made

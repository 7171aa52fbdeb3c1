# SPDX-License-Identifier: Apache-2.0
"""Config properties: one table, pure functions over it, and `localconfig.json`.

Source: agent-surface.md sections 6 and 15. The file holds only what differs from the defaults, and limits that are
set (docs/protocol.md section 12). Values in memory and in the file: bool, int, str, or a list of str; None never.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Union

from agent_runtime import errors
from agent_runtime.platform import local
from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic

Value = Union[bool, int, str, list[str]]
ALLOW_NONE = "Allow/None"
LIST_LIMIT = 1024
TEXT_LIMIT = 2048


class Property(NamedTuple):
    """One row. `kind`: bool, percent, choice, url, words (list out of `allowed`), types (list of Publisher/Type),
    ports."""

    name: str
    kind: str
    default: Value
    description: str
    example: str
    allowed: tuple[str, ...] = ()
    preview: bool = False

    @property
    def is_list(self) -> bool:
        return self.kind in ("words", "types", "ports")

    @property
    def counts_when_set(self) -> bool:
        """Whether a value counts also where it equals the displayed default: where none is set the system's own
        default is in force, which is another (agent-surface.md section 6)."""
        return self.kind == "percent"


def _table(*rows: Property) -> dict[str, Property]:
    return {row.name: row for row in rows}


PROPERTIES = _table(
    Property(
        "incomingconnections.enabled",
        "bool",
        True,
        "Whether remote sessions may be relayed to this machine; false blocks every one, whatever the hub says",
        "false",
        preview=True,
    ),
    Property(
        "incomingconnections.ports",
        "ports",
        [],
        "Local ports that may be relayed to; empty leaves the choice to the hub",
        "22,6516",
        preview=True,
    ),
    Property(
        "connection.type",
        "choice",
        "direct",
        "How the hub is reached: directly, or through the gateway",
        "direct",
        ("direct", "gateway"),
    ),
    Property(
        "proxy.url", "url", "", "Proxy for everything the agent sends; empty for none", "http://proxy.example:8080"
    ),
    Property(
        "proxy.bypass",
        "words",
        [],
        "Parts of the hub that are reached without the proxy",
        "Arc,ARM",
        ("AAD", "ARM", "AMA", "Arc", "ArcData"),
    ),
    Property(
        "extensions.allowlist",
        "types",
        [],
        f"Extensions that may be installed; empty allows all, {ALLOW_NONE} allows none",
        "Microsoft.Azure.Extensions/CustomScript",
    ),
    Property(
        "extensions.blocklist",
        "types",
        [],
        "Extensions that may not be installed, even when they are in the allow list",
        "Microsoft.CPlat.Core/RunCommandHandlerLinux",
    ),
    Property("extensions.enabled", "bool", True, "Whether the extension service manages extensions", "false"),
    Property("extensions.agent.cpulimit", "percent", 5, "Processor limit of the extension service in percent", "80"),
    Property("guestconfiguration.enabled", "bool", True, "Whether the policy service evaluates policies", "false"),
    Property(
        "guestconfiguration.agent.cpulimit", "percent", 5, "Processor limit of the policy service in percent", "10"
    ),
    Property(
        "automaticupgrade.enabled",
        "bool",
        True,
        "Whether the hub may upgrade the agent; azcmagent upgrade does it all the same",
        "false",
    ),
    Property(
        "config.mode",
        "choice",
        "full",
        "full, or monitor: monitoring and security extensions only, no policy, no remote sessions",
        "monitor",
        ("full", "monitor"),
    ),
)
# What 'config.mode monitor' puts in force, over the machine's own values (agent-surface.md section 15; the list is
# ours).
MONITOR: dict[str, Value] = {
    "extensions.allowlist": [
        "Microsoft.Azure.Monitor/AzureMonitorLinuxAgent",
        "Microsoft.Azure.Monitor/AzureMonitorWindowsAgent",
        "Microsoft.Azure.Monitoring.DependencyAgent/DependencyAgentLinux",
        "Microsoft.Azure.Monitoring.DependencyAgent/DependencyAgentWindows",
        "Microsoft.Azure.AzureDefenderForServers/MDE.Linux",
        "Microsoft.Azure.AzureDefenderForServers/MDE.Windows",
        "Microsoft.Azure.AzureDefenderForSQL/AdvancedThreatProtection.Windows",
    ],
    "extensions.blocklist": [],
    "guestconfiguration.enabled": False,
    "incomingconnections.enabled": False,
}
_LOCKED_BY_MONITOR = ("extensions.allowlist", "extensions.blocklist")
_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,128}/[A-Za-z0-9_.-]{1,128}")
_URL = re.compile(r"http://([^@/\s\"'<>\\]+@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?/?", re.ASCII)


def find(name: str) -> Property:
    """The row of a property; names are compared without case. Errors: AZCM0023 naming the nearest ones."""
    row = PROPERTIES.get(name.strip().lower())
    if row is None:
        raise errors.ParameterInvalid(
            f"there is no config property {name[:80]!r}", "See 'azcmagent config info' for the properties there are"
        )
    return row


def parse(name: str, value: object) -> Value:
    """A value out of text or JSON in the form that is kept. Errors: AZCM0023."""
    row = find(name)
    if row.kind == "bool":
        return _boolean(row, value)
    if row.kind == "percent":
        return _percent(row, value)
    if row.is_list:
        return _list(row, value)
    if not isinstance(value, str):
        raise _refused(row, value, "it must be text")
    text = value.strip()
    if row.kind == "url":
        return _url(row, text)
    for choice in row.allowed:
        if text.lower() == choice.lower():
            return choice
    raise _refused(row, value, f"it must be one of {', '.join(row.allowed)}")


def _refused(row: Property, value: object, why: str) -> errors.ParameterInvalid:
    shown = "" if row.kind == "url" else f" {str(value)[:80]!r}"  # a proxy's URL may hold a password
    return errors.ParameterInvalid(f"{row.name} cannot take the value{shown}: {why}", f"For example: {row.example}")


def _boolean(row: Property, value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in ("true", "false"):
        raise _refused(row, value, "it must be true or false")
    return word == "true"


def _percent(row: Property, value: object) -> int:
    text = str(value).strip() if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= 100:
        raise _refused(row, value, "it must be a whole number from 1 to 100")
    return int(text)


def _url(row: Property, text: str) -> str:
    if not text:
        return ""
    found = _URL.fullmatch(text) if len(text) <= TEXT_LIMIT else None
    port = int(found.group(3)[1:]) if found and found.group(3) else 80
    if not found or not 1 <= port <= 65535:
        raise _refused(row, text, "it must have the form http://host:port")
    return text.rstrip("/")


def _list(row: Property, value: object) -> list[str]:
    if isinstance(value, str):
        items: list[object] = list(value.split(","))
    elif isinstance(value, (list, tuple)):
        items = list(value)
    else:
        raise _refused(row, value, "it must be a list")
    if len(items) > LIST_LIMIT:
        raise _refused(row, f"{len(items)} entries", f"at most {LIST_LIMIT} are kept")
    kept: list[str] = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise _refused(row, item, "an entry must be text")
        text = str(item).strip()
        if text:
            kept.append(_entry(row, text))
    unique: dict[str, str] = {}
    for entry in kept:
        unique.setdefault(entry.lower(), entry)
    return list(unique.values())


def _entry(row: Property, text: str) -> str:
    if row.kind == "ports":
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= 65535:
            raise _refused(row, text, "a port is a number from 1 to 65535")
        return str(int(text))
    if row.kind == "types":
        if text.lower() == ALLOW_NONE.lower() and row.name == "extensions.allowlist":
            return ALLOW_NONE
        if not _TYPE.fullmatch(text):
            raise _refused(row, text, "an entry has the form Publisher/Type")
        return text
    for word in row.allowed:
        if text.lower() == word.lower():
            return word
    raise _refused(row, text, f"an entry is one of {', '.join(row.allowed)}")


def same(one: Value | None, other: Value | None) -> bool:
    """Whether two values mean the same: lists without order and case."""
    if isinstance(one, list) and isinstance(other, list):
        return sorted(item.lower() for item in one) == sorted(item.lower() for item in other)
    return one == other


def defaults() -> dict[str, Value]:
    """Every property with its default."""
    return {
        name: (list(row.default) if isinstance(row.default, list) else row.default) for name, row in PROPERTIES.items()
    }


def effective(local: Mapping[str, Value]) -> dict[str, Value]:
    """Every property with the value in force: own values over defaults, monitor mode over both."""
    merged = {**defaults(), **local}
    if merged["config.mode"] == "monitor":
        merged.update(MONITOR)
    return merged


def changed(local: Mapping[str, Value], changes: Mapping[str, Value | None]) -> dict[str, Value]:
    """The new own values; None clears, a default is kept only where it counts when set. Errors: AZCM0023, AZCM0027 for
    lists in monitor mode."""
    result = dict(local)
    mode = changes.get("config.mode", local.get("config.mode", "full")) or "full"
    for name, value in changes.items():
        row = find(name)
        if value is None or (same(value, row.default) and not row.counts_when_set):
            result.pop(row.name, None)
        else:
            result[row.name] = value
    if mode == "monitor":
        for name in _LOCKED_BY_MONITOR:
            if name in changes and result.get(name) != local.get(name):
                raise errors.ConfigurationConflict(
                    f"{name} cannot be changed while config.mode is monitor",
                    "Set config.mode to full first: azcmagent config set config.mode full",
                )
    return result


def with_added(row: Property, current: Value, value: object) -> list[str]:
    """A list with more entries. Errors: AZCM0023 for a property that is no list."""
    if not row.is_list or not isinstance(current, list):
        raise errors.ParameterInvalid(f"{row.name} is not a list", "Leave out --add")
    return _list(row, [*current, *_list(row, value)])


def with_removed(row: Property, current: Value, value: object) -> list[str]:
    """A list with fewer entries. Errors: AZCM0023 for a property that is no list."""
    if not row.is_list or not isinstance(current, list):
        raise errors.ParameterInvalid(f"{row.name} is not a list", "Leave out --remove")
    gone = {entry.lower() for entry in _list(row, value)}
    return [entry for entry in current if entry.lower() not in gone]


def load(paths: Paths) -> dict[str, Value]:
    """Own values out of `localconfig.json`; none when there is no file. Errors: AZCM0070."""
    known = {name: value for name, value in _read(paths).items() if name.lower() in PROPERTIES}
    try:
        return {find(name).name: parse(name, value) for name, value in known.items()}
    except errors.ParameterInvalid as error:
        raise errors.ConfigNotObtained(f"{paths.localconfig} holds a wrong value: {error.message}") from None


def _read(paths: Paths) -> dict[str, Any]:
    try:
        return atomic.read_json(paths.localconfig)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise errors.ConfigNotObtained(f"{paths.localconfig} cannot be read: {_why(error)}") from None


def update(paths: Paths, changes: Mapping[str, Value | None]) -> bool:
    """Write changes under a lock; whether anything changed. Errors: AZCM0023, AZCM0027, AZCM0069, AZCM0070."""
    try:
        with local.in_turn(paths.state):
            return _update(paths, changes)
    except OSError as error:
        raise errors.ConfigNotUpdated(f"{paths.localconfig} cannot be written: {_why(error)}") from None


def _update(paths: Paths, changes: Mapping[str, Value | None]) -> bool:
    before = load(paths)
    after = changed(before, changes)
    if after != before:
        # What a newer version has set, and this one does not know, must be there when the newer one is back.
        foreign = {name: value for name, value in _read(paths).items() if name.lower() not in PROPERTIES}
        atomic.write_json(paths.localconfig, {**foreign, **after}, mode=0o640, group=local.group_of("himds"))
    return after != before


def _why(error: BaseException) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


def agent_configuration(local: Mapping[str, Value]) -> dict[str, Any]:
    """The object that ARM shows as `agentConfiguration` (identity-and-arm-api.md C.6)."""
    values = effective(local)

    def types(name: str) -> list[dict[str, str]]:
        entries: Iterable[str] = values[name] if isinstance(values[name], list) else ()  # type: ignore[assignment]
        return [dict(zip(("publisher", "type"), entry.split("/", 1))) for entry in entries]

    return {
        "proxyUrl": without_password(str(values["proxy.url"])),
        "proxyBypass": values["proxy.bypass"],
        "incomingConnectionsPorts": values["incomingconnections.ports"],
        "extensionsAllowList": types("extensions.allowlist"),
        "extensionsBlockList": types("extensions.blocklist"),
        "extensionsEnabled": str(values["extensions.enabled"]).lower(),
        "guestConfigurationEnabled": str(values["guestconfiguration.enabled"]).lower(),
        "configMode": values["config.mode"],
    }


def without_password(url: str) -> str:
    """A proxy's URL as it may be shown."""
    return re.sub(r"//[^@/]*@", "//", url)

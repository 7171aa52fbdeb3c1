# SPDX-License-Identifier: Apache-2.0
"""How much of the machine an extension may take (agent-overview 'Agent resource governance', extension-handler.md
section 19). Pure: limits, and the words that put them in force. A failure of these never blocks an operation.

Per cents are of one core and may exceed 100, as in manifests and in systemd's CPUQuota.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

PARENT = "hawser-extensions"
# Ours, in the slice PARENT and with the default as its limit (packaging/units/extd.service).
UNIT = "extd.service"
DEFAULTS = {"linux": 30, "windows": 5}
# Exceptions of the overview, by type in lower case and operating system.
EXCEPTIONS = {
    ("azuremonitorlinuxagent", "linux"): 60,
    ("azuremonitorwindowsagent", "windows"): 100,
    ("linuxosupdateextension", "linux"): 60,
    ("mde.linux", "linux"): 60,
    ("microsoftdnsagent", "windows"): 100,
    ("microsoftmonitoringagent", "windows"): 60,
    ("omsagentforlinux", "linux"): 60,
}
CPU_PROPERTY = "extensions.agent.cpulimit"


class Limits(NamedTuple):
    """Of one handler: per cent of one core, MiB (None: unlimited), and of services it installs, by unit name."""

    cpu: int
    memory: Optional[int]
    services: tuple[tuple[str, Optional[int], Optional[int]], ...]


def limits(kind: str, resources: Mapping[str, Any], own: Mapping[str, Any], system: str = "linux") -> Limits:
    """Limits of a handler of type `kind`. `resources`: `cpu`, `memory`, `services` of its manifest; `own`: the
    machine's own config values, so that a limit the user has set is told from the displayed default.

    The user's limit takes the place of the platform's; of several in force the lowest counts.
    """
    candidates = [own.get(CPU_PROPERTY), EXCEPTIONS.get((kind.lower(), system))]
    known = [int(value) for value in candidates if value is not None] or [DEFAULTS[system]]
    if resources.get("cpu"):
        known.append(int(resources["cpu"]))
    services = tuple((unit_of(str(name)), cpu, memory) for name, cpu, memory in resources.get("services") or ())
    return Limits(min(known), resources.get("memory"), services)


def unit_of(service: str) -> str:
    return service if service.endswith(".service") else f"{service}.service"


def slice_of(handler: str) -> str:
    """The slice of a handler, below that of all. A hyphen in a slice's name would be one more level."""
    return f"{PARENT}-{re.sub(r'[^A-Za-z0-9_.]', '_', handler)}.slice"


def own_limit(own: Mapping[str, Any], system: str = "linux") -> int:
    """What extd may take with its workers, per cent of one core. `own`: as for `limits`."""
    return int(own.get(CPU_PROPERTY) or DEFAULTS[system])


def enforcing_own(cpu: int) -> list[list[str]]:
    """Arguments of systemctl that put extd's own limit in force."""
    return [["set-property", "--runtime", UNIT, f"CPUQuota={cpu}%"]]


def enforcing(handler: str, found: Limits) -> list[list[str]]:
    """Arguments of systemctl, one list a call, that put limits in force."""
    calls = [_set(slice_of(handler), found.cpu, found.memory)]
    return calls + [_set(name, cpu, memory) for name, cpu, memory in found.services if cpu or memory]


def lifting(handler: str, found: Limits) -> list[list[str]]:
    """Arguments of systemctl that take them back."""
    return [_set(name, None, None) for name in (slice_of(handler), *(name for name, _, _ in found.services))]


def _set(unit: str, cpu: Optional[int], memory: Optional[int]) -> list[str]:
    quota = f"CPUQuota={cpu}%" if cpu else "CPUQuota="
    return ["set-property", "--runtime", unit, quota, f"MemoryMax={memory}M" if memory else "MemoryMax=infinity"]


def starting(unit: str, handler: str) -> list[str]:
    """Arguments of systemd-run before the command: a service, which does not inherit the walls around extd, whose
    children outlive its command."""
    return [
        "--quiet",
        "--collect",
        "--no-ask-password",
        f"--unit={unit}",
        f"--slice={slice_of(handler)}",
        "--service-type=exec",
        "--property=KillMode=process",
        "--property=OOMPolicy=continue",
        "--property=UMask=0022",
    ]

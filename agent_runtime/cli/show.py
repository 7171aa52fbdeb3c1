# SPDX-License-Identifier: Apache-2.0
"""`azcmagent show`: what the agent knows of this machine (agent-surface.md section 5.4). Works as any user."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent_runtime import errors, support
from agent_runtime.cli import services
from agent_runtime.cli.output import shown, table
from agent_runtime.identity import birth, machine
from agent_runtime.platform import local
from agent_runtime.version import VERSION

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session

# Display name and JSON key, in the order of the vendor's sample; those from the identity's state on are ours.
FIELDS = (
    ("Resource Name", "resourceName"),
    ("Resource Group Name", "resourceGroup"),
    ("Resource Namespace", "resourceNamespace"),
    ("Resource Id", "resourceId"),
    ("Subscription ID", "subscriptionId"),
    ("Tenant ID", "tenantId"),
    ("VM ID", "vmId"),
    ("Correlation ID", "correlationId"),
    ("VM UUID", "vmUuid"),
    ("Location", "location"),
    ("Cloud", "cloud"),
    ("Identity Key Store", "identityKeyStore"),
    ("Agent Version", "agentVersion"),
    ("Agent Logfile", "agentLogfile"),
    ("Agent Status", "status"),
    ("Agent Last Heartbeat", "lastHeartbeat"),
    ("Agent Error Code", "agentErrorCode"),
    ("Agent Error Details", "agentErrorDetails"),
    ("Agent Error Timestamp", "agentErrorTimestamp"),
    ("Using HTTPS Proxy", "httpsProxy"),
    ("Proxy Bypass List", "proxyBypass"),
    ("Upstream Proxy", "upstreamProxy"),
    ("Gateway URL", "gatewayUrl"),
    ("Cloud Provider", "cloudProvider"),
    ("Cloud Metadata", "cloudMetadata"),
    ("Manufacturer", "manufacturer"),
    ("Model", "model"),
    ("MSSQL Server Detected", "mssqlDiscovered"),
    ("MySQL Server Detected", "mysqlDiscovered"),
    ("PGSQL Server Detected", "pgsqlDiscovered"),
    ("Dependent Service Status", "services"),
    ("Portal Page", "portalPage"),
    ("Disabled Features", "disabledFeatures"),
    ("Identity State", "identityState"),
    ("Identity Reason", "identityReason"),
    ("Identity Verdict", "identityVerdict"),
    ("Identity Differs", "identityDiffers"),
    ("Identity Event", "identityEvent"),
    ("Image ID", "imageId"),
    ("Identity Certificate Expires", "identityCertificateExpires"),
    ("Identity Certificate Thumbprint", "identityCertificateThumbprint"),
    ("Tags", "tags"),
    ("Agent Released", "agentReleased"),
    ("Agent Supported Until", "agentSupportedUntil"),
    ("Agent Support", "agentSupport"),
)
OS_FIELDS = (
    ("OS Name", "osName"),
    ("OS Version", "osVersion"),
    ("OS Kernel", "osKernel"),
    ("OS Architecture", "osArchitecture"),
    ("OS Host Name", "osHostname"),
)


def configure(parser: Parser) -> None:
    parser.add_argument("--os", action="store_true", help="add what is known of the operating system")
    parser.add_argument("property", nargs="*", help="show only these, by display name or JSON key")


def run(session: Session) -> int:
    """Exit code 0, also when disconnected or sealed; 44 while the identity is held; 61 when himds does not answer (root
    sees what the files say)."""
    fields = [*FIELDS, *(OS_FIELDS if session.args.os else ())]
    wanted = chosen(session.args.property, fields)
    code = 0
    try:
        status = session.himds().status()
    except errors.NotSupported:
        # There is no himds on this system to ask: nothing is wrong, and the machine is not connected.
        status = from_files(session, None)
    except errors.AgentError as problem:
        if not local.is_administrator():
            raise
        if birth.is_sealed(session.paths):
            status = from_files(session, None)  # nothing runs in an image that was just sealed
        else:
            status, code = from_files(session, problem), problem.exit_code
    if any(key == "services" for _, key in wanted):
        status = {**status, "services": services.states(status.get("services"), code == 0)}
    if session.args.os:
        status = {**status, **local.operating_system()}
    if status.get("identityState") in machine.HELD:
        code = errors.NameTaken("").exit_code
    data = {key: status.get(key) for _, key in wanted}
    session.out.result(data, text(data, wanted, bare=bool(session.args.property) and len(wanted) == 1))
    return code


def chosen(words: list[str], fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The fields that `words` name, by display name or key, without case; all without words. Errors: AZCM0023. Pure."""
    found = []
    for word in words:
        match = [field for field in fields if word.lower() in (field[0].lower(), field[1].lower())]
        if not match:
            raise errors.ParameterInvalid(
                f"show knows no property {word[:60]!r}", "azcmagent show lists them; put names with blanks into quotes"
            )
        found += match
    return found or fields


def text(data: Mapping[str, Any], fields: list[tuple[str, str]], bare: bool = False) -> str:
    """The text form. One property asked for by name is its bare value, for scripts."""
    if bare and not isinstance(data[fields[0][1]], (dict, list)):
        return shown(data[fields[0][1]])
    rows: list[tuple[str, str]] = []
    for name, key in fields:
        value = data[key]
        if key == "services":
            rows.append((name, ""))
            rows += [(f"  {s.get('displayName')} ({s.get('serviceName')})", str(s.get("status"))) for s in value or ()]
        elif key == "agentSupport" and value == support.ENDED:
            rows.append((name, "ended: this version is over a year old; upgrade the agent"))
        elif isinstance(value, dict):
            rows.append((name, "" if value else "none"))
            rows += [(f"  {inner}", shown(item)) for inner, item in value.items()]
        else:
            rows.append((name, shown(value)))
    return table(rows, 40)


def from_files(session: Session, problem: errors.AgentError | None) -> dict[str, Any]:
    """What root can say without himds: the registration, and why there is no more, if something is wrong."""
    known: dict[str, Any] = {}
    try:
        # himds owns this file: a small one is read, a link is not followed.
        handle = local.open_plain(session.paths.agentconfig, os.O_RDONLY)
        with open(handle, "rb") as file:
            found = json.loads(file.read(65536))
        if isinstance(found, dict):
            known = {key: value for key, value in found.items() if isinstance(value, (str, type(None)))}
    except (OSError, ValueError):
        known = {}
    return {
        **known,
        "identityState": "sealed" if birth.is_sealed(session.paths) else "",
        "imageId": birth.image_id(session.paths) or "",
        "resourceNamespace": "Microsoft.HybridCompute",
        "agentVersion": VERSION,
        "agentLogfile": str(session.paths.himds_log),
        "status": "Disconnected",
        "agentErrorCode": problem.code if problem else "",
        "agentErrorDetails": str(problem or ""),
        **support.status(time.time()),
    }

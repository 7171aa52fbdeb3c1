# SPDX-License-Identifier: Apache-2.0
"""Everything that can go wrong in the agent: one tree, each error with its documented code and a remedy.

AgentError(message, remedy)                      code and exit code are the class's
├── UnknownError              AZCM0001           ├── NameTaken                 AZCM0044
├── InternalError             AZCM0002           ├── HimdsUnreachable          AZCM0061
├── NotSupported              AZCM0003           ├── ConnectFailed             AZCM0062
├── NoFileLogger              AZCM0005           ├── DisconnectFailed          AZCM0063
├── NotInitialised            AZCM0006           ├── StatusNotObtained         AZCM0066
├── Cancelled                 AZCM0011           ├── AlreadyConnected          AZCM0067
├── TokenInvalid              AZCM0012           ├── SubscriptionNotResolved   AZCM0068
├── ParameterMissing          AZCM0016           ├── ConfigNotUpdated          AZCM0069
├── NotPrivileged             AZCM0018           ├── ConfigNotObtained         AZCM0070
├── ConfigFileNotFound        AZCM0019           ├── ExtensionFailed           AZCM0072
├── LocationUnknown           AZCM0020           ├── ExtensionNotAdded         AZCM0074
├── ParameterInvalid          AZCM0023           ├── CloudNotObtained          AZCM0075
├── NetworkFailed             AZCM0026           ├── CertificateNotObtained    AZCM0081
├── ConfigurationConflict     AZCM0027           ├── CommandFailed             AZCM0101
├── CredentialInvalid         AZCM0041           ├── ResourceNameNotObtained   AZCM0102
├── MachineNotCreated         AZCM0042           └── KeyNotGenerated           AZCM0103
└── MachineNotDeleted         AZCM0043

Codes, exit codes and their meaning: agent-surface.md section 7. The number of the code is the exit code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AgentError(Exception):
    """Base of the tree. `message` is one sentence without a full stop, `remedy` says what to do about it;
    `retry_after`: seconds that the hub wants to be left alone, if it said so."""

    code = "AZCM0001"
    default_remedy = "Look at the agent's logs, then run the command again"

    def __init__(self, message: str, remedy: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.message = message.rstrip(".")
        self.remedy = (remedy or self.default_remedy).rstrip(".")

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends with this error."""
        return int(self.code[4:])

    def as_dict(self) -> dict[str, Any]:
        """`{"code", "message", "remedy", "retryAfter"?}`, as the local socket and `apply` send it."""
        after = {} if self.retry_after is None else {"retryAfter": self.retry_after}
        return {"code": self.code, "message": self.message, "remedy": self.remedy, **after}


class UnknownError(AgentError):
    pass


class InternalError(AgentError):
    code = "AZCM0002"
    default_remedy = "Restart the service himdsd, then run the command again"


class NotSupported(AgentError):
    code = "AZCM0003"
    default_remedy = "See 'azcmagent help' for what this version does"


class NoFileLogger(AgentError):
    code = "AZCM0005"
    default_remedy = "See that the log folder exists, may be written and has space"


class NotInitialised(AgentError):
    """What the machine must have is missing: a folder that programs may run in."""

    code = "AZCM0006"
    default_remedy = "See the prerequisites, mend what is named, then run the command again"


class Cancelled(AgentError):
    code = "AZCM0011"
    default_remedy = "Run the command again"


class TokenInvalid(AgentError):
    code = "AZCM0012"
    default_remedy = "Ask for a new access token and run the command again"


class ParameterMissing(AgentError):
    code = "AZCM0016"
    default_remedy = "Give it; see --help"


class NotPrivileged(AgentError):
    code = "AZCM0018"
    default_remedy = "Run the command as root"


class ConfigFileNotFound(AgentError):
    code = "AZCM0019"
    default_remedy = "Correct the path given with --config"


class LocationUnknown(AgentError):
    code = "AZCM0020"
    default_remedy = "Choose one of the locations of the cloud profile; see 'azcmagent cloud list'"


class ParameterInvalid(AgentError):
    code = "AZCM0023"
    default_remedy = "Correct it; see --help"


class NetworkFailed(AgentError):
    code = "AZCM0026"
    default_remedy = "Run 'azcmagent check' to see which endpoint cannot be reached"


class ConfigurationConflict(AgentError):
    code = "AZCM0027"
    default_remedy = "Remove one of the conflicting settings"


class CredentialInvalid(AgentError):
    code = "AZCM0041"
    default_remedy = "Check the account, its secret and the tenant, and that neither has expired"


class MachineNotCreated(AgentError):
    code = "AZCM0042"
    default_remedy = "Check the credential's role and the names given"


class MachineNotDeleted(AgentError):
    code = "AZCM0043"
    default_remedy = (
        "Use a credential that may delete the machine; if it is gone at the hub, "
        "run 'azcmagent disconnect --force-local-only'"
    )


class NameTaken(AgentError):
    code = "AZCM0044"
    default_remedy = "Choose another --resource-name, or delete the old machine at the hub"


class HimdsUnreachable(AgentError):
    code = "AZCM0061"
    default_remedy = "Start the service with 'systemctl start himdsd' and run the command as root"


class ConnectFailed(AgentError):
    code = "AZCM0062"
    default_remedy = "Look at himds.log, then run connect again"


class DisconnectFailed(AgentError):
    code = "AZCM0063"
    default_remedy = "Delete the machine at the hub, then run 'azcmagent disconnect --force-local-only'"


class StatusNotObtained(AgentError):
    code = "AZCM0066"
    default_remedy = "Restart the service himdsd"


class AlreadyConnected(AgentError):
    code = "AZCM0067"
    default_remedy = "Run 'azcmagent disconnect' first"


class SubscriptionNotResolved(AgentError):
    code = "AZCM0068"
    default_remedy = "Give the GUID of the subscription"


class ConfigNotUpdated(AgentError):
    code = "AZCM0069"
    default_remedy = "See that the disk has space and localconfig.json may be written"


class ConfigNotObtained(AgentError):
    code = "AZCM0070"
    default_remedy = "Check localconfig.json, or remove it to return to the defaults"


class ExtensionFailed(AgentError):
    """Something about extensions cannot be done on this machine: no room for a package, a service in the way."""

    code = "AZCM0072"
    default_remedy = "Look into gc_ext.log and the extension's own logs; free some space if that is what is missing"


class ExtensionNotAdded(AgentError):
    """A package, or what says which packages there are, must not be believed, or there is none."""

    code = "AZCM0074"
    default_remedy = "See at the hub that the package is valid: hawser-hub artefacts list"


class CloudNotObtained(AgentError):
    code = "AZCM0075"
    default_remedy = "Add the cloud's profile with 'azcmagent cloud add FILE'"


class CertificateNotObtained(AgentError):
    code = "AZCM0081"
    default_remedy = "Delete the machine at the hub and connect again"


class CommandFailed(AgentError):
    code = "AZCM0101"
    default_remedy = "See 'azcmagent help'"


class ResourceNameNotObtained(AgentError):
    code = "AZCM0102"
    default_remedy = "Give --resource-name"


class KeyNotGenerated(AgentError):
    code = "AZCM0103"
    default_remedy = "See that python3-cryptography is installed and the disk has space"


def _tree(root: type[AgentError]) -> dict[str, type[AgentError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def from_dict(error: Mapping[str, Any]) -> AgentError:
    """The error that another process sent as `as_dict` wrote it; an unknown code keeps its number."""
    code = str(error.get("code", AgentError.code))
    kind = _tree(AgentError).get(code, UnknownError)
    after = error.get("retryAfter")
    seconds = float(after) if isinstance(after, (int, float)) and not isinstance(after, bool) else None
    result = kind(str(error.get("message", "")), str(error.get("remedy", "")), seconds)
    if code[:4] == "AZCM" and code[4:].isdigit():
        result.code = code
    return result

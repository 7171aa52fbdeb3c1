# SPDX-License-Identifier: Apache-2.0
"""The last attempt to upgrade an agent in ARM's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SUCCEEDED, ROLLED_BACK = "succeeded", "rolled back"
_STATUS = {SUCCEEDED: "Success", ROLLED_BACK: "Failed", "failed": "Failed"}


def status_of(data: Mapping[str, Any]) -> str | None:
    """`lastAttemptStatus` of a report of kind `agent`; None while the upgrade is under way."""
    return _STATUS.get(data["state"])


def attempt(data: Mapping[str, Any], wish: Mapping[str, Any], running: str | None) -> dict[str, str]:
    """The members `lastAttempt…` of `agentUpgrade` (identity-and-arm-api.md C.5). Without a status where what is
    reported is an earlier wish for the version that is wished anew: whoever waits for its end must not see that one.
    A machine that is `running` the version already reports nothing anew: that is a success."""
    found = {
        "lastAttemptDesiredVersion": data["desiredVersion"],
        "lastAttemptTimestamp": data["at"],
        "lastAttemptMessage": data["message"],
    }
    renewed = data["generation"] is not None and data["correlationId"] != wish.get("correlationId")
    status = status_of(data)
    if status and renewed and data["desiredVersion"] == wish.get("desiredVersion"):
        status = "Success" if running == wish.get("desiredVersion") else None
    return {**found, "lastAttemptStatus": status} if status else found

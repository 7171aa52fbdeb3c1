# SPDX-License-Identifier: Apache-2.0
"""The machine's own say on what may be installed: allow and block list (agent-surface.md section 15). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def refusal(publisher: str, kind: str, config: Mapping[str, Any]) -> str:
    """Why an extension may not be installed, upgraded or given settings; empty when it may. Removal is always allowed.

    `config`: the effective values, so that monitor mode's lists are in it. Names are compared without case. The entry
    Allow/None is the name of nothing, so a list that holds it alone allows nothing.
    """
    wanted = f"{publisher}/{kind}".lower()
    allowed = {str(entry).lower() for entry in config.get("extensions.allowlist") or ()}
    blocked = {str(entry).lower() for entry in config.get("extensions.blocklist") or ()}
    if wanted in blocked:
        return f"{publisher}/{kind} is in extensions.blocklist of this machine"
    if allowed and wanted not in allowed:
        mode = " (config.mode is monitor)" if config.get("config.mode") == "monitor" else ""
        return f"{publisher}/{kind} is not in extensions.allowlist of this machine{mode}"
    return ""

# SPDX-License-Identifier: Apache-2.0
"""The evidence vector: what tells this machine from a copy of it (docs/protocol.md section 6;
clone-specialization.md section 2). Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from agent_runtime.platform.base import Signal


def vector(tenant_id: str, signals: Iterable[Signal]) -> list[dict[str, str | None]]:
    """The items of the vector: values as HMAC-SHA-256 keyed with the tenant id."""
    key = tenant_id.lower().encode("ascii")
    return [
        {
            "name": signal.name,
            "status": signal.status,
            "digest": hmac.new(key, (signal.value or "").encode(), hashlib.sha256).hexdigest()
            if signal.status == "ok"
            else None,
        }
        for signal in signals
    ]


def digest(items: Iterable[Mapping[str, str | None]]) -> str:
    """SHA-256 over the items without the boot id, sorted by name."""
    kept = sorted((item for item in items if item["name"] != "boot_id"), key=lambda item: str(item["name"]))
    text = "".join(f"{item['name']}={item['status']}:{item['digest'] or ''}\n" for item in kept)
    return hashlib.sha256(text.encode()).hexdigest()

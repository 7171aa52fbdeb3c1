# SPDX-License-Identifier: Apache-2.0
"""Settings files of handlers (extension-handler.md sections 5 and 6). Pure.

Protected settings are an envelope to extd's own certificate and stay one: the handler opens it with the openssl
command, nobody else does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional


def file_name(sequence: int, extension: Optional[str], ending: str = "settings") -> str:
    """`SEQ.settings`, or `NAME.SEQ.settings` for a handler of several extensions (`extension` None: one only)."""
    return f"{sequence}.{ending}" if extension is None else f"{extension}.{sequence}.{ending}"


def content(settings: Mapping[str, Any]) -> bytes:
    """Content of the file; empty where there are no settings at all. `settings`: `publicSettings` (object or None),
    `protectedSettings` and `protectedSettingsCertThumbprint` (text or None)."""
    public, protected = settings.get("publicSettings"), settings.get("protectedSettings")
    if public is None and protected is None:
        return b""
    handler = {
        # Some handlers fail with null where there are only protected ones.
        "publicSettings": {} if public is None else public,
        "protectedSettings": protected,
        "protectedSettingsCertThumbprint": settings.get("protectedSettingsCertThumbprint"),
    }
    return json.dumps({"runtimeSettings": [{"handlerSettings": handler}]}).encode("ascii")


def digest(settings: Mapping[str, Any]) -> str:
    """Tells the settings of one sequence number from others of the same number. An envelope of the same content differs
    each time it is made, and the hub makes one for each number: another one is another registration's."""
    import hashlib  # it loads libcrypto: not before there is an extension

    known = [settings.get("publicSettings"), settings.get("protectedSettings")]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode("ascii")).hexdigest()

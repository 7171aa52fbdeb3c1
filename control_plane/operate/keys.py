# SPDX-License-Identifier: Apache-2.0
"""Token keys: what is there, and rotation (control_plane/token_keys.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from control_plane import keyring, token_keys
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.setup import operator
from control_plane.storage import audit


def _load(data: Path) -> tuple[token_keys.TokenKey, ...]:
    return keyring.load(data).token_keys


def every(data: Path) -> list[dict[str, Any]]:
    """Every token key, the one that signs first.

    Errors: OperatorError.
    """
    keys, at = _load(data), now()
    current = token_keys.signing(keys, at)
    return [
        {
            "kid": item.kid,
            "state": "signs" if item is current else "next" if item.signs_from > at else "published",
            "signsFrom": rfc3339(item.signs_from) if item.signs_from else None,
        }
        for item in token_keys.published(keys, at)
    ]


def rotate(data: Path, after_seconds: int, *, revoke_old: bool) -> dict[str, Any]:
    """A successor that signs in so many seconds. `revoke_old`: it signs at once, and every token there is is void.

    Errors: OperatorError: a successor is waiting already, files cannot be written.
    """
    at = now()
    folder = keyring.folder(data)
    with opened(data) as (database, settings):
        keys = _load(data)
        waiting = [item for item in keys if item.signs_from > at]
        if waiting and not revoke_old:
            raise OperatorError(
                f"A successor is published already and signs from {rfc3339(waiting[0].signs_from)}.",
                "Wait for it. If the keys were stolen: hawser-hub keys rotate token --revoke-old",
            )
        try:
            made = token_keys.add(folder, settings.tenant_id, at if revoke_old else at + after_seconds)
            for item in keys if revoke_old else ():
                token_keys.remove(folder, item)
            token_keys.prune(folder, token_keys.load(folder), at)
        except OSError as error:
            raise OperatorError(f"{folder} cannot be written ({error.strerror}).", "Run as the hub's user.") from error
        with database.write() as session:
            detail = {"kid": made.kid, "signsFrom": rfc3339(made.signs_from), "revokedOld": revoke_old}
            audit.record(session, operator(), "keys/rotate/token", "hub", detail=detail)
    return {"kid": made.kid, "signsFrom": rfc3339(made.signs_from), "revokedOld": revoke_old}

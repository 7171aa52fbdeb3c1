# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether protected settings are those that were sent last, which the hub never says. Pure but for the salt.

A tag of the resource holds a salted digest of them. No key is involved, so that every controller and every principal
can compare; whoever may read the resource can test guesses, which the slow derivation makes dear. Values that can be
guessed have no place there: the option `protected_settings_digest` leaves the tag out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from typing import Any

# The hub (DIGEST_TAG in its extensions/writing.py) drops it when somebody else writes other protected settings.
TAG = "hawser-protected-digest"
# About a tenth of a second for a guess, and for a host of a play.
ITERATIONS = 200_000
_MOST = 10_000_000
_KIND = "pbkdf2-sha256"


def _derived(protected: Any, resource_id: str, salt: bytes, iterations: int) -> str:
    content = json.dumps(protected, sort_keys=True, separators=(",", ":")).encode()
    # Bound to the resource: equal settings of two machines have digests that differ.
    return _text(hashlib.pbkdf2_hmac("sha256", content, salt + resource_id.lower().encode(), iterations))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def digest(protected: Any, resource_id: str, iterations: int = ITERATIONS) -> str:
    """The value of the tag: kind, iterations, salt, digest, separated by dots."""
    salt = os.urandom(16)
    return f"{_KIND}.{iterations}.{salt.hex()}.{_derived(protected, resource_id, salt, iterations)}"


def matches(tag: str | None, protected: Any, resource_id: str) -> bool:
    """Whether a tag is that of these settings. One that cannot be read is not."""
    try:
        kind, iterations, salt, derived = str(tag).split(".")
        # The tag is not ours alone to write: it must not make us count for days.
        if kind != _KIND or not 0 < int(iterations) <= _MOST:
            return False
        return hmac.compare_digest(derived, _derived(protected, resource_id, bytes.fromhex(salt), int(iterations)))
    except (ValueError, TypeError):
        return False

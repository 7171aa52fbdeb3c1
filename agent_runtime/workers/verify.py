# SPDX-License-Identifier: Apache-2.0
"""Worker of gcad and extd: may this desired-state document be acted on? (docs/protocol.md section 7)

himds is a courier and is not believed: signature, machine, kind, generation and expiry are judged here, as root, with keys
from the cloud profile. Input and output are JSON; the vectors in tests/vectors/desired.json hold for both sides.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Mapping, NamedTuple, Optional, Sequence

LIMIT = 1024 * 1024
TYPE = "hawser-desired"
_MEMBERS = {
    "v": int,
    "machine": str,
    "resourceId": str,
    "kind": str,
    "generation": int,
    "iat": int,
    "exp": int,
    "content": dict,
}


class Verdict(NamedTuple):
    """`reason` is None when the document is accepted, else `signature`, `malformed`, `machine`, `kind`, `generation`

    or `expired`. `generation` is what a genuine document says, None for others."""

    accept: bool
    reason: Optional[str]
    generation: Optional[int]


def verify(
    document: str, keys: Sequence[Mapping[str, Any]], vm_id: str, kind: str, floor: int, now: float
) -> Verdict:
    """`keys` are the profile's JWKs, `floor` the highest generation accepted for this vmId and kind, `now` Unix seconds."""
    payload = _genuine(document, keys)
    if payload is None:
        return Verdict(False, "signature", None)
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return Verdict(False, "malformed", None)
    if not _is_whole(found):
        return Verdict(False, "malformed", None)
    generation: int = found["generation"]
    if found["machine"].lower() != vm_id.lower():
        return Verdict(False, "machine", generation)
    if found["kind"] != kind:
        return Verdict(False, "kind", generation)
    if generation < floor:
        return Verdict(False, "generation", generation)
    if found["exp"] <= now:
        return Verdict(False, "expired", generation)
    return Verdict(True, None, generation)


def _is_whole(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    # bool is an int to Python and must not pass as a generation.
    kinds_fit = all(type(found.get(name)) is kind for name, kind in _MEMBERS.items())
    return bool(kinds_fit and found["v"] == 1 and found["generation"] >= 1)


def _genuine(document: str, keys: Sequence[Mapping[str, Any]]) -> Optional[bytes]:
    """The payload when the signature is one of `keys`, else None."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    parts = document.split(".")
    if len(document) > LIMIT or len(parts) != 3 or not document.isascii():
        return None
    try:
        header = json.loads(_decoded(parts[0]))
        payload, signature = _decoded(parts[1]), _decoded(parts[2])
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or header.get("alg") != "EdDSA" or header.get("typ") != TYPE or "crit" in header:
        return None
    for key in keys:
        if key.get("kid") != header.get("kid") or key.get("crv") != "Ed25519":
            continue
        try:
            public = Ed25519PublicKey.from_public_bytes(_decoded(str(key.get("x"))))
            public.verify(signature, f"{parts[0]}.{parts[1]}".encode("ascii"))
        except (InvalidSignature, ValueError):
            continue
        return payload
    return None


def _decoded(text: str) -> bytes:
    """base64url without padding, and nothing else. Errors: ValueError."""
    if not text or not all(letter.isalnum() or letter in "-_" for letter in text):
        raise ValueError
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError from None

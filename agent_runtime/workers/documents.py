# SPDX-License-Identifier: Apache-2.0
"""Whether root's services act on a signed desired-state document (docs/protocol.md section 7). Runs in a worker."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TYPE = "hawser-desired"
SIZE_LIMIT = 4 * 1024 * 1024
_BEGIN = "-----BEGIN CERTIFICATE-----"
_MEMBERS: dict[str, type] = {
    "machine": str,
    "resourceId": str,
    "kind": str,
    "generation": int,
    "iat": int,
    "exp": int,
    "content": dict,
}


class Refused(Exception):
    """`reason`: `signature`, `malformed`, `machine`, `kind`, `generation` or `expired`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def verify(
    document: str, keys: Sequence[Mapping[str, Any]], vm_id: str, kind: str, floor: int, now: float
) -> dict[str, Any]:
    """The payload of a document that may be acted on. Errors: Refused. `floor`: highest generation accepted so far."""
    payload = _signed_by(document, keys)
    if not isinstance(payload, dict) or payload.get("v") != 1 or isinstance(payload.get("v"), bool):
        raise Refused("malformed")
    for name, wanted in _MEMBERS.items():
        value = payload.get(name)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise Refused("malformed")
    if payload["machine"].lower() != vm_id.lower():
        raise Refused("machine")
    if payload["kind"] != kind:
        raise Refused("kind")
    if payload["generation"] < floor:
        raise Refused("generation")
    if payload["exp"] <= now:
        raise Refused("expired")
    if kind == "trust" and not _trustworthy(payload["content"]):
        raise Refused("malformed")
    return payload


def _trustworthy(content: Mapping[str, Any]) -> bool:
    """Whether anchors can be used at all: certificates that parse, keys that verify. Nobody must be left with none."""
    try:
        blocks = content["caPem"].split(_BEGIN)[1:]
        for block in blocks:
            x509.load_pem_x509_certificate((_BEGIN + block).encode("ascii"))
        for key in content["desiredStateKeys"]:
            Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
            if not isinstance(key["kid"], str) or (key["kty"], key["crv"]) != ("OKP", "Ed25519"):
                return False
        return bool(blocks) and bool(content["desiredStateKeys"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _signed_by(document: str, keys: Sequence[Mapping[str, Any]]) -> object:
    if len(document) > SIZE_LIMIT:
        raise Refused("signature")
    try:
        header = jwt.get_unverified_header(document)
        if header.get("alg") != "EdDSA" or header.get("typ") != TYPE:
            raise Refused("signature")
        row = next(key for key in keys if key["kid"] == header.get("kid"))
        raw = base64.urlsafe_b64decode(row["x"] + "=")
        body = jwt.api_jws.decode(document, Ed25519PublicKey.from_public_bytes(raw), algorithms=["EdDSA"])
    except (jwt.PyJWTError, StopIteration, KeyError, ValueError):
        raise Refused("signature") from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("malformed") from None


def verify_for_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"document", "keys", "vmId", "kind", "floor", "now"}` → `{"payload"}` or `{"refused": reason}`."""
    try:
        payload = verify(
            arguments["document"],
            arguments["keys"],
            arguments["vmId"],
            arguments["kind"],
            arguments["floor"],
            arguments["now"],
        )
    except Refused as refused:
        return {"refused": refused.reason}
    return {"payload": payload}

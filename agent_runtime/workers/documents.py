# SPDX-License-Identifier: Apache-2.0
"""Whether root's services act on a signed desired-state document (docs/protocol.md section 7). Runs in a worker."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
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
    if kind == "trust":
        anchors(payload["content"])
    return payload


def anchors(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """`{"caSha256": […], "kids": […]}` of the content of a `trust` document. Errors: Refused `malformed`, when it names
    no certificate or no key, or one that cannot be used: a machine must not be left trusting nobody."""
    try:
        blocks = content["caPem"].split(_BEGIN)[1:]
        found = [x509.load_pem_x509_certificate((_BEGIN + block).encode("ascii")) for block in blocks]
        for key in content["desiredStateKeys"]:
            Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
            if not isinstance(key["kid"], str) or (key["kty"], key["crv"]) != ("OKP", "Ed25519"):
                raise Refused("malformed")
        kids = [key["kid"] for key in content["desiredStateKeys"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Refused("malformed") from None
    if not found or not kids:
        raise Refused("malformed")
    return {"caSha256": [item.fingerprint(hashes.SHA256()).hex() for item in found], "kids": kids}


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
    """`{"document", "keys", "vmId", "kind", "floor", "now"}` → `{"payload"}`, with `anchors` for kind trust; or
    `{"refused": reason}`."""
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
    if payload["kind"] == "trust":
        return {"payload": payload, "anchors": anchors(payload["content"])}
    return {"payload": payload}

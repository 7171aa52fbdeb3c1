# SPDX-License-Identifier: Apache-2.0
"""Claims of access tokens, v1 style (identity-and-arm-api.md B.5), and what a token must satisfy to be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

APP_SECONDS = (3600, 5400)
MACHINE_SECONDS = 86400
CHANNEL_SECONDS = 4 * 3600
TICKET_SECONDS = 600

SECRET, CERTIFICATE = "1", "2"


@dataclass(frozen=True)
class Subject:
    """Whom a token speaks for. `resource_id`: the machine's ARM id, None for a principal. `slot`: its credential."""

    client_id: str
    object_id: str
    resource_id: str | None = None
    slot: int | None = None


def issuer(url: str, tenant_id: str) -> str:
    """`iss` of v1-style tokens."""
    return f"{url}/{tenant_id}/"


def entra_resource_id(resource_id: str) -> str:
    """The machine's id as `xms_mirid` carries it: with lower-case `resourcegroups`."""
    parts = resource_id.split("/")
    return "/".join("resourcegroups" if part.lower() == "resourcegroups" else part for part in parts)


def access_claims(
    url: str, tenant_id: str, subject: Subject, audience: str, proof: str, at: int, seconds: int, token_id: str
) -> dict[str, Any]:
    """Claims of an access token valid `seconds` from `at` (Unix seconds); `audience` literally as requested."""
    claims: dict[str, Any] = {
        "aud": audience,
        "iss": issuer(url, tenant_id),
        "iat": at,
        "nbf": at,
        "exp": at + seconds,
        "appid": subject.client_id,
        "appidacr": proof,
        "idp": issuer(url, tenant_id),
        "idtyp": "app",
        "oid": subject.object_id,
        "sub": subject.object_id,
        "tid": tenant_id,
        "uti": token_id,
        "ver": "1.0",
    }
    if subject.resource_id is not None:
        claims["xms_mirid"] = entra_resource_id(subject.resource_id)
    if subject.slot is not None:
        claims["hawser_slot"] = subject.slot
    return claims

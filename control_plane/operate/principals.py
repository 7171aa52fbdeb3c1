# SPDX-License-Identifier: Apache-2.0
"""Service principals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from control_plane.arm.roles import HUB
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.operate.credentials import certificate_told, read_certificate
from control_plane.operate.database import opened
from control_plane.operate.roles import role_named, scope_named
from control_plane.operate.secrets import check_absent, write_secret
from control_plane.setup import operator
from control_plane.storage import audit
from control_plane.storage import principals as stored
from control_plane.storage.models import PrincipalSecret, Subscription

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


def create(
    data: Path,
    name: str,
    role: str,
    valid_days: int | None,
    secret_file: Path | None,
    scope: str = HUB,
    certificate_file: Path | None = None,
) -> dict[str, Any]:
    """Make a principal. Its secret goes to the file, or into the answer; with a certificate, it gets a secret only if a
    file for one is named.

    Errors: OperatorError: name taken or not one, file exists or cannot be written; nothing is made then.
    """
    role = role_named(role)
    if not _NAME.fullmatch(name):
        raise OperatorError(f"'{name}' cannot be a principal's name.", "Use letters, digits and . _ @ - .")
    if secret_file is not None:
        check_absent(secret_file)
    certificate = read_certificate(certificate_file) if certificate_file else None
    secret = stored.new_secret() if secret_file or certificate is None else None
    expires = now() + valid_days * 86400 if valid_days and secret else None
    with opened(data) as (database, config), database.write() as session:
        if stored.find_by_name_or_id(session, name) is not None:
            raise OperatorError(
                f"A principal named '{name}' exists already.", "Choose another name; revoked ones keep theirs."
            )
        subscription = session.scalars(select(Subscription.id).order_by(Subscription.created)).first()
        where = scope_named(session, scope)
        made = stored.create(session, name, role, where)
        if certificate is not None:
            stored.add_certificate(session, made.id, certificate)
        if secret is not None:
            stored.add_secret(session, made.id, secret, expires)
        detail = {"name": name, "role": role, "scope": where}
        audit.record(session, operator(), "principal/create", made.id, detail=detail)
        if secret is not None and secret_file is not None:
            write_secret(secret_file, secret)
    answer: dict[str, Any] = {
        "name": name,
        "role": role,
        "scope": where,
        "clientId": made.id,
        "objectId": made.object_id,
        "tenantId": config.tenant_id,
        "authority": config.url,
        "subscriptionId": subscription,
        "secretExpires": rfc3339(expires) if expires else None,
    }
    if certificate is not None:
        answer["certificate"] = certificate_told(certificate)
    if secret is not None:
        answer |= {"clientSecretFile": str(secret_file)} if secret_file else {"clientSecret": secret}
    return answer


def every(data: Path) -> list[dict[str, Any]]:
    """Every principal, without secrets."""
    with opened(data) as (database, _config), database.read() as session:
        return [
            {
                "name": item.name,
                "clientId": item.id,
                "objectId": item.object_id,
                "roles": [role for role, _ in stored.assignments(session, item.object_id)],
                "created": rfc3339(item.created),
                "secretExpires": _last_expiry(stored.secrets_of(session, item.id)),
                "secrets": len(stored.secrets_of(session, item.id)),
                "certificates": len(stored.certificates_of(session, item.id)),
                "revoked": rfc3339(item.revoked) if item.revoked else None,
            }
            for item in stored.all_principals(session)
        ]


def _last_expiry(held: Sequence[PrincipalSecret]) -> str | None:
    """When the last secret ends; None: never, or there is none."""
    ends = [item.expires for item in held]
    return rfc3339(max(end for end in ends if end)) if ends and None not in ends else None


def revoke(data: Path, name_or_id: str) -> tuple[bool, str]:
    """End a principal. (False, name) when it was ended before.

    Errors: OperatorError when there is none.
    """
    with opened(data) as (database, _config), database.write() as session:
        found = stored.find_by_name_or_id(session, name_or_id)
        if found is None:
            raise OperatorError(f"There is no principal '{name_or_id}'.", "See 'hawser-hub principal list'.")
        if found.revoked is not None:
            return False, found.name
        found.revoked = now()
        audit.record(session, operator(), "principal/revoke", found.id, detail={"name": found.name})
        return True, found.name

# SPDX-License-Identifier: Apache-2.0
"""Service principals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sqlalchemy import select

from control_plane.arm.roles import HUB
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.operate.roles import role_named, scope_named
from control_plane.operate.secrets import check_absent, write_secret
from control_plane.setup import operator
from control_plane.storage import audit
from control_plane.storage import principals as stored
from control_plane.storage.models import Subscription

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")


def create(
    data: Path, name: str, role: str, valid_days: int | None, secret_file: Path | None, scope: str = HUB
) -> dict[str, Any]:
    """Make a principal; the secret goes to the file, or into the answer.

    Errors: OperatorError: name taken or not one, file exists or cannot be written; nothing is made then.
    """
    role = role_named(role)
    if not _NAME.match(name):
        raise OperatorError(f"'{name}' cannot be a principal's name.", "Use letters, digits and . _ @ - .")
    if secret_file is not None:
        check_absent(secret_file)
    with opened(data) as (database, config):
        secret = stored.new_secret()
        expires = now() + valid_days * 86400 if valid_days else None
        with database.write() as session:
            if stored.find_by_name_or_id(session, name) is not None:
                raise OperatorError(
                    f"A principal named '{name}' exists already.", "Choose another name; revoked ones keep theirs."
                )
            subscription = session.scalars(select(Subscription.id).order_by(Subscription.created)).first()
            where = scope_named(session, scope)
            made = stored.create(session, name, role, where, secret, expires)
            detail = {"name": name, "role": role, "scope": where}
            audit.record(session, operator(), "principal/create", made.id, detail=detail)
            if secret_file is not None:
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
        return {**answer, **({"clientSecretFile": str(secret_file)} if secret_file else {"clientSecret": secret})}


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
                "secretExpires": next(
                    (rfc3339(one.expires) for one in stored.secrets_of(session, item.id) if one.expires), None
                ),
                "revoked": rfc3339(item.revoked) if item.revoked else None,
            }
            for item in stored.all_principals(session)
        ]


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

# SPDX-License-Identifier: Apache-2.0
"""Users, from the operator's command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from control_plane.clock import now, rfc3339
from control_plane.errors import ApiError, OperatorError, for_operator
from control_plane.operate.database import opened
from control_plane.operate.roles import role_named, scope_named
from control_plane.operate.secrets import check_absent, write_secret
from control_plane.people import passwords
from control_plane.people import users as rules
from control_plane.setup import operator
from control_plane.storage import audit, people
from control_plane.storage import principals as stored
from control_plane.storage.models import User


@dataclass(frozen=True)
class NewPassword:
    """A password given (`text`), or one to make and write to `file` (0600)."""

    text: str | None
    file: Path | None

    def decided(self, name: str) -> str:
        """The password for the user `name`.

        Errors: OperatorError when it may not be one, or the file is there.
        """
        if self.file is not None:
            check_absent(self.file)
        password = self.text if self.text is not None else passwords.made()
        told = passwords.refusal(password, name)
        if told is not None:
            raise OperatorError(told, "Give a longer one, or let one be made with --new-password-file.")
        return password


@contextmanager
def _changing(data: Path) -> Iterator[Session]:
    """A transaction whose refusals are told to an operator."""
    try:
        with opened(data) as (database, _config), database.write() as session:
            yield session
    except ApiError as error:
        raise for_operator(error, "user list") from error


def create(
    data: Path, name: str, password: NewPassword, role: str | None, scope: str, email: str | None
) -> dict[str, Any]:
    """Make a user, with a role if one is named.

    Errors: OperatorError; nothing is made then.
    """
    text = password.decided(name)
    role = role_named(role) if role is not None else None
    hashed = passwords.hashed(text)
    with _changing(data) as session:
        user = rules.create(session, name, hashed, now(), email)
        detail: dict[str, Any] = {"name": name}
        if role is not None:
            where = scope_named(session, scope)
            stored.assign(session, user.id, role, where, user.created)
            detail |= {"role": role, "scope": where}
        audit.record(session, operator(), "user/create", user.id, detail=detail)
        if password.file is not None:
            write_secret(password.file, text)
        return _shown(session, user)


def _shown(session: Session, user: User) -> dict[str, Any]:
    held = stored.assignments(session, user.id)
    return {
        "name": user.name,
        "objectId": user.id,
        "email": user.email,
        "roles": [{"role": role, "scope": scope} for role, scope in held],
        "created": rfc3339(user.created),
        "disabled": rfc3339(user.disabled) if user.disabled else None,
        "password": user.password is not None,
        "external": user.subject,
    }


def every(data: Path) -> list[dict[str, Any]]:
    """Every user, without passwords."""
    with opened(data) as (database, _config), database.read() as session:
        return [_shown(session, user) for user in people.every(session)]


def set_disabled(data: Path, name: str, *, disabled: bool) -> bool:
    """Disable or enable. False when he was so before.

    Errors: OperatorError.
    """
    with _changing(data) as session:
        user = rules.found(session, name)
        changed = rules.set_disabled(session, user, now() if disabled else None)
        if changed:
            verb = "disable" if disabled else "enable"
            audit.record(session, operator(), f"user/{verb}", user.id, detail={"name": user.name})
        return changed


def set_password(data: Path, name: str, password: NewPassword) -> None:
    """Another password; the user's sessions end.

    Errors: OperatorError.
    """
    text = password.decided(name)
    hashed = passwords.hashed(text)
    with _changing(data) as session:
        user = rules.found(session, name)
        rules.set_password(session, user, hashed)
        audit.record(session, operator(), "user/passwd", user.id, detail={"name": user.name})
        if password.file is not None:
            write_secret(password.file, text)


def remove(data: Path, name: str) -> None:
    """Take a user away with sessions and roles.

    Errors: OperatorError.
    """
    with _changing(data) as session:
        user = rules.found(session, name)
        audit.record(session, operator(), "user/delete", user.id, detail={"name": user.name})
        people.remove(session, user)

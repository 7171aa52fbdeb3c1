# SPDX-License-Identifier: Apache-2.0
"""Users as the operator's commands and `/hawser/v1/users` change them: the rules, inside the caller's transaction."""

from __future__ import annotations

import re

from sqlalchemy.orm import Session

from control_plane.bodies import is_guid
from control_plane.errors import ApiError, bad_content
from control_plane.people import passwords
from control_plane.storage import people
from control_plane.storage.models import User

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")
_EMAIL = re.compile(r"[^@\s<>\"'()]{1,64}@[^@\s<>\"'()]{1,189}")


def check_name(name: str) -> None:
    """Errors: ApiError 400."""
    if not NAME.fullmatch(name) or is_guid(name):  # a GUID is taken for an object id
        raise bad_content(f"'{name[:128]}' cannot be a user's name: use letters, digits and . _ @ - .", "name")


def check_email(email: str | None) -> None:
    """Errors: ApiError 400."""
    if email is not None and not _EMAIL.fullmatch(email):
        raise bad_content(f"'{email[:254]}' is not an e-mail address.", "email")


def check_password(password: str, name: str) -> None:
    """Errors: ApiError 400 with the rule that is broken."""
    told = passwords.refusal(password, name)
    if told is not None:
        raise bad_content(told, "password")


def create(session: Session, name: str, stored: str | None, at: int, email: str | None = None) -> User:
    """A user without roles. `stored`: the password as passwords.hashed() made it, outside of the transaction.

    Errors: ApiError 400; 409 `Conflict` when the name is taken.
    """
    check_name(name)
    check_email(email)
    if people.find(session, name) is not None:
        raise ApiError(409, "Conflict", f"A user named '{name}' exists already.")
    return people.create(session, name, stored, at, email=email)


def found(session: Session, name_or_id: str) -> User:
    """By name or object id.

    Errors: ApiError 404.
    """
    user = people.find(session, name_or_id)
    if user is None:
        raise ApiError(404, "ResourceNotFound", f"There is no user '{name_or_id[:128]}'.")
    return user


def set_disabled(session: Session, user: User, at: int | None) -> bool:
    """Disable (at: Unix seconds) or enable (None). False when he was so before. Disabling ends his sessions."""
    if (user.disabled is None) == (at is None):
        return False
    user.disabled = at
    if at is not None:
        people.end_sessions(session, user.id)
    return True


def set_password(session: Session, user: User, stored: str) -> None:
    """Another password; every session of the user ends."""
    user.password = stored
    people.end_sessions(session, user.id)

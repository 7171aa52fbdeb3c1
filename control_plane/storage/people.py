# SPDX-License-Identifier: Apache-2.0
"""Users and their sessions: making, finding, changing. Rules about names and passwords are in control_plane/people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from control_plane.storage.models import RoleAssignment, User, UserSession


def create(
    session: Session, name: str, password: str | None, at: int, *, email: str | None = None, subject: str | None = None
) -> User:
    """A user without roles. `password`: as passwords.hashed() made it."""
    user = User(
        id=str(uuid4()),
        name=name,
        name_key=name.lower(),
        email=email,
        password=password,
        subject=subject,
        created=at,
        disabled=None,
    )
    session.add(user)
    session.flush()
    return user


def find(session: Session, name_or_id: str) -> User | None:
    """By name or object id, without case; disabled ones too."""
    key = name_or_id.lower()
    return session.scalars(select(User).where(or_(User.name_key == key, User.id == key))).first()


def by_subject(session: Session, subject: str) -> User | None:
    """By external account."""
    return session.scalars(select(User).where(User.subject == subject)).one_or_none()


def every(session: Session) -> Sequence[User]:
    """In the order of their names."""
    return session.scalars(select(User).order_by(User.name_key)).all()


def remove(session: Session, user: User) -> None:
    """A user with sessions and role assignments."""
    session.execute(delete(RoleAssignment).where(RoleAssignment.object_id == user.id))
    end_sessions(session, user.id)
    session.delete(user)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def add_session(session: Session, token: str, user_id: str, peer: str, at: int) -> None:
    """Somebody signed in; only a hash of the token is kept."""
    session.add(UserSession(digest=_digest(token), user_id=user_id, created=at, seen=at, peer=peer[:45]))


def find_session(session: Session, token: str) -> tuple[UserSession, User] | None:
    """The session of a token and its user, ended by time or not."""
    found = session.execute(
        select(UserSession, User).join(User, UserSession.user_id == User.id).where(UserSession.digest == _digest(token))
    ).one_or_none()
    return (found[0], found[1]) if found else None


def seen(session: Session, token: str, at: int) -> None:
    """The session is in use."""
    session.execute(update(UserSession).where(UserSession.digest == _digest(token)).values(seen=at))


def end_session(session: Session, token: str) -> None:
    """Forget one session."""
    session.execute(delete(UserSession).where(UserSession.digest == _digest(token)))


def end_sessions(session: Session, user_id: str) -> None:
    """Forget every session of a user."""
    session.execute(delete(UserSession).where(UserSession.user_id == user_id))


def forget_sessions(session: Session, created_before: int, seen_before: int) -> None:
    """Forget sessions whose time has passed."""
    session.execute(
        delete(UserSession).where(or_(UserSession.created < created_before, UserSession.seen < seen_before))
    )

# SPDX-License-Identifier: Apache-2.0
"""Sessions of people in a browser.

    token = sign_in(hub, name, password, peer)     -> goes out as set_cookie(token)
    person = of_cookie(hub, token)                 -> SignedIn with the Caller that allows() decides about, or None
    check_csrf(person, form["csrf"])               -> before every write
    sign_out(hub, token)

A session ends after IDLE_SECONDS without use, LIFE_SECONDS after it began, and with its user's password or right to
sign in. The hub keeps a hash of the token alone.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from control_plane.arm.roles import Caller
from control_plane.clock import now
from control_plane.errors import ApiError, forbidden
from control_plane.hub import Hub
from control_plane.people import passwords
from control_plane.storage import audit, people, principals
from control_plane.storage.models import User

COOKIE = "__Host-hawser"  # the prefix: browsers take it over https alone, for this host and every path
IDLE_SECONDS = 2 * 3600
LIFE_SECONDS = 12 * 3600
_SEEN_EVERY = 60
_TOKEN = 43
log = logging.getLogger("hawser.hub")


@dataclass(frozen=True)
class SignedIn:
    """A person in a browser. `csrf`: what every form must carry. `ends`: Unix seconds, if the session is used on."""

    caller: Caller
    email: str | None
    csrf: str
    ends: int


def set_cookie(token: str) -> str:
    """The value of `Set-Cookie` for a session. Lax: a link from a mail leads in, a foreign form does not."""
    return f"{COOKIE}={token}; Path=/; Max-Age={LIFE_SECONDS}; Secure; HttpOnly; SameSite=Lax"


def clear_cookie() -> str:
    """The value of `Set-Cookie` that takes the session away."""
    return f"{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"


def csrf_of(token: str) -> str:
    """The text that forms of a session carry: bound to it, and of no use for finding it."""
    return hmac.new(token.encode("utf-8", "replace"), b"hawser form", hashlib.sha256).hexdigest()


def check_csrf(person: SignedIn, given: str | None) -> None:
    """Errors: ApiError 403 unless the form came from this session's page."""
    if not hmac.compare_digest(person.csrf.encode(), (given or "").encode("utf-8", "replace")):
        raise forbidden("The form does not belong to this session. Load the page again.")


def caller_of(session: Session, user: User) -> Caller:
    """A user as a caller with role assignments."""
    return Caller("user", user.id, user.id, user.name, principals.assignments(session, user.id))


def _wrong() -> ApiError:
    return ApiError(401, "InvalidCredentials", "Name or password is wrong, or the user is disabled.")


def begin(hub: Hub, user: User, peer: str, how: str) -> str:
    """A session for somebody who has proved who he is; `how` (password, oidc) is for the audit. Returns the token.

    Errors: ApiError 401 when the user was disabled or got another password since `user` was read.
    """
    token, at = secrets.token_urlsafe(32), now()
    with hub.database.write() as session:
        fresh = session.get(User, user.id)
        if fresh is None or fresh.disabled is not None or fresh.password != user.password:
            raise _wrong()
        people.forget_sessions(session, at - LIFE_SECONDS, at - IDLE_SECONDS)
        people.add_session(session, token, user.id, peer, at)
        audit.record(
            session, audit.Actor("user", user.name), "session/create", user.id, detail={"by": how, "from": peer}
        )
    return token


def refuse(hub: Hub, name: str, target: str, code: str, peer: str) -> None:
    """Log, count and audit a sign-in that failed."""
    hub.refusals.audit(audit.Actor("user", name), "session/create", target, code, peer)


def sign_in(hub: Hub, name: str, password: str, peer: str) -> str:
    """The token of a new session.

    Errors: ApiError 401 `InvalidCredentials` (the same for an unknown name, a wrong password, a disabled user),
    429 `TooManyRequests`.
    """
    with hub.sign_ins.attempt(name, peer) as attempt:
        with hub.database.read() as session:
            user = people.find(session, name[:128])
        right = passwords.fits(user.password if user else None, password)
        attempt.failed = user is None or user.disabled is not None or not right
    if user is None or attempt.failed:
        # People type passwords into the field for the name: an unknown one is not written down.
        known = user.name if user else "unknown"
        refuse(hub, known, user.id if user else known, "InvalidCredentials", peer)
        raise _wrong()
    token = begin(hub, user, peer, "password")
    if user.password and passwords.is_dated(user.password):
        with hub.database.write() as session:
            session.get_one(User, user.id).password = passwords.hashed(password)
    return token


def of_cookie(hub: Hub, token: str | None) -> SignedIn | None:
    """Who is signed in with the cookie's value, or None."""
    if not token or len(token) != _TOKEN:
        return None
    at = now()
    with hub.database.read() as session:
        found = people.find_session(session, token)
        if found is None:
            return None
        kept, user = found
        ends = min(kept.created + LIFE_SECONDS, kept.seen + IDLE_SECONDS)
        if at >= ends or user.disabled is not None:
            return None
        caller = caller_of(session, user)
    if at - kept.seen >= _SEEN_EVERY:
        try:
            with hub.database.write() as session:
                people.seen(session, token, at)
        except OperationalError as error:  # reading goes on while nothing can be written
            log.error("The use of a session could not be noted: %s", error.orig)
    return SignedIn(caller, user.email, csrf_of(token), min(kept.created + LIFE_SECONDS, at + IDLE_SECONDS))


def sign_out(hub: Hub, token: str | None) -> None:
    """End a session. Without one nothing happens."""
    person = of_cookie(hub, token)
    if token is None or person is None:
        return
    with hub.database.write() as session:
        people.end_session(session, token)
        audit.record(session, audit.Actor("user", person.caller.name), "session/delete", person.caller.object_id)

# SPDX-License-Identifier: Apache-2.0
"""Sign-in with an external OpenID provider: authorization code with PKCE, state and nonce. Off unless configured.

    /signin/oidc            begin(hub, to)                        -> redirect to the provider, with a cookie
    /signin/oidc/callback   finish(hub, query, cookie, peer)      -> a session's token, and where to go

What `finish` must know again travels in a cookie that the hub sealed: any hub process can finish what another began.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.arm import paging
from control_plane.arm.roles import Action
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.hub import Hub
from control_plane.people import admission, provider, sessions
from control_plane.people.admission import Admitted
from control_plane.storage import audit, people, principals
from control_plane.storage.models import RoleAssignment, User

CALLBACK = "/signin/oidc/callback"
COOKIE = "__Host-hawser-oidc"
LIFE_SECONDS = 600
ASSIGNED_BY = "oidc"
_SEAL = "sign-in with an external provider"


@dataclass(frozen=True)
class Begun:
    """Where to send the browser, and the value of its `Set-Cookie`."""

    location: str
    set_cookie: str


@dataclass(frozen=True)
class Finished:
    """`token`: of the new session, for sessions.set_cookie(); `to`: a path of this hub; `clear_cookie`: a further
    `Set-Cookie`."""

    token: str
    to: str
    clear_cookie: str


def enabled(hub: Hub) -> bool:
    """True when the operator configured a provider."""
    return bool(hub.config.get("oidc"))


def _section(hub: Hub) -> Mapping[str, Any]:
    section: Mapping[str, Any] | None = hub.config.get("oidc")
    if not section:
        raise ApiError(404, "NotFound", "There is no sign-in with an external account here.")
    return section


def _cookie(value: str, seconds: int) -> str:
    return f"{COOKIE}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax"


def local_path(to: str | None) -> str:
    """`to` if it is a path of this hub, else `/`: nobody is sent elsewhere by a link."""
    if to and len(to) <= 1024 and to.startswith("/") and to.isprintable() and to[1:2] not in ("/", "\\"):
        return to
    return "/"


def begin(hub: Hub, to: str | None = None) -> Begun:
    """Send somebody to the provider.

    Errors: ApiError 404 (not configured), 502.
    """
    section = _section(hub)
    metadata = provider.of(section).metadata()
    kept = {
        "state": secrets.token_urlsafe(24),
        "nonce": secrets.token_urlsafe(24),
        "verifier": secrets.token_urlsafe(48),
        "to": local_path(to),
        "ends": now() + LIFE_SECONDS,
    }
    location = prepare_grant_uri(
        str(metadata["authorization_endpoint"]),
        section["client_id"],
        "code",
        redirect_uri=hub.settings.url + CALLBACK,
        scope=" ".join(section["scopes"]),
        state=kept["state"],
        nonce=kept["nonce"],
        code_challenge=create_s256_code_challenge(kept["verifier"]),
        code_challenge_method="S256",
    )
    sealed = paging.seal(hub.keys.paging_key, _SEAL, json.dumps(kept))
    return Begun(location, _cookie(sealed, LIFE_SECONDS))


def _kept(hub: Hub, query: Mapping[str, str], cookie: str | None) -> dict[str, Any]:
    """What `begin` kept for this browser.

    Errors: ApiError 400 when cookie and state do not belong together, or it took too long.
    """
    begun_elsewhere = ApiError(400, "InvalidSignIn", "This sign-in was not begun here, or took too long. Begin again.")
    try:
        kept: dict[str, Any] = json.loads(paging.unseal(hub.keys.paging_key, _SEAL, cookie or ""))
    except ApiError as error:
        raise begun_elsewhere from error
    state = query.get("state", "").encode("utf-8", "replace")
    if not hmac.compare_digest(state, kept["state"].encode()) or kept["ends"] <= now():
        raise begun_elsewhere
    return kept


def finish(hub: Hub, query: Mapping[str, str], cookie: str | None, peer: str) -> Finished:
    """Somebody came back from the provider.

    Errors: ApiError 400 `InvalidSignIn` (state), 401 `InvalidIdToken`, `SignInRefused`, 403 `NotAdmitted`, 404, 502.
    """
    section = _section(hub)
    kept = _kept(hub, query, cookie)
    if query.get("iss", section["issuer"]) != section["issuer"]:  # RFC 9207
        raise ApiError(400, "InvalidSignIn", "The answer comes from another identity provider.")
    if "error" in query or not query.get("code"):
        word = "".join(letter for letter in query.get("error", "no code")[:60] if letter.isprintable())
        raise ApiError(401, "SignInRefused", f"The identity provider refused: {word}.")
    source = provider.of(section)
    answer = source.exchange(query["code"], kept["verifier"], hub.settings.url + CALLBACK)
    claims = source.believe(answer, kept["nonce"])
    try:
        user = _user(hub, admission.decide(section, claims))
    except ApiError as error:
        sessions.refuse(hub, "unknown", f"{claims['iss']}|{claims['sub']}", error.code, peer)
        raise
    return Finished(sessions.begin(hub, user, peer, "oidc"), kept["to"], _cookie("", 0))


def _user(hub: Hub, admitted: Admitted) -> User:
    """The user of an external account, made at the first sign-in; his roles from claims are what they are today. What
    changes is audited as his own doing: it is he who signs in.

    Errors: ApiError 403 `NotAdmitted`: disabled, or the name is another's.
    """
    with hub.database.write() as session:
        user, changed = people.by_subject(session, admitted.subject), []
        if user is None:
            user, changed = people.find(session, admitted.name), ["external"]
            if user is None:
                user = people.create(session, admitted.name, None, now(), subject=admitted.subject)
            elif user.password is None and user.subject is None:
                user.subject = admitted.subject  # made by an operator for this account, without a password
            else:
                raise ApiError(403, "NotAdmitted", f"The name '{admitted.name}' belongs to another user here.")
        if user.disabled is not None:
            raise ApiError(403, "NotAdmitted", "This user is disabled.")
        if admitted.email and admitted.email != user.email:
            user.email = admitted.email
            changed.append("email")
        if changed:
            _record(session, user, Action.USER_WRITE, f"/users/{user.id}", {"name": user.name, "changed": changed})
        _assign(session, user, admitted.roles)
        return user


def _assign(session: Session, user: User, roles: tuple[tuple[str, str], ...]) -> None:
    """Give and take what differs: an assignment that is still due stays the one it was."""
    wanted = {(role, scope.lower()) for role, scope in roles}
    held = select(RoleAssignment).where(RoleAssignment.object_id == user.id, RoleAssignment.created_by == ASSIGNED_BY)
    for item in session.scalars(held).all():
        if (item.role, item.scope.lower()) not in wanted:
            _record_role(session, user, Action.ROLE_ASSIGNMENT_DELETE, item)
            session.delete(item)
    for role, scope in roles:
        made, fresh = principals.assign(session, user.id, role, scope, now(), by=ASSIGNED_BY)
        if fresh:
            _record_role(session, user, Action.ROLE_ASSIGNMENT_WRITE, made)


def _record_role(session: Session, user: User, action: Action, item: RoleAssignment) -> None:
    _record(session, user, action, item.scope, {"role": item.role, "objectId": user.id, "name": item.id})


def _record(session: Session, user: User, action: Action, target: str, detail: dict[str, Any]) -> None:
    audit.record(session, audit.Actor("user", user.name), action.value, target, detail={**detail, "by": ASSIGNED_BY})

# SPDX-License-Identifier: Apache-2.0
"""/signin and /signout. Passwords, sessions, throttling and the external provider are those of control_plane/people."""

from __future__ import annotations

import hmac
import secrets

from starlette.responses import Response

from control_plane.bodies import form
from control_plane.errors import ApiError
from control_plane.people import oidc, sessions
from control_plane.web import render
from control_plane.web.visit import Visit, check_origin, cookies

FORM_COOKIE = "__Host-hawser-form"
"""Holds what the sign-in's form must carry: there is no session yet that it could be bound to."""
_FORM_LENGTH = 43
_STATUSES = (400, 401, 403, 429)


def _wanted(given: str | None) -> str:
    """Where to go after signing in: a path of this hub."""
    path = oidc.local_path(given)
    return "/fleet" if path == "/" else path


def _form_token(visit: Visit) -> str:
    known = cookies(visit.http.headers.get("cookie", "")).get(FORM_COOKIE, "")
    return known if len(known) == _FORM_LENGTH else secrets.token_urlsafe(32)


def _asked(visit: Visit, to: str, status: int = 200, problem: str = "", name: str = "") -> Response:
    token = _form_token(visit)
    response = render.page(
        visit,
        "signin.html.j2",
        status,
        to=to,
        form_token=token,
        problem=problem,
        name=name,
        external=oidc.enabled(visit.hub),
        tenant_id=visit.hub.settings.tenant_id,
    )
    response.headers.append("Set-Cookie", f"{FORM_COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Strict")
    return response


def ask(visit: Visit) -> Response:
    """GET /signin?to=PATH."""
    to = _wanted(visit.http.query.get("to"))
    return render.sent_to(to) if visit.person is not None else _asked(visit, to)


def sign_in(visit: Visit) -> Response:
    """POST /signin. Every sign-in begins a session of its own and ends the one that the browser had."""
    fields = form(visit.http.body)
    to, name = _wanted(fields.get("to")), fields.get("name", "").strip()
    kept = cookies(visit.http.headers.get("cookie", "")).get(FORM_COOKIE, "")
    if not kept or not hmac.compare_digest(kept.encode(), fields.get("form", "").encode()):
        return _asked(visit, to, 403, "The form was too old, or cookies are off. Try again.", name)
    try:
        check_origin(visit)
        token = sessions.sign_in(visit.hub, name, fields.get("password", ""), visit.http.peer)
    except ApiError as error:
        if error.status not in _STATUSES:
            raise
        response = _asked(visit, to, error.status, error.message, name)
        response.headers.update(error.headers)
        return response
    return _signed_in(visit, token, to)


def _signed_in(visit: Visit, token: str, to: str) -> Response:
    sessions.sign_out(visit.hub, visit.token)
    response = render.sent_to(to)
    response.headers.append("Set-Cookie", sessions.set_cookie(token))
    response.headers.append("Set-Cookie", f"{FORM_COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict")
    return response


def to_provider(visit: Visit) -> Response:
    """GET /signin/oidc: on to the external provider.

    Errors: ApiError 404, 502.
    """
    begun = oidc.begin(visit.hub, _wanted(visit.http.query.get("to")))
    response = Response(status_code=303, headers={**render.HEADERS, "Location": begun.location})
    response.headers.append("Set-Cookie", begun.set_cookie)
    return response


def from_provider(visit: Visit) -> Response:
    """GET /signin/oidc/callback: back from there."""
    kept = cookies(visit.http.headers.get("cookie", "")).get(oidc.COOKIE)
    try:
        done = oidc.finish(visit.hub, visit.http.query, kept, visit.http.peer)
    except ApiError as error:
        if error.status not in _STATUSES:
            raise
        return _asked(visit, "/fleet", error.status, error.message)
    response = _signed_in(visit, done.token, _wanted(done.to))
    response.headers.append("Set-Cookie", done.clear_cookie)
    return response


def sign_out(visit: Visit) -> Response:
    """POST /signout.

    Errors: ApiError 403 when the form came from elsewhere.
    """
    visit.form()
    sessions.sign_out(visit.hub, visit.token)
    response = render.sent_to("/signin")
    response.headers.append("Set-Cookie", sessions.clear_cookie())
    return response

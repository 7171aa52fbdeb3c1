# SPDX-License-Identifier: Apache-2.0
"""What people see in a browser: which path shows what, and errors in the same dress (docs/page.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from control_plane import threads
from control_plane.api import stream
from control_plane.arm.roles import Caller
from control_plane.bodies import CHANNEL_BODY
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.http import Call, error_of, read_call
from control_plane.hub import Hub
from control_plane.people import sessions
from control_plane.web import assets, fleet_page, history_page, logs_page, machine_page, render, signing, twins_page
from control_plane.web.visit import SignInNeeded, Visit, cookies

ROOTS = frozenset({"", "fleet", "signin", "signout", "static"})
_STREAM = "/fleet/stream"
_SIGN_IN = "/signin"

Shown = Callable[[Visit], Response]


def _home(_visit: Visit) -> Response:
    return render.sent_to("/fleet")


PAGES: dict[str, dict[str, Shown]] = {
    "/": {"GET": _home},
    _SIGN_IN: {"GET": signing.ask, "POST": signing.sign_in},
    "/signin/oidc": {"GET": signing.to_provider},
    "/signin/oidc/callback": {"GET": signing.from_provider},
    "/signout": {"POST": signing.sign_out},
    "/fleet": {"GET": fleet_page.show},
    "/fleet/machine": {"GET": machine_page.show},
    "/fleet/machine/tags": {"POST": machine_page.save_tags},
    "/fleet/machine/delete": {"GET": machine_page.ask_delete, "POST": machine_page.delete},
    "/fleet/history": {"GET": history_page.show},
    "/fleet/events": {"GET": logs_page.events},
    "/fleet/twins": {"GET": twins_page.show},
    "/fleet/twins/decide": {"POST": twins_page.decide},
    "/fleet/audit": {"GET": logs_page.audit},
}


def _visit(hub: Hub, http: Call, *, known: bool = True) -> Visit:
    """`known` False: without asking who it is, for what must be shown while the database cannot be used."""
    token = cookies(http.headers.get("cookie", "")).get(sessions.COOKIE)
    return Visit(hub, http, now(), token, sessions.of_cookie(hub, token) if known else None)


def _follow(visit: Visit) -> Response:
    """GET /fleet/stream: events for the page's script; ends with the session.

    Errors: ApiError 400, 403, 429, SignInNeeded.
    """
    hub, token = visit.hub, visit.token

    def authorise() -> Caller:
        person = sessions.of_cookie(hub, token)
        if person is None:
            raise ApiError(401, "SignInNeeded", "The session has ended.")
        return person.caller

    return stream.respond(hub, visit.caller, authorise, visit.http.query, visit.http.headers)


def _shown(visit: Visit) -> Response:
    path = visit.http.path.rstrip("/") or "/"
    method = "GET" if visit.http.method == "HEAD" else visit.http.method
    if path == _STREAM and method == "GET":
        return _follow(visit)
    methods = PAGES.get(path)
    if methods is None:
        visit.caller  # noqa: B018 - who has not signed in is not told what there is
        raise ApiError(404, "NotFound", "There is no such page.")
    if method not in methods:
        told = ", ".join(sorted(methods))
        raise ApiError(405, "MethodNotAllowed", f"This page takes {told}.", headers={"Allow": told})
    return methods[method](visit)


def _to_sign_in(http: Call) -> Response:
    """A form or a script cannot go on after a sign-in; everything else does."""
    if http.path == _STREAM or http.query.get("part"):
        return Response("The session has ended.", 401, {**render.HEADERS, "Content-Type": "text/plain"})
    query = "&".join(f"{quote(name)}={quote(value, safe='/')}" for name, value in http.pairs)
    here = f"{http.path}?{query}" if query else http.path
    return render.sent_to(f"/signin?to={quote(here if http.method in ('GET', 'HEAD') else '/fleet')}")


def _failed(hub: Hub, http: Call, error: ApiError) -> Response:
    try:
        visit = _visit(hub, http, known=error.status < 500)
    except Exception:  # noqa: BLE001 - what went wrong first is told
        visit = _visit(hub, http, known=False)
    response = render.page(visit, "error.html.j2", error.status, error=error)
    response.headers.update(error.headers)
    return response


def _carry_out(hub: Hub, http: Call) -> Response:
    try:
        if http.path.startswith("/static/"):
            return assets.serve(http.path, http.headers.get("accept-encoding", ""))
        visit = _visit(hub, http)
        if visit.person is not None:
            hub.limits.request(visit.person.caller.object_id)
        return _shown(visit)
    except SignInNeeded:
        return _to_sign_in(http)
    except Exception as error:  # noqa: BLE001 - the edge: everything becomes a page
        return _failed(hub, http, error_of(error))


async def endpoint(hub: Hub, request: Request) -> Response:
    """Every path whose first part is in ROOTS."""
    settings = hub.settings
    try:
        http = await read_call(request, CHANNEL_BODY, settings.url, settings.known_hosts)
    except ApiError as error:
        return Response(error.message, error.status, {**render.HEADERS, "Content-Type": "text/plain"})
    if http.method == "POST" and http.path.rstrip("/") == _SIGN_IN:
        try:
            return await hub.limits.sign_in(partial(_carry_out, hub, http))
        except ApiError as error:
            return await threads.run(_failed, hub, http, error, limiter=hub.limits.pages)
    return await threads.run(_carry_out, hub, http, limiter=hub.limits.pages)

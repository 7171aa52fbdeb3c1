# SPDX-License-Identifier: Apache-2.0
"""Templates to answers: everything is escaped, nothing but the hub's own files may run or be loaded."""

from __future__ import annotations

import gzip
import shlex
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import RedirectResponse, Response

from control_plane.arm.roles import Action, holders
from control_plane.arm.scopes import readable
from control_plane.clock import rfc3339
from control_plane.web import assets, words
from control_plane.web.visit import Visit, machine_path, masked

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_WORTH_PACKING = 1000


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(asset=assets.path_of, machine_path=machine_path, statuses=words.STATUSES, holders=holders)
    made.filters.update(
        label=words.label,
        reported=words.value,
        fact=words.fact,
        exact=words.exact,
        event_words=words.event,
        event_shape=words.shape,
        quoted=shlex.quote,
    )
    return made


def page(visit: Visit, template: str, status: int = 200, **values: Any) -> Response:
    """An HTML page, packed when the browser takes that."""
    person = visit.person
    text = (
        _environment()
        .get_template(template)
        .render(
            person=person,
            csrf=masked(person.csrf) if person else "",
            sees_twins=bool(person and readable(person.caller, Action.TWIN_READ)),
            sees_audit=bool(person and readable(person.caller, Action.AUDIT_READ)),
            path=visit.http.path,
            host=visit.hub.settings.host,
            url=visit.hub.settings.url,
            at=visit.at,
            at_text=rfc3339(visit.at),
            when=partial(words.when, at=visit.at),
            **values,
        )
    )
    data = text.encode()
    headers = {**HEADERS, "Content-Type": "text/html; charset=utf-8", "Vary": "Accept-Encoding, Cookie"}
    if len(data) > _WORTH_PACKING and assets.takes_gzip(visit.http.headers.get("accept-encoding", "")):
        return Response(gzip.compress(data, 5), status, {**headers, "Content-Encoding": "gzip"})
    return Response(data, status, headers)


def sent_to(path: str) -> Response:
    """Go on at another path of this hub, with GET."""
    return RedirectResponse(path, 303, HEADERS)

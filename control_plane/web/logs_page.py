# SPDX-License-Identifier: Apache-2.0
"""/fleet/events and /fleet/audit: what happened, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.responses import Response

from control_plane.storage import history
from control_plane.web import render
from control_plane.web.visit import Visit

ROWS = 50


def _chosen(visit: Visit, names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, value) for name in names if (value := visit.http.query.get(name.lower(), "").strip())]


def listed(
    visit: Visit, source: str, names: Sequence[str], template: str, status: int = 200, *, path: str, **more: Any
) -> Response:
    """A page at `path` of a list of the API (`source`) whose filters are the address's."""
    chosen, after = _chosen(visit, names), visit.http.query.get("after", "")
    found = visit.get(source, [*chosen, ("$top", str(ROWS)), *([("$skiptoken", after)] if after else [])])
    token = parse_qs(urlsplit(found["nextLink"] or "").query).get("$skiptoken", [""])[0]
    return render.page(
        visit,
        template,
        status,
        items=found["value"],
        chosen=dict(chosen),
        following=f"{path}?{urlencode([*chosen, ('after', token)])}" if token else "",
        first=f"{path}?{urlencode(chosen)}" if after else "",
        **more,
    )


def events(visit: Visit) -> Response:
    """GET /fleet/events.

    Errors: ApiError 400, 403.
    """
    return listed(visit, "/events", ("kind", "machine"), "events.html.j2", path="/fleet/events", kinds=history.KINDS)


def audit(visit: Visit) -> Response:
    """GET /fleet/audit.

    Errors: ApiError 400, 403.
    """
    return listed(visit, "/audit", ("actor", "action", "target", "outcome"), "audit.html.j2", path="/fleet/audit")

# SPDX-License-Identifier: Apache-2.0
"""/fleet/history: how many machines had which status, as a chart and as a table."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.clock import rfc3339
from control_plane.errors import ApiError
from control_plane.web import chart, render
from control_plane.web.visit import Visit

# Seconds shown, seconds of a row of the table, words.
SPANS = {
    "24h": (86400, 3600, "the last 24 hours"),
    "7d": (7 * 86400, 86400, "the last 7 days"),
    "90d": (90 * 86400, 86400, "the last 90 days"),
}


def show(visit: Visit) -> Response:
    """GET /fleet/history?span=24h|7d|90d.

    Errors: ApiError 400, 403.
    """
    name = visit.http.query.get("span") or "24h"
    if name not in SPANS:
        raise ApiError(400, "InvalidParameter", f"'span' must be one of {', '.join(SPANS)}.", target="span")
    seconds, row, text = SPANS[name]
    begin, end = visit.at - seconds, visit.at
    asked = [("from", rfc3339(begin)), ("to", rfc3339(end + 1))]
    found = visit.get("/history", asked)["value"]
    table = visit.get("/history", [*asked, ("resolution", str(row))])["value"]
    return render.page(
        visit,
        "history.html.j2",
        chart=chart.draw(found, begin, end),
        view=(chart.WIDTH, chart.HEIGHT, chart.LEFT, chart.RIGHT, chart.TOP, chart.BOTTOM),
        names=chart.NAMES,
        points=len(found),
        latest=found[-1] if found else None,
        table=table[::-1],
        spans=SPANS,
        span=name,
        span_text=text,
    )

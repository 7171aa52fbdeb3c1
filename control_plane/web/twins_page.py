# SPDX-License-Identifier: Apache-2.0
"""/fleet/twins: who holds a copied identity, with the verdict, and what an operator decides."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.arm.roles import Action
from control_plane.errors import ApiError
from control_plane.fleet.twins import DECISIONS
from control_plane.storage.twins import SETTLED, STATES
from control_plane.web import render
from control_plane.web.logs_page import listed
from control_plane.web.visit import Visit


def show(visit: Visit) -> Response:
    """GET /fleet/twins.

    Errors: ApiError 400, 403.
    """
    return _shown(visit)


def _shown(visit: Visit, status: int = 200, problem: str = "") -> Response:
    return listed(
        visit,
        "/twins",
        ("state",),
        "twins.html.j2",
        status,
        path="/fleet/twins",
        states=STATES,
        settled=SETTLED,
        may=lambda item: visit.may(Action.TWIN_WRITE, item["resourceId"]),
        problem=problem,
        decided=visit.http.query.get("decided", "") if not problem else "",
    )


def decide(visit: Visit) -> Response:
    """POST /fleet/twins/decide: `twin` and `decision` of a form.

    Errors: ApiError 400, 403, 404.
    """
    fields = visit.form()
    number, decision = fields.get("twin", ""), fields.get("decision", "")
    if not number.isdigit() or decision not in DECISIONS:
        raise ApiError(400, "InvalidRequestContent", "The form names no twin, or no decision.")
    try:
        visit.post(f"/twins/{number}/decide", {"decision": decision})
    except ApiError as error:
        if error.status != 409:
            raise
        return _shown(visit, 409, error.message)
    return render.sent_to(f"/fleet/twins?decided={number}")

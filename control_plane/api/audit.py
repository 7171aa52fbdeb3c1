# SPDX-License-Identifier: Apache-2.0
"""Reading the audit (docs/protocol.md section 4b)."""

from __future__ import annotations

from control_plane.arm import paging, scopes
from control_plane.arm.roles import HUB, Action
from control_plane.call import HubCall
from control_plane.fleet.filters import bad_parameter, time_parameter
from control_plane.http import Reply
from control_plane.people import assignments
from control_plane.storage import audit

PARAMETERS = ("actor", "action", "target", "outcome", "scope", "from", "to", "$top", "$skiptoken")
OUTCOMES = ("Succeeded", "Refused")


def wanted(query: dict[str, str]) -> audit.Wanted:
    """The filter of a query.

    Errors: ApiError 400 `InvalidParameter`, `InvalidScope` of people/assignments.py.
    """
    outcome, scope = query.get("outcome") or None, query.get("scope") or None
    if outcome is not None and outcome not in OUTCOMES:
        raise bad_parameter("outcome", f"must be one of {', '.join(OUTCOMES)}")
    return audit.Wanted(
        actor=query.get("actor") or None,
        action=query.get("action") or None,
        target=query.get("target") or None,
        outcome=outcome,
        scope=assignments.scope_of(scope) if scope else None,
        begins=time_parameter("from", query.get("from")),
        ends=time_parameter("to", query.get("to")),
    )


def list_entries(call: HubCall) -> Reply:
    """GET /hawser/v1/audit: the newest first, in pages. Who may read the audit of a part sees what is about that part.

    Errors: ApiError 400, 403.
    """
    seen = scopes.require(call.caller, Action.AUDIT_READ, HUB)
    size, key = paging.page_size(call.query.get("$top")), call.hub.keys.paging_key
    filtered = wanted(dict(call.query))
    name = f"{call.http.path}?{filtered}"
    token = call.query.get("$skiptoken")
    before = paging.read_token(key, name, token) if token else None
    with call.hub.database.read() as session:
        found = audit.page(session, filtered, scopes=seen, before=before, size=size + 1)
        value = audit.shown(session, found[:size])
    link = None
    if len(found) > size:
        skip = paging.token(key, name, found[size - 1].id)
        link = paging.next_link(call.http.origin, call.http.path, call.query, skip)
    return Reply(200, {"value": value, "nextLink": link})

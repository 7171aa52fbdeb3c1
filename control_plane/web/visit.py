# SPDX-License-Identifier: Apache-2.0
"""One request of a browser, and how pages ask the hub: by the same handlers, and with the same rights, as the API."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

from control_plane.api import router
from control_plane.arm import router as arm
from control_plane.arm.roles import Action, Caller, allows
from control_plane.bodies import form
from control_plane.call import HubCall
from control_plane.errors import forbidden
from control_plane.http import Call, Reply
from control_plane.hub import Hub
from control_plane.people import sessions
from control_plane.people.sessions import SignedIn

Pairs = Iterable[tuple[str, str]]


class SignInNeeded(Exception):  # noqa: N818 - no error: the browser is sent to the sign-in
    """Nobody is signed in, or no longer."""


@dataclass(frozen=True)
class Visit:
    """`at`: Unix seconds; `token`: what the cookie said; `person`: whose it is, if anybody's."""

    hub: Hub
    http: Call
    at: int
    token: str | None
    person: SignedIn | None

    @property
    def caller(self) -> Caller:
        """Who is signed in.

        Errors: SignInNeeded.
        """
        if self.person is None:
            raise SignInNeeded
        return self.person.caller

    def get(self, path: str, pairs: Pairs = ()) -> Mapping[str, Any]:
        """What GET of a path below `/hawser/v1` answers to this person.

        Errors: ApiError as there, SignInNeeded.
        """
        given = tuple((name.lower(), value) for name, value in pairs)
        operation, names = router.find("GET", router.ROOT + path)
        router.check_query(operation, given)
        http = replace(
            self.http, method="GET", path=router.ROOT + path, query=dict(given), pairs=given, body=b"", headers={}
        )
        reply = operation.handler(HubCall(self.hub, http, self.caller, names, self.at))
        assert isinstance(reply, Reply)  # noqa: S101 - streams are opened elsewhere
        return reply.body or {}

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """What POST of a path below `/hawser/v1` answers to this person; rights and audit are those of the API.

        Errors: ApiError as there, SignInNeeded.
        """
        operation, names = router.find("POST", router.ROOT + path)
        data = json.dumps(body).encode()
        http = replace(self.http, method="POST", path=router.ROOT + path, query={}, pairs=(), body=data, headers={})
        reply = router.carry_out(operation, HubCall(self.hub, http, self.caller, names, self.at))
        assert isinstance(reply, Reply)  # noqa: S101 - streams are opened elsewhere
        return reply.body or {}

    def change(self, method: str, resource_id: str, body: Mapping[str, Any] | None = None) -> None:
        """Change a resource as ARM does: rights, locks and audit are those of ARM.

        Errors: ApiError as there, SignInNeeded.
        """
        data = json.dumps(body).encode() if body is not None else b""
        http = replace(self.http, method=method, path=resource_id, query={}, pairs=(), body=data, headers={})
        arm.carry_out_for(self.hub, http, self.caller, self.at)

    def may(self, action: Action, resource_id: str) -> bool:
        """The decision of roles.py."""
        return allows(self.caller, action, resource_id)

    def form(self) -> Mapping[str, str]:
        """The fields of a form of this session.

        Errors: ApiError 400, 403 when it came from elsewhere, SignInNeeded.
        """
        if self.person is None:
            raise SignInNeeded
        check_origin(self)
        fields = form(self.http.body)
        sessions.check_csrf(self.person, unmasked(fields.get("csrf", "")))
        return fields


def cookies(header: str) -> Mapping[str, str]:
    """Names and values of a `Cookie` header; nothing of one that cannot be read."""
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(header)
    except CookieError:
        return {}
    return {name: item.value for name, item in jar.items()}


def check_origin(visit: Visit) -> None:
    """Errors: ApiError 403 when a browser says that the form stands on another site."""
    origin = visit.http.headers.get("origin")
    site = visit.http.headers.get("sec-fetch-site", "same-origin")
    known = {f"https://{host}" for host in visit.hub.settings.known_hosts} | {visit.hub.settings.url}
    if (origin is not None and origin not in known) or site not in ("same-origin", "none"):
        raise forbidden("The form came from another site.")


def masked(text: str) -> str:
    """A secret that is repeated on every page, different each time: pages are packed, and their lengths must say
    nothing about it."""
    data = text.encode()
    pad = secrets.token_bytes(len(data))
    mixed = bytes(left ^ right for left, right in zip(data, pad, strict=True))
    return base64.urlsafe_b64encode(pad + mixed).decode()


def unmasked(text: str) -> str:
    """What `masked` was given; something else for what it did not make."""
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii"))
    except ValueError:
        return ""
    half = len(data) // 2
    return bytes(left ^ right for left, right in zip(data[:half], data[half:], strict=False)).decode("utf-8", "replace")


def machine_path(resource_id: str) -> str:
    """The page of a machine."""
    return f"/fleet/machine?id={quote(resource_id, safe='/')}"

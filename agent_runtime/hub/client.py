# SPDX-License-Identifier: Apache-2.0
"""What the agent says to the hub: ARM for the machine, the authority, the channel (docs/protocol.md sections 3 to 9).

HubRefusal is an answer with an error; `as_agent_error` says which AZCM code it is for which operation.
"""

from __future__ import annotations

import calendar
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from agent_runtime import errors
from agent_runtime.hub.proxy import proxy_for
from agent_runtime.hub.transport import Answer, Connection, Transport, decoded
from agent_runtime.service import http, worker
from agent_runtime.service.loop import Loop
from agent_runtime.version import VERSION

API_VERSION = "2026-07-15"
CHANNEL_SCOPE = "api://hawser-channel/.default"
PROTOCOL = 1
SKEW_WARNING = 120.0
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(r"\w{3}, (\d{2}) (\w{3}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT")


class HubRefusal(Exception):
    """The hub answered with an error: status, its code and sentence, the seconds of Retry-After if it gave any, and the
    members of the answer beside the error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message.rstrip(".")
        self.retry_after = retry_after
        self.body = body or {}

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (408, 429) or self.status >= 500


def refusal_of(answer: Answer) -> HubRefusal:
    """The error of an answer, in the form of ARM or of the authority. Pure."""
    body = decoded(answer)
    error = body.get("error")
    after = answer.headers.get("retry-after", "")
    seconds = float(after) if after.isascii() and after.isdigit() else None
    if isinstance(error, dict):
        return HubRefusal(answer.status, str(error.get("code")), str(error.get("message")), seconds, body)
    if isinstance(error, str):
        text = str(body.get("error_description") or error).splitlines()[0]
        # `superseded` stands beside the error, because the authority speaks OAuth.
        return HubRefusal(answer.status, str(body.get("suberror") or error), text, seconds, body)
    return HubRefusal(answer.status, f"Status{answer.status}", f"the hub answered with status {answer.status}", seconds)


def as_agent_error(refusal: HubRefusal, otherwise: type[errors.AgentError]) -> errors.AgentError:
    """The documented error for an answer of the hub (docs/protocol.md section 9); `otherwise` is the operation's
    own. Pure."""
    if refusal.code == "LocationNotAvailableForResourceType":
        return errors.LocationUnknown(refusal.message)
    if refusal.status == 409 and refusal.code != "ScopeLocked":  # a lock is not about the name
        return errors.NameTaken(refusal.message)
    if refusal.code in (
        "TicketSpent",
        "InvalidAuthenticationToken",
        "ExpiredAuthenticationToken",
        "AuthenticationFailed",
    ):
        return errors.TokenInvalid(refusal.message)
    if refusal.passing:
        text = f"the hub is not available now ({refusal.message})"
        return errors.NetworkFailed(text, "Run the command again later", refusal.retry_after)
    if refusal.code == "InvalidResourceName":
        return errors.ParameterInvalid(refusal.message)
    return otherwise(f"{refusal.message} ({refusal.code})")


def unix_of(date: str) -> int | None:
    """Unix seconds of an HTTP date in its preferred form; None for anything else. Pure."""
    found = _DATE.fullmatch(date)
    if not found or found.group(2) not in _MONTHS:
        return None
    day, month, year, hour, minute, second = found.groups()
    return calendar.timegm(
        (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), 0, 0, 0)
    )


class Hub:
    """The hub of one cloud profile. `config` gives the effective properties at each call, `nonce` that of the lease:
    it says which holder of the identity asks (docs/protocol.md section 6)."""

    def __init__(
        self,
        loop: Loop,
        profile: Mapping[str, Any],
        config: Callable[[], Mapping[str, Any]],
        nonce: Callable[[], str],
    ) -> None:
        self.profile = profile
        self.offset = 0.0
        self.seen_clock = False
        self._config = config
        self._nonce = nonce
        self._loop = loop
        self._transport = Transport(loop, str(profile["ca_pem"]))
        self._channel_token: str | None = None
        self._channel_token_ends = 0.0
        self._address = 0

    def now(self) -> float:
        """The hub's time in Unix seconds."""
        return time.time() + self.offset

    def go_by(self, profile: Mapping[str, Any]) -> None:
        """Go on with other anchors or addresses of the same cloud. Errors: AZCM0075; nothing is changed then."""
        self._transport.trust(str(profile["ca_pem"]))
        self.profile = profile

    def close(self) -> None:
        self._transport.close()

    # ARM

    async def put_machine(self, resource_id: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create the machine's resource, and its group where it is missing."""
        return await self._arm("PUT", resource_id, token, body, {"Hawser-Create-Group": "true"})

    async def delete_machine(self, resource_id: str, token: str) -> bool:
        """Delete it; False when it was gone already."""
        try:
            await self._arm("DELETE", resource_id, token)
        except HubRefusal as refusal:
            if refusal.status == 404:
                return False
            raise
        return True

    async def patch_tags(self, resource_id: str, token: str, tags: dict[str, str]) -> dict[str, Any]:
        """Replace all tags."""
        return await self._arm("PATCH", resource_id, token, {"tags": tags})

    async def _arm(
        self,
        method: str,
        resource_id: str,
        token: str,
        body: dict[str, Any] | None = None,
        more: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        url = f"{self.profile['arm']}{quote(resource_id)}?api-version={API_VERSION}"
        answer = await self._exchange("ARM", method, url, token, body, more)
        return decoded(answer)

    # Channel

    def _channel(self) -> str:
        addresses = self.profile["channel"]
        return str(addresses[self._address % len(addresses)])

    def try_next_address(self) -> None:
        """After a failure: the profile may name several channels."""
        self._address += 1

    async def enrol(self, token: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._channel()}/v1/enrol"
        return decoded(await self._exchange("Arc", "POST", url, token, {"protocol": PROTOCOL, **body}))

    async def call(self, identity: Mapping[str, Any], verb: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST to the channel as the machine. `identity`: `clientId`, `tenantId`, paths `key` and `certificate`."""
        content = {"protocol": PROTOCOL, "requestId": str(uuid.uuid4()), **body}
        return await self._as_machine(identity, "POST", f"/v1/{verb}", content)

    async def desired(self, identity: Mapping[str, Any], kind: str) -> dict[str, Any]:
        return await self._as_machine(identity, "GET", f"/v1/desired/{kind}", None)

    async def _as_machine(
        self, identity: Mapping[str, Any], method: str, path: str, body: dict[str, Any] | None
    ) -> dict[str, Any]:
        for attempt in (1, 2):
            token = await self.channel_token(identity)
            try:
                url, lease = f"{self._channel()}{path}", {"Hawser-Lease": self._nonce()}
                return decoded(await self._exchange("Arc", method, url, token, body, lease))
            except HubRefusal as refusal:
                if attempt == 2 or not self.token_refused(refusal):
                    raise
        raise AssertionError("the second attempt returns or raises")

    def token_refused(self, refusal: HubRefusal) -> bool:
        """Whether the hub does not take the channel token; it is forgotten then."""
        if refusal.status != 401 or refusal.code == "superseded":
            return False
        self._channel_token = None
        return True

    async def ask_identity(self, identity: Mapping[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """Whose identity a held one is (docs/protocol.md section 14.2): proved by an assertion, not by a token."""
        url = f"{self._channel()}/v1/identity"
        content = {
            "protocol": PROTOCOL,
            "requestId": str(uuid.uuid4()),
            "assertion": await self._assertion(identity, url),
            **body,
        }
        return decoded(await self._exchange("Arc", "POST", url, None, content))

    async def begin_checkin(
        self, identity: Mapping[str, Any], body: dict[str, Any]
    ) -> tuple[Connection, http.Response, Callable[[], None]]:
        """A check-in up to the head of its answer. The third value gives the connection back once the body was read."""
        token = await self.channel_token(identity)
        content = {"protocol": PROTOCOL, "requestId": str(uuid.uuid4()), **body}
        url = f"{self._channel()}/v1/checkin"
        proxy = self._proxy("Arc", url)
        fields = self._fields(token, True)
        connection, response = await self._transport.begin("POST", url, fields, json.dumps(content).encode(), proxy)
        self._note_clock(response.headers)
        return connection, response, lambda: self._transport.give_back(url, proxy, connection)

    async def channel_token(self, identity: Mapping[str, Any]) -> str:
        """The channel token, a new one when less than a fifth of its life is left."""
        if self._channel_token is None or self.now() >= self._channel_token_ends:
            body = await self._ask_token(identity)
            self._channel_token = str(body["access_token"])
            self._channel_token_ends = self.now() + 0.8 * float(body["expires_in"])
        return self._channel_token

    def forget_channel_token(self) -> None:
        """After a renewal: the next token proves the new credential."""
        self._channel_token = None

    async def ask_clock(self, tenant_id: str) -> None:
        """Learn the hub's time without a credential. Errors: NetworkFailed."""
        url = f"{self.profile['authority']}/{tenant_id}/v2.0/.well-known/openid-configuration"
        answer = await self._transport.request("GET", url, self._fields(None, False), b"", self._proxy("AAD", url))
        self._note_clock(answer.headers)

    async def _ask_token(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        url = f"{self.profile['authority']}/{identity['tenantId']}/oauth2/v2.0/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": identity["clientId"],
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": await self._assertion(identity, url),
            "scope": CHANNEL_SCOPE,
        }
        fields = {**self._fields(None, False), "Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._transport.request("POST", url, fields, urlencode(form).encode(), self._proxy("AAD", url))
        self._note_clock(answer.headers)
        body = decoded(answer)
        if answer.status != 200 or "access_token" not in body:
            raise refusal_of(answer)
        return body

    async def _assertion(self, identity: Mapping[str, Any], audience: str) -> str:
        if not self.seen_clock:
            # A clock that is wrong makes an assertion that is never valid: ask the hub's time first.
            await self.ask_clock(identity["tenantId"])
        signed = await worker.run(
            self._loop,
            "sign-assertion",
            {
                "key": identity["key"],
                "certificate": identity["certificate"],
                "clientId": identity["clientId"],
                "audience": audience,
                "now": int(self.now()),
                "jti": str(uuid.uuid4()),
                "machine": {name: identity[name] for name in ("slot", "resourceId", "location") if name in identity},
            },
        )
        return str(signed["assertion"])

    # Shared

    async def _exchange(
        self,
        part: str,
        method: str,
        url: str,
        token: str | None,
        body: dict[str, Any] | None,
        more: dict[str, str] | None = None,
    ) -> Answer:
        content = b"" if body is None else json.dumps(body).encode("ascii")
        fields = {**self._fields(token, body is not None), **(more or {})}
        answer = await self._transport.request(method, url, fields, content, self._proxy(part, url))
        self._note_clock(answer.headers)
        if not 200 <= answer.status < 300:
            raise refusal_of(answer)
        return answer

    def _proxy(self, part: str, url: str) -> str | None:
        return proxy_for(part, self._config(), os.environ, url)[0]

    @staticmethod
    def _fields(token: str | None, with_body: bool) -> dict[str, str]:
        fields = {"Accept": "application/json", "User-Agent": f"hawser-agent/{VERSION}"}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        if with_body:
            fields["Content-Type"] = "application/json"
        return fields

    def _note_clock(self, headers: Mapping[str, str]) -> None:
        theirs = unix_of(headers.get("date", ""))
        if theirs is not None:
            self.offset = theirs - time.time() if abs(theirs - time.time()) > 5 else 0.0
            self.seen_clock = True

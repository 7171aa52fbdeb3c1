# SPDX-License-Identifier: Apache-2.0
"""What root asks the hub's channel itself: for an enrolment (docs/protocol.md sections 14.2 and 14.4).

himds faces the network and must not choose whom root's services obey. So the answer that gives a machine a name comes
to root over root's own connection, and a question about a held identity is signed by root, which sees in the
certificate that it is about the machine of `binding.json`.
"""

from __future__ import annotations

import calendar
import email.utils
import json
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from agent_runtime import errors
from agent_runtime.cli import authority, naming, net
from agent_runtime.hub import proxy as proxies
from agent_runtime.service import worker

TIMEOUT = 60.0
_PARTS = ("subscriptions", "resourceGroups", "providers", "Microsoft.HybridCompute", "machines")


class Enrolment(NamedTuple):
    """A machine that the hub would have this one become. `place`: members that `binding.connect` takes."""

    ticket: str
    place: dict[str, Any]


class Reply(NamedTuple):
    """An answer of the channel; `retry_after` in seconds, if it says so."""

    status: int
    body: dict[str, Any]
    retry_after: float | None

    @property
    def code(self) -> str:
        error = self.body.get("error")
        return str(error.get("code")) if isinstance(error, dict) else ""

    @property
    def message(self) -> str:
        error = self.body.get("error")
        said = str(error.get("message")) if isinstance(error, dict) else f"status {self.status}"
        return said[:400].rstrip(".")


class Channel:
    """The channel of a cloud profile; its addresses are tried in turn."""

    def __init__(self, profile: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._profile = profile
        self._config = config
        self._context = net.trust(profile)

    def post(self, verb: str, body: Mapping[str, Any]) -> Reply:
        """Errors: AZCM0026 when no address answers."""
        return self._each(verb, lambda _: body)

    def question(self, credential: Mapping[str, Any], body: Mapping[str, Any], bound_to: str) -> Reply:
        """Whose identity a held one is. Errors: AZCM0027 when it is not the one that this machine is bound to,
        AZCM0026, AZCM0081."""
        now = self._hub_time()

        def signed(url: str) -> Mapping[str, Any]:
            arguments = {
                **{name: credential[name] for name in ("key", "certificate", "clientId")},
                "audience": url,
                "now": now,
                "jti": str(uuid.uuid4()),
                "machine": {
                    name: credential[name] for name in ("slot", "resourceId", "location") if name in credential
                },
            }
            done = worker.ask("sign-assertion", arguments)
            if str(done.get("vmId")).lower() != bound_to.lower():
                raise errors.ConfigurationConflict(
                    "the certificate in use is not that of the machine that this one is bound to",
                    "Run 'azcmagent disconnect --force-local-only', then connect this machine",
                )
            return {**body, "requestId": str(uuid.uuid4()), "assertion": done["assertion"]}

        return self._each("identity", signed)

    def _each(self, verb: str, body_for: Any) -> Reply:
        failure: errors.AgentError | None = None
        for address in self._profile["channel"]:
            url = f"{address}/v1/{verb}"
            content = json.dumps({"protocol": 1, **body_for(url)}).encode("ascii")
            try:
                answer = self._exchange("Arc", "POST", url, content)
            except net.UnreachableError as problem:
                failure = authority.unreachable("the channel", url, problem)
                continue
            after = answer.retry_after or ""
            return Reply(
                answer.status, _object(answer.body), float(after) if after.isascii() and after.isdigit() else None
            )
        raise failure or errors.CloudNotObtained("the cloud profile names no channel")

    def _hub_time(self) -> int:
        """The hub's clock: an assertion by a clock that is wrong is never valid. Errors: AZCM0026."""
        url = f"{self._profile['authority']}/{self._profile['tenant_id']}/v2.0/.well-known/openid-configuration"
        try:
            answer = self._exchange("AAD", "GET", url, None)
        except net.UnreachableError as problem:
            raise authority.unreachable("the authority", url, problem) from None
        date = email.utils.parsedate(answer.date or "")
        return calendar.timegm(date) if date else int(time.time())

    def _exchange(self, part: str, method: str, url: str, content: bytes | None) -> net.Answer:
        proxy, _ = proxies.proxy_for(part, self._config, os.environ, url)
        contact = net.connect(url, self._context, proxy, TIMEOUT)
        return net.exchange(contact, method, url, content, {"Content-Type": "application/json"} if content else None)


def enrolment_of(offered: object, cloud: str, tenant: str) -> Enrolment:
    """An enrolment out of an answer. Errors: AZCM0062 when it is none, or one of another tenant. Pure."""
    wrong = errors.ConnectFailed("the hub's offer is not what the protocol says", "Check the hub's version")
    if not isinstance(offered, dict):
        raise wrong
    ticket, where, location = (offered.get(name) for name in ("ticket", "resourceId", "location"))
    if not all(isinstance(value, str) and 0 < len(value) <= 16384 for value in (ticket, where, location)):
        raise wrong
    words = str(where).split("/")
    fixed = [word.lower() for word in (*words[1::2], *words[6:7])]
    if len(words) != 9 or words[0] or fixed != [w.lower() for w in (*_PARTS[:3], _PARTS[4], _PARTS[3])]:
        raise wrong
    if not naming.same("tenant_id", str(offered.get("tenantId")), tenant):
        raise errors.ConnectFailed("the hub offers a machine in another tenant", "Check the cloud profile")
    tags = offered.get("tags") or {}
    place = {
        "cloud": cloud,
        "tenant_id": tenant,
        "subscription_id": words[2],
        "resource_group": words[4],
        "location": location,
        "name": naming.machine_name(words[8]),
        "tags": tags if isinstance(tags, dict) else {},
        "correlation_id": None,
    }
    return Enrolment(str(ticket), place)


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

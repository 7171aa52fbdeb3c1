# SPDX-License-Identifier: GPL-3.0-or-later
"""A small JSON client for the hub: retries with jitter, Retry-After, one sentence for each error."""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import time
import urllib.error
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.urls import ConnectionError as UrlConnectionError
from ansible.module_utils.urls import SSLValidationError, open_url
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HubError

BODY_LIMIT = 16 * 1024 * 1024
TIMEOUT = 30
ATTEMPTS = 6
LONGEST_WAIT = 60.0
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_NO_ANSWER = (SSLValidationError, urllib.error.URLError, UrlConnectionError, http.client.HTTPException, OSError)


@dataclass(frozen=True)
class Reply:
    """An answer below 300: its status, its JSON (None if the body is empty), its headers with names in lower case."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def wait_before(attempt: int, retry_after: str | None, draw: Callable[[], float], now: float) -> float:
    """Seconds to wait after attempt number `attempt` (from 1): Retry-After and up to a second, or full jitter. Pure."""
    if retry_after:
        try:
            seconds = float(retry_after)
        except ValueError:
            when = email.utils.parsedate_tz(retry_after)
            seconds = email.utils.mktime_tz(when) - now if when else -1.0
        if seconds >= 0:
            return seconds + draw()
    return draw() * min(2.0 ** (attempt - 1), LONGEST_WAIT)


def envelope(raw: bytes) -> tuple[str, str]:
    """Code and message of an error body: ARM's envelope, or OAuth's `error` and the first line of `error_description`.

    Pure.
    """
    try:
        body = json.loads(raw)
    except ValueError:
        return "", ""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return str(error.get("code") or ""), str(error.get("message") or "").rstrip(". ")
    if isinstance(error, str):
        description = str(body.get("error_description") or "").splitlines()
        # What follows is for support: trace, correlation, time.
        return error, description[0].partition(" Trace ID:")[0].rstrip(". ") if description else ""
    return "", ""


def remedy_for(status: int, code: str) -> tuple[str, str | None]:
    """What to do about an error of the hub, and its AZCM code. Pure; docs/protocol.md section 9."""
    if status == 401 or code in {"invalid_client", "unauthorized_client"}:
        return "Check client_id and client_secret, and that the principal was not revoked", "AZCM0041"
    if status == 403:
        return "Give the principal a role that allows it", "AZCM0042"
    if status == 404:
        return "Check tenant_id, subscription_id, resource_group and name", "AZCM0042"
    if status == 409:
        return "Choose another name, or delete the machine that has it", "AZCM0044"
    if status in AGAIN:
        return "Try again later, and look at the hub's log", "AZCM0026"
    return "Correct the option that the message names", "AZCM0023"


def _failure(method: str, url: str, status: int, raw: bytes) -> HubError:
    code, message = envelope(raw)
    said = ": ".join(part for part in (code, message) if part) or f"HTTP status {status}"
    remedy, azcm = remedy_for(status, code)
    return HubError(
        f"the hub refused {method} {urlsplit(url).path}: {said}", remedy, azcm, status=status, hub_code=code
    )


def _unreachable(url: str, error: Exception) -> HubError:
    parts = urlsplit(url)
    reason = getattr(error, "reason", None) or error
    if isinstance(error, SSLValidationError) or "CERTIFICATE_VERIFY_FAILED" in str(reason):
        return HubError(
            f"the certificate of {parts.netloc} is not trusted ({reason})",
            "Set ca_file to the CA of the hub",
            "AZCM0026",
        )
    if "NO_CERTIFICATE_OR_CRL_FOUND" in str(reason):
        return HubError(
            "the file of ca_file holds no certificate", "Set ca_file to the CA of the hub, as PEM", "AZCM0026"
        )
    if isinstance(error, http.client.HTTPException):
        reason = (
            "the answer broke off" if isinstance(error, http.client.IncompleteRead) else f"no HTTP answer ({error})"
        )
    return HubError(
        f"{parts.netloc} cannot be reached: {reason}",
        "Check the address, the network and that the hub runs",
        "AZCM0026",
    )


def _lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in headers.items()}


class Client:
    """Sends requests to one hub. `draw` gives a number between 0 and 1 for jitter, `sleep` waits."""

    def __init__(
        self,
        ca_file: str | None,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ca_file = ca_file
        self._draw = draw
        self._sleep = sleep
        self.offset = 0.0  # the hub's clock minus the controller's, in seconds, from the last answer

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None
    ) -> tuple[int, bytes, dict[str, str]]:
        """One exchange: status, body, headers. Raises OSError's relatives when there is no answer."""
        try:
            with open_url(
                url,
                data=data,
                headers=dict(headers),
                method=method,
                timeout=TIMEOUT,
                ca_path=self._ca_file,
                follow_redirects="none",
                http_agent="hawser.machine",
                use_netrc=False,
            ) as response:
                self._learn_time(response.headers.get("Date"))
                raw = response.read(BODY_LIMIT + 1)
                if len(raw) > BODY_LIMIT:
                    raise HubError(
                        f"the answer of {urlsplit(url).netloc} is larger than {BODY_LIMIT} bytes",
                        "Check arm: it must be the hub's address",
                    )
                length = 0 if response.headers.get("Content-Encoding") else response.headers.get("Content-Length") or 0
                if len(raw) < int(length):
                    raise http.client.IncompleteRead(raw)
                return response.status, raw, _lower(response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(BODY_LIMIT), _lower(error.headers)

    def request(
        self,
        method: str,
        url: str,
        token: str | None = None,
        json_body: Any = None,
        form: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request until there is an answer that is final; every request of this collection may be repeated.

        All its tries have one id: by it the hub knows a run command again whose answer was lost, and does not begin the
        script anew (docs/arm.md, 'Run commands').

        Raises HubError. Neither the token nor a body appears in it.
        """
        headers = {"Accept": "application/json", "x-ms-client-request-id": str(uuid.uuid4())}
        data = None
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if json_body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(json_body).encode()
        elif form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            data = urlencode(form).encode()
        attempt = 1
        while True:
            retry_after = None
            try:
                status, raw, answered = self._once(method, url, headers, data)
                retry_after = answered.get("retry-after")
            except _NO_ANSWER as error:
                failure = _unreachable(url, error)
                if "not trusted" in failure.message or attempt >= ATTEMPTS // 2:
                    raise failure from None
            else:
                if status < 300:
                    return Reply(status, self._decode(url, raw), answered)
                failure = _failure(method, url, status, raw)
                if status not in AGAIN or attempt >= ATTEMPTS:
                    raise failure
            seconds = wait_before(attempt, retry_after, self._draw, time.time())
            if retry_after and seconds > LONGEST_WAIT + 1:
                # To ask earlier would be rude, to wait longer would look like a hang.
                failure.remedy = f"Try again in {int(seconds)} seconds, as the hub wishes"
                raise failure
            self._sleep(seconds)
            attempt += 1

    def _learn_time(self, date: str | None) -> None:
        """Ages of heartbeats are reckoned by the hub's clock: the controller's may be wrong."""
        parsed = email.utils.parsedate_tz(date) if date else None
        if parsed:
            self.offset = email.utils.mktime_tz(parsed) - time.time()

    @staticmethod
    def _decode(url: str, raw: bytes) -> Any:
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError as error:
            raise HubError(
                f"{urlsplit(url).netloc} answered something else than JSON",
                "Check arm and authority: they must be the hub's addresses",
            ) from error

# SPDX-License-Identifier: Apache-2.0
"""A token for ARM by a service principal's secret (identity-and-arm-api.md B.3; agent-surface.md section 5.1)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from typing import Any, Callable
from urllib.parse import quote, urlencode

from agent_runtime import errors
from agent_runtime.cli import net

TIMEOUT = 30.0
# The vendor retries for up to 5 minutes; errors of the credential are final and are not retried.
RETRY_SECONDS = 300.0
_PAUSE_FIRST, _PAUSE_MOST = 1.0, 30.0


def arm_token(
    profile: Mapping[str, Any],
    tenant: str,
    client_id: str,
    secret: str,
    proxy: str | None,
    retry_seconds: float = RETRY_SECONDS,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """An access token for ARM of `profile`.

    Errors: AZCM0041 with the authority's reason when it refuses; AZCM0026 when it cannot be reached in `retry_seconds`.
    """
    url = f"{profile['authority']}/{quote(tenant, safe='')}/oauth2/v2.0/token"
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": secret,
        "scope": f"{profile['arm']}/.default",
    }
    context = net.trust(profile)
    until = time.monotonic() + retry_seconds
    pause = _PAUSE_FIRST
    while True:
        wait = random.uniform(pause / 2, pause)
        try:
            contact = net.connect(url, context, proxy, TIMEOUT)
            answer = net.exchange(
                contact, "POST", url, urlencode(form).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
            )
        except net.UnreachableError as problem:
            # A certificate that is not trusted does not become trusted by waiting.
            failure = unreachable("the authority", url, problem)
            final = problem.stage == "tls"
        else:
            if answer.status == 200:
                return _token_of(answer.body, url)
            failure, final = refusal(answer.status, answer.body)
            if answer.retry_after and answer.retry_after.isdigit():
                wait = float(answer.retry_after)
        if final or time.monotonic() + wait > until:
            raise failure
        say(f"{failure}; trying again in {wait:.0f} s")
        time.sleep(wait)
        pause = min(pause * 2, _PAUSE_MOST)


def unreachable(what: str, url: str, problem: net.UnreachableError) -> errors.AgentError:
    """AZCM0026 in one sentence."""
    host, port = net.origin(url)
    remedy = (
        "Compare ca_pem of the cloud profile with the hub's CA, and the clock of this machine"
        if problem.stage == "tls"
        else "See which endpoints can be reached with: azcmagent check"
    )
    return errors.NetworkFailed(f"{what} at {host}:{port} cannot be used: {problem}", remedy)


def refusal(status: int, body: bytes) -> tuple[errors.AgentError, bool]:
    """The error of an answer that is no token, and whether it is final. Pure."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    said = found if isinstance(found, dict) else {}
    described = said.get("error_description") or said.get("error")
    # Trace and correlation ids follow the first line of error_description.
    why = str(described).splitlines()[0][:400] if described else f"status {status}"
    if status in (408, 429) or status >= 500:
        return errors.NetworkFailed(f"the authority is not available: {why}", "Try again later"), False
    return (
        errors.CredentialInvalid(
            f"the authority refuses the credential: {why}",
            "Compare service principal id, secret, tenant id and the secret's expiry",
        ),
        True,
    )


def _token_of(body: bytes, url: str) -> str:
    try:
        token = json.loads(body)["access_token"]
    except (ValueError, KeyError, TypeError):
        token = None
    if not isinstance(token, str) or not token:
        raise errors.CredentialInvalid(
            f"{url} did not answer with a token", "Compare the authority of the cloud profile"
        )
    return token

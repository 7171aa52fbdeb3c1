# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller asks the hub for: tokens, tickets, machines (docs/protocol.md sections 1 and 4, ARM)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HubError
from ansible_collections.hawser.machine.plugins.plugin_utils._http import Client, Reply
from ansible_collections.hawser.machine.plugins.plugin_utils._settings import HubSettings

API_VERSION = "2026-07-15"
PAGES = 5000
EXPANDED = {"$expand": "instanceView"}
_SPARE = 120
_ABSENT = frozenset({"ResourceNotFound", "ResourceGroupNotFound"})


class TokenCache:
    """Tokens of one run of Ansible, shared by its forks: 0600 files in Ansible's temporary directory of this run.

    A fork lives for one task of one host; without this a fleet would ask the authority for a token for each host.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Let one fork at a time fetch the token with this key."""
        descriptor = os.open(self._directory / f"hawser-{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self, key: str) -> dict[str, Any] | None:
        """The cached token, if it is good for another two minutes."""
        try:
            entry = json.loads((self._directory / f"hawser-{key}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return entry if entry["expires_on"] - _SPARE > time.time() else None

    def write(self, key: str, entry: dict[str, Any]) -> None:
        """Keep a token for the other forks of this run."""
        descriptor, name = tempfile.mkstemp(prefix="hawser-", dir=self._directory)  # 0600 from its first moment
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(entry, file)
        os.replace(name, self._directory / f"hawser-{key}.json")


class Hub:
    """One hub, as one principal."""

    def __init__(self, settings: HubSettings, cache: TokenCache, client: Client | None = None) -> None:
        self.settings = settings
        self._cache = cache
        self._client = client or Client(settings.ca_file)

    def token(self, resource: str | None = None) -> dict[str, Any]:
        """An access token by client credentials: `{"access_token", "expires_on" (Unix seconds), "token_type"}`.

        `resource` is an audience; without it the token is for ARM.
        """
        scope = f"{resource or self.settings.arm}/.default"
        key = self.settings.cache_key(scope)
        entry = self._cache.read(key)
        if entry:
            return entry
        with self._cache.locked(key):
            entry = self._cache.read(key)
            if entry is None:
                entry = self._fetch_token(scope)
                self._cache.write(key, entry)
        return entry

    def _fetch_token(self, scope: str) -> dict[str, Any]:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.settings.client_id or "",
            "client_secret": self.settings.client_secret or "",
            "scope": scope,
        }
        url = f"{self.settings.authority}/{quote(self.settings.tenant_id)}/oauth2/v2.0/token"
        body = self._client.request("POST", url, form=form).body
        if not isinstance(body, dict) or not isinstance(body.get("access_token"), str):
            raise HubError(
                "the authority answered without a token", "Check authority: it must be the hub's address", "AZCM0041"
            )
        return {
            "access_token": body["access_token"],
            "token_type": body.get("token_type", "Bearer"),
            "expires_on": int(time.time()) + int(body.get("expires_in", 0)),
        }

    def now(self) -> float:
        """Unix seconds by the hub's clock, as far as its last answer told it."""
        return time.time() + self._client.offset

    def _bearer(self) -> str:
        return self.settings.access_token or str(self.token()["access_token"])

    def ticket(self, operations: list[dict[str, str]]) -> str:
        """One ticket for these operations (docs/protocol.md section 4); the only credential that a host ever sees."""
        url = f"{self.settings.arm}/hawser/v1/tickets"
        body = self._client.request("POST", url, token=self._bearer(), json_body={"operations": operations}).body
        if not isinstance(body, dict) or not isinstance(body.get("accessToken"), str):
            raise HubError("the hub answered without a ticket", "Check arm: it must be the hub's address")
        return str(body["accessToken"])

    def send(self, method: str, resource_id: str, body: Any = None, **parameters: str) -> Reply:
        """Ask ARM something about a resource; it may have to be followed (`_operation`)."""
        query = urlencode({"api-version": API_VERSION, **parameters})
        url = f"{self.settings.arm}{quote(resource_id)}?{query}"
        return self._client.request(method, url, token=self._bearer(), json_body=body)

    def look(self, url: str) -> Reply:
        """GET of an address that the hub gave. The token goes to the hub alone."""
        if urlsplit(url)[:2] != urlsplit(self.settings.arm)[:2]:
            raise HubError(
                f"the hub sends us on to {url}", "Set arm to the public address of the hub, as its answers name it"
            )
        return self._client.request("GET", url, token=self._bearer())

    def resource(self, resource_id: str, **parameters: str) -> dict[str, Any] | None:
        """A resource as ARM shows it, such as a machine; None if there is none."""
        try:
            body = self.send("GET", resource_id, **parameters).body
        except HubError as error:
            if error.status == 404 and error.hub_code in _ABSENT:
                return None
            raise
        return body if isinstance(body, dict) else None

    def machines(self, subscription_id: str, resource_group: str | None) -> list[dict[str, Any]]:
        """All machines of a resource group or of a subscription as ARM shows them."""
        place = f"/subscriptions/{quote(subscription_id)}" + (
            f"/resourceGroups/{quote(resource_group)}" if resource_group else ""
        )
        return self._pages(f"{place}/providers/Microsoft.HybridCompute/machines?api-version={API_VERSION}")

    def children(self, resource_id: str, kind: str) -> list[dict[str, Any]]:
        """All resources of a kind, such as `extensions`, below a machine; none when there is no such machine."""
        try:
            return self._pages(f"{quote(resource_id)}/{kind}?{urlencode({'api-version': API_VERSION, **EXPANDED})}")
        except HubError as error:
            if error.status == 404 and error.hub_code in _ABSENT:
                return []
            raise

    def fleet(self, query: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Rows of the fleet query (docs/protocol.md section 4a), of all pages; `query` are its parameters."""
        try:
            return self._pages(f"/hawser/v1/machines?{urlencode(query)}")
        except HubError as error:
            if error.status == 404 and error.hub_code in _ABSENT:
                return []
            raise

    def _pages(self, path: str) -> list[dict[str, Any]]:
        """The rows of all pages of a list."""
        url: str | None = self.settings.arm + path
        found: list[dict[str, Any]] = []
        seen: set[str] = set()
        while url:
            # The token goes to the hub alone, wherever a page says the next one is.
            if urlsplit(url)[:2] != urlsplit(self.settings.arm)[:2] or url in seen:
                raise HubError(
                    f"the hub's list goes on at {url}", "Set arm to the public address of the hub, as its pages name it"
                )
            if len(seen) >= PAGES:
                raise HubError(f"the hub's list has more than {PAGES} pages", "Narrow it with filters")
            seen.add(url)
            body = self._client.request("GET", url, token=self._bearer()).body
            if not isinstance(body, dict) or not isinstance(body.get("value"), list):
                raise HubError("the hub answered without a list", "Check arm: it must be the hub's address")
            if not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in body["value"]):
                raise HubError("the hub's list holds something that is no resource", "Upgrade the collection")
            found.extend(body["value"])
            url = body.get("nextLink") or None
        return found

# SPDX-License-Identifier: Apache-2.0
"""The local HTTP endpoint on loopback: tokens by challenge, instance metadata, agent status.

Facts: identity-and-arm-api.md part A. Each connection carries one request. The hot path, a challenge or a token out of
the cache, runs without a task: accept, read, answer, close.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Union
from urllib.parse import unquote_plus

from agent_runtime.himds.challenges import Challenges
from agent_runtime.himds.tokens import NoToken, Tokens
from agent_runtime.service import http
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop, Timeout, TimeoutExpired, readable, sleep, writable

PORT = 40342
TOKEN_VERSIONS = ("2019-11-01", "2020-06-01")
READ_SECONDS = 10.0
CONNECTIONS = 256
ACCEPT_PAUSE = 5.0
_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_BATCH = 64


class Fetch(NamedTuple):
    """A token that the hub must be asked for; its challenge is spent. `fresh`: not out of the cache."""

    resource: str
    fresh: bool
    caller: str


Outcome = Union[bytes, Fetch]


def error(status: int, code: str, text: str, fields: str = "") -> bytes:
    """An error in the form of identity-and-arm-api.md A.6."""
    body = json.dumps({"error": code, "error_description": text}).encode("ascii")
    return http.response_bytes(status, body, fields)


def query_of(target: str) -> tuple[str, dict[str, str]]:
    """Path and query of a request target; of a name that stands twice the first counts. Pure."""
    path, _, query = target.partition("?")
    values: dict[str, str] = {}
    for pair in query.split("&", 64)[:64]:
        name, _, value = pair.partition("=")
        if name:
            values.setdefault(unquote_plus(name), unquote_plus(value))
    return path.rstrip("/").lower(), values


def host_is_ours(host: str | None, port: int) -> bool:
    """Whether a Host header names this endpoint: a name that resolves here by an attacker's wish is refused. Pure."""
    if host is None:
        return True
    name, colon, number = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name, number = host, str(port)
    return name.lower() in _HOSTS and number == str(port)


def refusal_of(headers: dict[str, str], path: str, port: int) -> bytes | None:
    """The answer to a request that a browser, a forwarding proxy or a guess made; None for a proper one. Pure."""
    if "x-forwarded-for" in headers or "forwarded" in headers:
        return error(403, "forbidden", "This endpoint does not answer forwarded requests.")
    if "origin" in headers or not host_is_ours(headers.get("host"), port):
        return error(403, "forbidden", "This endpoint answers programs on this machine only.")
    if path not in _WITHOUT_HEADER and headers.get("metadata", "").lower() != "true":
        return error(400, "invalid_request", "The required metadata header is missing: send 'Metadata: true'.")
    return None


_WITHOUT_HEADER = frozenset({"/agentstatus", "/metadata/agentstatus"})


class Endpoint:
    """`instance` and `status` give the JSON of the two documents (instance None: the machine is not connected)."""

    def __init__(
        self,
        loop: Loop,
        port: int,
        challenges: Challenges,
        tokens: Tokens,
        instance: Callable[[], dict[str, Any] | None],
        status: Callable[[], dict[str, Any]],
        log: Log,
    ) -> None:
        self._loop = loop
        self._port = port
        self._challenges = challenges
        self._tokens = tokens
        self._instance = instance
        self._status = status
        self._log = log
        self._slow = 0
        self._sweeping = False
        self._routes: dict[str, Callable[[dict[str, str]], bytes]] = {
            "/metadata/instance": self._answer_instance,
            "/metadata/instance/compute": self._answer_compute,
            "/metadata/identity/info": self._answer_info,
            "/agentstatus": self._answer_status,
            "/metadata/agentstatus": self._answer_status,
        }
        self._token_paths = ("/metadata/identity/oauth2/token", "/metadata/identity")

    def listen(self) -> list[socket.socket]:
        """The listening sockets: 127.0.0.1, and ::1 where the machine has it. Errors: OSError when the port is
        taken."""
        listeners = [_listener(socket.AF_INET, "127.0.0.1", self._port)]
        with contextlib.suppress(OSError):
            listeners.append(_listener(socket.AF_INET6, "::1", self._port))
        return listeners

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        try:
            while True:
                await readable(listener)
                for _ in range(_BATCH):
                    try:
                        connection = listener.accept()[0]
                    except (BlockingIOError, ConnectionError):
                        break
                    except OSError as problem:  # no descriptors left: those that are open end in time
                        self._log.error(f"the local endpoint cannot accept: {problem.strerror}")
                        await sleep(ACCEPT_PAUSE)
                        break
                    self._attend(connection)
        finally:
            listener.close()

    def _attend(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        data = b""
        outcome: Outcome | None = None
        try:
            data = connection.recv(http.HEAD_LIMIT + 4)
            if not data:
                connection.close()
                return
            outcome = self._outcome(data)
            if isinstance(outcome, bytes):
                sent = connection.send(outcome)
                if sent == len(outcome):
                    connection.close()
                    return
                outcome = outcome[sent:]
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            return
        if self._slow >= CONNECTIONS:
            connection.close()
            return
        self._slow += 1
        self._loop.spawn(self._attend_slowly(connection, data, outcome), "local endpoint")

    async def _attend_slowly(self, connection: socket.socket, data: bytes, outcome: Outcome | None) -> None:
        try:
            with Timeout(self._loop, READ_SECONDS):
                while outcome is None:
                    await readable(connection)
                    block = connection.recv(http.HEAD_LIMIT + 4)
                    if not block:
                        return
                    data += block
                    outcome = self._outcome(data)
            if isinstance(outcome, Fetch):
                outcome = await self._fetched(outcome)
            with Timeout(self._loop, READ_SECONDS):
                await _send(connection, outcome)
        except (OSError, TimeoutExpired):
            return
        finally:
            self._slow -= 1
            connection.close()

    def _outcome(self, data: bytes) -> Outcome | None:
        """The answer, or the token that must be fetched for it; None while the request is not complete."""
        try:
            request = http.parse_request(data)
        except http.HttpError as problem:
            return error(problem.status, "invalid_request", f"{problem}.")
        return None if request is None else self._answer(request)

    def _answer(self, request: http.Request) -> Outcome:
        path, query = query_of(request.target)
        refused = refusal_of(request.headers, path, self._port)
        if refused is not None:
            return refused
        if path in self._token_paths:
            return self._answer_token(request, query)
        route = self._routes.get(path)
        if route is None:
            return error(404, "not_found", f"There is nothing at {path[:200]}.")
        if request.method != "GET":
            return error(405, "invalid_request", "Only GET is answered here.", "Allow: GET\r\n")
        return route(query)

    # Tokens

    def _answer_token(self, request: http.Request, query: dict[str, str]) -> Outcome:
        wrong = self._wrong_token_request(request, query)
        if wrong is not None:
            return wrong
        authorization = request.headers.get("authorization")
        if authorization is None:
            return self._challenge()
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "basic" or not self._challenges.redeem(secret.strip()):
            return self._challenge()
        fresh = query.get("bypass_cache", "").lower() == "true"
        ready = None if fresh else self._tokens.cached(query["resource"])
        return ready or Fetch(query["resource"], fresh, request.headers.get("client-id", ""))

    def _wrong_token_request(self, request: http.Request, query: dict[str, str]) -> bytes | None:
        if request.method != "GET":
            return error(405, "invalid_request", "Only GET is answered here.", "Allow: GET\r\n")
        version = query.get("api-version")
        if version not in TOKEN_VERSIONS:
            shown = "is missing" if version is None else "is not supported"
            supported = " ".join(TOKEN_VERSIONS)
            return error(400, "invalid_request", f"The api-version {shown}. Supported are {supported}")
        if not query.get("resource"):
            return error(400, "invalid_request", "The query parameter resource is missing.")
        if len(query["resource"]) > 2048:
            return error(400, "invalid_resource", "The resource is too long.")
        for selector in ("client_id", "object_id", "msi_res_id", "mi_res_id"):
            if query.get(selector) and not self._tokens.is_ours(selector, query[selector]):
                text = f"No identity with this {selector} is assigned: only the system-assigned identity is."
                return error(400, "invalid_request", text)
        problem = self._tokens.unavailable()
        if problem is not None:
            return error(problem.status, problem.code, problem.text)
        return None

    def _challenge(self) -> bytes:
        try:
            path = self._challenges.new()
        except OSError as problem:
            self._log.error(f"a challenge file cannot be written: {problem.strerror}")
            return error(500, "server_error", "A challenge file cannot be written; see himds.log.")
        if not self._sweeping:
            self._sweeping = True
            self._loop.later(300, self._sweep)
        return (
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n"
            f"Www-Authenticate: Basic realm={path}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        ).encode("ascii")

    def _sweep(self) -> None:
        again = self._challenges.sweep()
        self._sweeping = again is not None
        if again is not None:
            self._loop.later(again, self._sweep)

    async def _fetched(self, wanted: Fetch) -> bytes:
        if wanted.caller:
            self._log.info(f"token for {wanted.resource[:200]} asked with Client-Id {wanted.caller[:100]}")
        try:
            return await self._tokens.fetch(wanted.resource, wanted.fresh)
        except NoToken as problem:
            return error(problem.status, problem.code, problem.text)

    # Documents

    def _metadata_version(self, query: dict[str, str]) -> bytes | None:
        version = query.get("api-version", "")
        parts = version.split("-")
        dated = [len(part) for part in parts] == [4, 2, 2] and version.replace("-", "").isdigit()
        if dated and version >= "2017-08-01":
            return None
        supported = " ".join(TOKEN_VERSIONS)
        return error(400, "invalid_request", f"The api-version is missing or malformed. Supported are {supported}")

    def _answer_instance(self, query: dict[str, str]) -> bytes:
        return self._metadata_version(query) or self._compute(lambda compute: {"compute": compute, "network": {}})

    def _answer_compute(self, query: dict[str, str]) -> bytes:
        return self._metadata_version(query) or self._compute(lambda compute: compute)

    def _compute(self, shape: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
        compute = self._instance()
        if self._held() or compute is None:
            return self._held() or self._nowhere()
        # No blanks: consumers grep for '"resourceId":"'.
        return http.response_bytes(200, json.dumps(shape(compute), separators=(",", ":")).encode("ascii"))

    def _held(self) -> bytes | None:
        """The answer of a machine whose identity is out of use: what it was is not told as what it is."""
        problem = self._tokens.unavailable()
        held = problem is not None and problem.status == 503
        return error(problem.status, problem.code, problem.text) if problem is not None and held else None

    @staticmethod
    def _nowhere() -> bytes:
        return error(404, "not_found", "This machine is not connected; connect it with 'azcmagent connect'.")

    def _answer_info(self, query: dict[str, str]) -> bytes:
        if self._held() or self._instance() is None:
            return self._held() or self._nowhere()
        return http.response_bytes(200, json.dumps({"tenantId": self._status().get("tenantId")}).encode("ascii"))

    def _answer_status(self, query: dict[str, str]) -> bytes:
        return http.response_bytes(200, json.dumps(self._status()).encode("ascii"))


async def _send(connection: socket.socket, content: bytes) -> None:
    view = memoryview(content)
    while view:
        try:
            view = view[connection.send(view) :]
        except BlockingIOError:
            await writable(connection)


def _listener(family: int, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener

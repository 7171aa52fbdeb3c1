# SPDX-License-Identifier: Apache-2.0
"""The client of the hub against a real HTTP server that answers what a hub and what stands before it may answer."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _errors as errors
from ansible_collections.hawser.machine.plugins.plugin_utils import _http as http_client
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub, TokenCache
from ansible_collections.hawser.machine.plugins.plugin_utils._settings import HubSettings

Script = list[tuple[int, dict[str, str], bytes]]


class Server:
    """Answers requests in the order of its script and keeps what it was asked."""

    def __init__(self) -> None:
        self.script: Script = []
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.cut = 0  # so many answers break off in their middle
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.command, self.path, dict(self.headers), body))
                status, headers, answer = outer.script.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                if outer.cut:
                    outer.cut -= 1
                    answer = answer[: len(answer) // 2]
                self.wfile.write(answer)

            do_GET = do_POST = _answer  # noqa: N815 - the names are http.server's

            def log_message(self, *args: Any) -> None:
                """Keep the test's output clean."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def say(self, status: int, body: Any = None, **headers: str) -> None:
        answer = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.script.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, answer))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()
    made.thread.join()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(slept: list[float]) -> http_client.Client:
    return http_client.Client(None, draw=lambda: 0.5, sleep=slept.append)


def test_busy_then_good(server: Server, client: http_client.Client, slept: list[float]) -> None:
    server.say(429, {"error": {"code": "TooManyRequests", "message": "later"}}, Retry_After="7")
    server.say(503)
    server.say(200, {"a": 1})
    assert client.request("GET", server.url + "/x", token="t").body == {"a": 1}
    assert slept == [7.5, 1.0]
    assert {headers["Authorization"] for _method, _path, headers, _body in server.seen} == {"Bearer t"}


def test_all_tries_of_one_request_have_one_id(server: Server, client: http_client.Client) -> None:
    for status in (504, 200, 200):
        server.say(status, {})
    for _ in range(2):
        client.request("POST", server.url + "/x", json_body={})
    # urllib writes names in its own way.
    ids = [{name.lower(): value for name, value in seen[2].items()}["x-ms-client-request-id"] for seen in server.seen]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 36


def test_busy_for_ever_ends(server: Server, client: http_client.Client, slept: list[float]) -> None:
    for _ in range(http_client.ATTEMPTS):
        server.say(500)
    with pytest.raises(errors.HubError, match="HTTP status 500") as caught:
        client.request("GET", server.url + "/x")
    assert caught.value.code == "AZCM0026"
    assert len(slept) == http_client.ATTEMPTS - 1


def test_a_wait_that_is_too_long_is_said_and_not_slept(
    server: Server, client: http_client.Client, slept: list[float]
) -> None:
    server.say(429, {"error": {"code": "TooManyRequests", "message": "later"}}, Retry_After="3600")
    with pytest.raises(errors.HubError, match="TooManyRequests: later") as caught:
        client.request("GET", server.url + "/x")
    assert "3600 seconds" in caught.value.remedy
    assert slept == []
    assert len(server.seen) == 1


def test_half_an_answer_is_asked_for_again(server: Server, client: http_client.Client, slept: list[float]) -> None:
    server.cut = 2
    server.say(200, {"value": [1, 2, 3]})
    server.say(200, {"value": [1, 2, 3]})
    server.say(200, {"value": [1, 2, 3]})
    assert client.request("GET", server.url + "/x").body == {"value": [1, 2, 3]}
    assert len(slept) == 2


def test_half_an_answer_for_ever_ends(server: Server, client: http_client.Client) -> None:
    server.cut = 99
    for _ in range(http_client.ATTEMPTS):
        server.say(200, {"value": [1, 2, 3]})
    with pytest.raises(errors.HubError, match="the answer broke off"):
        client.request("GET", server.url + "/x")


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (
            403,
            {"error": {"code": "AuthorizationFailed", "message": "No role."}},
            "AZCM0042",
            "AuthorizationFailed: No role",
        ),
        (
            401,
            {"error": "invalid_client", "error_description": "AADSTS7000215: wrong.\r\nTrace"},
            "AZCM0041",
            "AADSTS7000215: wrong",
        ),
        (400, {"error": "invalid_client"}, "AZCM0041", "invalid_client"),
        (409, b"<html>", "AZCM0044", "HTTP status 409"),
        (301, None, "AZCM0023", "HTTP status 301"),
    ],
)
def test_final_answers_become_one_sentence(
    server: Server, client: http_client.Client, slept: list[float], status: int, body: Any, code: str, words: str
) -> None:
    server.say(status, body, Location="http://127.0.0.1:1/")
    with pytest.raises(errors.HubError, match=words) as caught:
        client.request("POST", server.url + "/x?secret=1", token="hush", json_body={"password": "hush"})
    assert caught.value.code == code
    assert caught.value.status == status
    assert "hush" not in json.dumps(caught.value.as_result())
    assert slept == []


def test_nobody_there(client: http_client.Client, slept: list[float]) -> None:
    with pytest.raises(errors.HubError, match="cannot be reached") as caught:
        client.request("GET", "https://127.0.0.1:1/x")
    assert caught.value.code == "AZCM0026"
    assert len(slept) == http_client.ATTEMPTS // 2 - 1


def test_a_ca_file_without_a_certificate(tmp_path: Path, slept: list[float]) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    client = http_client.Client(str(tmp_path / "ca.pem"), sleep=slept.append)
    with pytest.raises(errors.HubError, match="the file of ca_file holds no certificate"):
        client.request("GET", "https://127.0.0.1:1/x")


def test_no_json(server: Server, client: http_client.Client) -> None:
    server.say(200, b"<html>")
    with pytest.raises(errors.HubError, match="something else than JSON"):
        client.request("GET", server.url)


def test_the_hubs_clock_is_learned(server: Server, client: http_client.Client) -> None:
    server.script.append((200, {"Date": formatdate(time.time() + 3600, usegmt=True)}, b"{}"))
    client.request("GET", server.url)
    # http.server sends its own Date first; urllib joins or keeps one of them, so ask the pure part too.
    client._learn_time(formatdate(time.time() + 3600, usegmt=True))
    assert 3590 < client.offset < 3610


@pytest.mark.parametrize(
    ("attempt", "retry_after", "expected"),
    [
        (1, None, 0.5),
        (3, None, 2.0),
        (30, None, 30.0),
        (1, "10", 10.5),
        (1, "9999", 9999.5),
        (1, "soon", 0.5),
        (1, formatdate(1030), 30.5),
    ],
)
def test_waits(attempt: int, retry_after: str | None, expected: float) -> None:
    assert http_client.wait_before(attempt, retry_after, lambda: 0.5, 1000.0) == expected


def hub(server: Server, cache: str, client: http_client.Client, **changes: Any) -> Hub:
    values = {"client_id": "c", "client_secret": "hush", "ca_file": None, "tenant_id": "tenant", **changes}
    return Hub(HubSettings(arm=server.url, authority=server.url, **values), TokenCache(cache), client)


def test_one_token_for_many_forks(server: Server, client: http_client.Client, tmp_path) -> None:  # type: ignore[no-untyped-def]
    server.say(200, {"access_token": "first", "token_type": "Bearer", "expires_in": 3600})
    assert hub(server, str(tmp_path), client).token()["access_token"] == "first"
    assert hub(server, str(tmp_path), client).token()["access_token"] == "first"
    assert len(server.seen) == 1
    assert server.seen[0][1] == "/tenant/oauth2/v2.0/token"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert not any("hush" in path.read_text() for path in tmp_path.iterdir())


def test_a_token_at_its_end_is_fetched_anew(server: Server, client: http_client.Client, tmp_path) -> None:  # type: ignore[no-untyped-def]
    server.say(200, {"access_token": "short", "expires_in": 60})
    server.say(200, {"access_token": "next", "expires_in": 3600})
    assert hub(server, str(tmp_path), client).token()["access_token"] == "short"
    assert hub(server, str(tmp_path), client).token()["access_token"] == "next"


def test_a_given_token_is_used_as_it_is(server: Server, client: http_client.Client, tmp_path) -> None:  # type: ignore[no-untyped-def]
    server.say(201, {"accessToken": "ticket", "expiresIn": 600})
    operations = [{"operation": "connect", "resourceId": "/x"}]
    assert hub(server, str(tmp_path), client, client_secret=None, access_token="given").ticket(operations) == "ticket"
    method, path, headers, body = server.seen[0]
    assert (method, path, headers["Authorization"]) == ("POST", "/hawser/v1/tickets", "Bearer given")
    assert json.loads(body) == {"operations": operations}


def test_pages(server: Server, client: http_client.Client, tmp_path) -> None:  # type: ignore[no-untyped-def]
    server.say(200, {"value": [{"id": "/a", "name": "a"}], "nextLink": server.url + "/subscriptions/s/more"})
    server.say(200, {"value": [{"id": "/b", "name": "b"}], "nextLink": None})
    listed = hub(server, str(tmp_path), client, access_token="t").machines("s", None)
    assert [machine["name"] for machine in listed] == ["a", "b"]


@pytest.mark.parametrize("rows", [["a"], [{"name": "a"}], [{"id": 1}]])
def test_a_list_of_something_else(server: Server, client: http_client.Client, tmp_path, rows: Any) -> None:  # type: ignore[no-untyped-def]
    server.say(200, {"value": rows, "nextLink": None})
    with pytest.raises(errors.HubError, match="no resource"):
        hub(server, str(tmp_path), client, access_token="t").fleet([("search", "ä&b")])
    assert server.seen[0][1] == "/hawser/v1/machines?search=%C3%A4%26b"


@pytest.mark.parametrize("link", ["https://elsewhere/x", "{self}"])
def test_a_list_that_leads_away_or_in_circles(server: Server, client: http_client.Client, tmp_path, link: str) -> None:  # type: ignore[no-untyped-def]
    target = server.url + "/loop" if link == "{self}" else link
    server.say(200, {"value": [], "nextLink": target})
    server.say(200, {"value": [], "nextLink": target})
    with pytest.raises(errors.HubError, match="goes on at"):
        hub(server, str(tmp_path), client, access_token="t").machines("s", "g")
    assert all(headers["Host"] in server.url for _method, _path, headers, _body in server.seen)


def test_no_machine_is_none_and_no_right_is_an_error(server: Server, client: http_client.Client, tmp_path) -> None:  # type: ignore[no-untyped-def]
    asked = hub(server, str(tmp_path), client, access_token="t")
    server.say(404, {"error": {"code": "ResourceNotFound", "message": "none"}})
    assert asked.resource("/subscriptions/s/x") is None
    server.say(404, {"error": {"code": "SubscriptionNotFound", "message": "none"}})
    with pytest.raises(errors.HubError, match="SubscriptionNotFound"):
        asked.resource("/subscriptions/s/x")

# SPDX-License-Identifier: Apache-2.0
"""A hub in operation: figures, readiness, logs, limits, slow clients, many connections, exchange of certificate and
settings while it runs."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import requests
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from prometheus_client.parser import text_string_to_metric_families

from control_plane import connections, pki
from tests.integration import hub_process, self_signed, web_fleet
from tests.integration.hub_machine import Machine
from tests.integration.hub_process import HubProcess
from tests.waiting import until


@pytest.fixture
def own(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub for one test, its settings to be written first."""
    made = hub_process.make(tmp_path / "data", "--location", "local=Laboratory")
    yield made
    made.stop()


def configure(hub: HubProcess, text: str) -> None:
    hub_process.configure(hub.data, yaml.safe_load(text) or {})


def reload(hub: HubProcess) -> None:
    assert hub.process is not None
    hub.process.send_signal(signal.SIGHUP)


def log(hub: HubProcess) -> str:
    return (hub.data / "serve.log").read_text()


def arm(hub: HubProcess, token: str, path: str = "/subscriptions", **more: Any) -> requests.Response:
    url = f"{hub.url}{path}{'&' if '?' in path else '?'}api-version=2022-12-01"
    return hub.session().get(url, headers={"Authorization": f"Bearer {token}", **more}, timeout=30)


def test_figures_can_be_scraped(hub: HubProcess) -> None:
    token = hub.token(hub.principal("figures-owner", "Owner"))
    Machine(hub, "figures").connect(token)
    until(lambda: _figure(hub, "hawser_machines", status="Connected"), seconds=60)
    arm(hub, token)
    assert (_figure(hub, "hawser_requests_total", part="arm", method="GET", status="200") or 0) >= 1
    assert (_figure(hub, "hawser_checkins_total") or 0) >= 1
    assert (_figure(hub, "hawser_certificate_not_after_seconds", certificate="tls") or 0) > time.time()
    assert _figure(hub, "hawser_nonce_conflicts_total") == 0


def _figure(hub: HubProcess, name: str, **labels: str) -> float | None:
    answer = hub.session().get(f"{hub.url}/metrics", timeout=30)
    assert answer.status_code == 200
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


def test_figures_are_not_for_everybody(own: HubProcess) -> None:
    configure(own, "metrics: {allow: ['192.0.2.0/24']}\n")
    own.start()
    session = own.session()
    assert session.get(f"{own.url}/metrics", timeout=30).status_code == 401
    for role, status in (("Owner", 200), ("Reader", 200), ("Onboarding", 403)):
        header = {"Authorization": f"Bearer {own.token(own.principal(role, role))}"}
        assert session.get(f"{own.url}/metrics", headers=header, timeout=30).status_code == status, role
        assert session.get(f"{own.url}/hawser/v1/hub", headers=header, timeout=30).status_code == status, role
    # At SIGHUP another list is in force: the address is enough, whatever token is sent.
    configure(own, "metrics: {allow: ['127.0.0.0/8']}\n")
    reload(own)
    until(lambda: session.get(f"{own.url}/metrics", timeout=30).status_code == 200, seconds=60)
    assert session.get(f"{own.url}/metrics", headers=header, timeout=30).status_code == 200


@pytest.mark.parametrize(("proxies", "status"), [("[]", 200), ("[127.0.0.1]", 401)])
def test_who_calls_behind_a_balancer(own: HubProcess, proxies: str, status: int) -> None:
    configure(own, f"trusted_proxies: {proxies}\nlogging: {{format: json}}\n")
    own.start()
    told = {"X-Forwarded-For": "127.0.0.1, 198.51.100.7"}
    # From elsewhere nobody reads figures: an address that the caller names himself is none.
    assert own.session().get(f"{own.url}/metrics", headers=told, timeout=30).status_code == status
    own.session("127.0.0.2").get(f"{own.url}/nothing/here", headers=told, timeout=30)
    own.session().get(f"{own.url}/nothing/there", headers=told, timeout=30)
    lines = until(lambda: "/nothing/there" in log(own) and log(own).splitlines(), seconds=60)
    peers = {item["path"]: item["peer"] for item in map(json.loads, lines) if "path" in item}
    assert peers["/nothing/here"] == "127.0.0.2"
    assert peers["/nothing/there"] == ("127.0.0.1" if status == 200 else "198.51.100.7")


def test_ready_and_alive(hub: HubProcess) -> None:
    assert hub.session().get(f"{hub.url}/readyz", timeout=30).json() == {"status": "ready"}
    assert hub.session().get(f"{hub.url}/healthz", timeout=30).json() == {"status": "ok"}
    assert hub.session().post(f"{hub.url}/readyz", timeout=30).status_code == 405


def test_logs_have_the_request_and_no_secret(own: HubProcess) -> None:
    configure(own, "logging: {format: json}\n")
    own.start()
    principal = own.principal("logged", "Owner")
    token = own.token(principal)
    answer = arm(own, token)
    machine = Machine(own, "logged").connect(token)
    forged = '/subscriptions/x\n{"level":"ERROR"}'
    arm(own, token, forged.replace("\n", "%0a"))
    own.session().get(f"{own.url}/nothing?code={token}", timeout=30)
    lines = [
        json.loads(line) for line in until(lambda: log(own).count("access") > 3 and log(own).splitlines(), seconds=60)
    ]
    mine = [line for line in lines if line.get("request") == answer.headers["x-ms-request-id"]]
    assert mine[0]["status"] == 200
    assert mine[0]["path"] == "/subscriptions"
    assert mine[0]["caller"] == f"principal:{principal['name']}" or principal["clientId"] in mine[0]["caller"]
    assert not [line for line in lines if line.get("level") == "ERROR"]
    text = log(own)
    for secret in (principal["clientSecret"], token, token.split(".")[2], machine.channel_token.split(".")[2]):
        assert secret not in text


def test_a_caller_that_asks_too_much_is_told_when_to_come_back(own: HubProcess) -> None:
    configure(own, "limits: {requests_per_minute: 60}\n")
    own.start()
    greedy, modest = (own.token(own.principal(name, "Reader")) for name in ("greedy", "modest"))
    answers = [arm(own, greedy) for _ in range(70)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 5
    assert refused[0].json()["error"]["code"] == "TooManyRequests"
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 61
    assert arm(own, modest).status_code == 200, "one caller's limit is not another's"


def test_tokens_are_limited_for_each_client(own: HubProcess) -> None:
    configure(own, "limits: {tokens_per_minute: 10}\n")
    own.start()
    principal = own.principal("hammer", "Reader")
    fields = {
        "grant_type": "client_credentials",
        "client_id": principal["clientId"],
        "client_secret": "wrong",
        "scope": f"{own.url}/.default",
    }
    url = f"{own.url}/{own.tenant_id}/oauth2/v2.0/token"
    answers = [own.session().post(url, data=fields, timeout=30) for _ in range(15)]
    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert answers[-1].json()["error"]
    # Whoever knows no more than the client id keeps out himself alone.
    right = {**fields, "client_secret": principal["clientSecret"]}
    elsewhere = own.session("127.0.0.2")
    statuses = [elsewhere.post(url, data=right, timeout=30).status_code for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2


def test_pages_are_counted_for_their_user(own: HubProcess) -> None:
    configure(own, "limits: {requests_per_minute: 60}\n")
    own.start()
    web_fleet.make_user(own)
    browser = own.session()
    assert _sign_in(own, browser, web_fleet.USER, web_fleet.PASSWORD).status_code == 303
    answers = [browser.get(f"{own.url}/fleet/events", timeout=30) for _ in range(70)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 200
    assert len(refused) >= 5
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert "More than 60 requests" in refused[0].text


def _sign_in(hub: HubProcess, browser: requests.Session, name: str, password: str) -> requests.Response:
    page = browser.get(f"{hub.url}/signin", timeout=60).text
    fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page))
    answer = {**fields, "name": name, "password": password}
    return browser.post(f"{hub.url}/signin", data=answer, timeout=60, allow_redirects=False)


def test_a_crowd_at_the_door_keeps_nobody_else_waiting(hub: HubProcess) -> None:
    principal = hub.principal("beside-the-crowd", "Reader")
    stop, statuses = threading.Event(), Counter[int]()

    def come(number: int) -> None:
        browser = hub.session(f"127.0.1.{number}")
        while not stop.is_set():
            answer = _sign_in(hub, browser, f"nobody{uuid4().hex}", "not the password")
            assert answer.status_code != 503 or answer.headers["Retry-After"]
            statuses[answer.status_code] += 1

    crowd = [threading.Thread(target=come, args=(number,)) for number in range(1, 31)]
    for thread in crowd:
        thread.start()
    try:
        until(lambda: statuses[503], seconds=60)
        for _ in range(3):
            before = statuses[401]
            assert hub.session().get(f"{hub.url}/healthz", timeout=30).status_code == 200
            assert hub.token(principal)
            # Nobody stood in the crowd's line: hardly any of its passwords have been looked at meanwhile.
            assert statuses[401] - before < len(crowd) // 2
    finally:
        stop.set()
        for thread in crowd:
            thread.join(60)
    assert statuses.keys() <= {401, 429, 503}, statuses


def _connect(hub: HubProcess) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=hub.ca_file)
    host, port = hub.listen.split(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), 30), server_hostname=host)


def test_a_head_that_drips_is_cut_off_while_others_are_served(hub: HubProcess) -> None:
    slow = _connect(hub)
    slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
    silent = _connect(hub)
    began = time.monotonic()
    while time.monotonic() - began < connections.HEAD_SECONDS + 15:
        assert hub.session().get(f"{hub.url}/healthz", timeout=30).ok
        slow.settimeout(1)
        try:
            answer = slow.recv(4096)
        except TimeoutError:
            slow.sendall(b"x: y\r\n")
            continue
        break
    assert answer.startswith(b"HTTP/1.1 408 ")
    silent.settimeout(30)
    assert silent.recv(1) == b"", "a connection that asks nothing is closed"


@pytest.mark.timeout(240)
def test_who_takes_nothing_of_an_answer_is_cut_off_while_others_wait(hub: HubProcess) -> None:
    assert hub.process is not None
    machine = Machine(hub, "waiting").connect(hub.token(hub.principal("waiting", "Owner")))
    held: list[int] = []
    waiting = threading.Thread(target=lambda: held.append(machine.checkin(hold=75).status_code))
    waiting.start()
    host, port = hub.listen.split(":")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little of it waits on this side
    plain.connect((host, int(port)))
    context = ssl.create_default_context(cafile=hub.ca_file)
    with context.wrap_socket(plain, server_hostname=host) as stream:
        # More than the kernel takes, so that it waits in the hub's memory too.
        stream.sendall(b"GET /hawser/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        here = stream.getsockname()[1]
        process = psutil.Process(hub.process.pid)

        def there() -> bool:
            return any(getattr(item.raddr, "port", None) == here for item in process.net_connections("tcp"))

        time.sleep(connections.UNTAKEN_SECONDS / 2)
        assert there(), "one who pauses is not cut off"
        until(lambda: not there(), seconds=60)
    waiting.join(60)
    assert held == [200]


@pytest.mark.parametrize(
    ("size", "status"), [(connections.MAX_HEAD - 200, b"200"), (connections.MAX_HEAD + 200, b"431")]
)
def test_a_head_has_its_size_however_it_comes(hub: HubProcess, size: int, status: bytes) -> None:
    for slow in (False, True):
        with _connect(hub) as stream:
            head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "
            stream.sendall(head + b"a" * (size - len(head) - 4))
            if slow:
                time.sleep(0.5)
            stream.sendall(b"\r\n\r\n")
            assert stream.recv(64).split()[1] == status


def test_connections_are_bounded_and_held_ones_stay(own: HubProcess) -> None:
    configure(own, "limits: {connections: 64}\n")
    own.start()
    token = own.token(own.principal("bounded", "Owner"))
    machine = Machine(own, "bounded").connect(token)
    answers: list[int] = []
    holder = threading.Thread(target=lambda: answers.append(machine.checkin(hold=20).status_code))
    holder.start()
    time.sleep(1)
    idle, refused = [], 0
    for _ in range(100):
        try:
            stream = _connect(own)
            stream.settimeout(0.2)
            try:
                if stream.recv(1) == b"":
                    refused += 1
                    continue
            except TimeoutError:
                pass
            idle.append(stream)
        except OSError:
            refused += 1
    assert refused >= 30
    assert len(idle) <= 64
    for stream in idle:
        stream.close()
    until(lambda: own.session().get(f"{own.url}/healthz", timeout=30).ok, seconds=60)
    holder.join(60)
    assert answers == [200]


def test_machines_go_on_while_arm_is_saturated(hub: HubProcess) -> None:
    """Check-ins do not wait behind people and programs that ask for long lists."""
    token = hub.token(hub.principal("saturating", "Owner"))
    machine = Machine(hub, "unhurried").connect(token)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            arm(hub, token, f"/subscriptions/{hub.subscription_id}/resources")

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    try:
        assert [machine.checkin(hold=0).status_code for _ in range(20)] == [200] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def _pair(key: pki.PrivateKey, days: int) -> dict[str, bytes]:
    """Files of a certificate that no CA of the hub issued, and that ends in so many days."""
    certificate = self_signed.certificate(key, "127.0.0.1", days, age=90)
    return {"tls.key": pki.key_pem(key), "tls.crt": pki.certificate_pem(certificate)}


def _files(hub: HubProcess) -> dict[str, bytes]:
    return {name: (hub.data / "keys" / name).read_bytes() for name in ("tls.key", "tls.crt")}


def _served(hub: HubProcess) -> bytes:
    """The certificate that a new connection is shown, PEM, whoever issued it."""
    host, port = hub.listen.split(":")
    return ssl.get_server_certificate((host, int(port))).encode()


@pytest.mark.parametrize(
    ("key", "days"),
    [
        (rsa.generate_private_key(65537, 2048), 365),
        (ec.generate_private_key(ec.SECP256R1()), 30),
        (ec.generate_private_key(ec.SECP256R1()), -1),
    ],
    ids=["RSA", "EC with 30 days left", "expired"],
)
def test_a_certificate_of_ones_own_is_served_and_never_overwritten(
    own: HubProcess, key: pki.PrivateKey, days: int
) -> None:
    own.start()
    keys, pair, former = own.data / "keys", _pair(key, days), _files(own)
    shown = _served(own)
    assert former["tls.crt"].startswith(shown)
    # Copied in two steps. As long as key and certificate do not fit, the former pair stays in force.
    (keys / "tls.key").write_bytes(pair["tls.key"])
    reload(own)
    until(lambda: "The TLS certificate" in log(own) and "cannot be used" in log(own), seconds=60)
    assert _files(own) == {**former, "tls.key": pair["tls.key"]}
    assert _served(own) == shown
    held = _connect(own)
    (keys / "tls.crt").write_bytes(pair["tls.crt"])
    reload(own)
    until(lambda: _served(own) == pair["tls.crt"], seconds=60)
    held.sendall(f"GET /healthz HTTP/1.1\r\nHost: {own.listen}\r\n\r\n".encode())
    assert held.recv(64).startswith(b"HTTP/1.1 200"), "an open connection stays"
    reload(own)
    own.stop()
    own.start()
    assert _served(own) == pair["tls.crt"]
    assert _files(own) == pair
    assert ("has expired" in log(own)) == (days < 0)


def test_a_pair_that_does_not_fit_stops_the_start_and_stays(own: HubProcess) -> None:
    own.start()
    own.stop()
    pair = {**_files(own), "tls.key": _pair(ec.generate_private_key(ec.SECP256R1()), 365)["tls.key"]}
    (own.data / "keys/tls.key").write_bytes(pair["tls.key"])
    refused = own.run("serve", "--listen", own.listen, check=False)
    assert refused.returncode == 1
    assert "cannot be used" in refused.stderr
    assert "Put a certificate and its key there" in refused.stderr
    assert _files(own) == pair


def test_settings_that_are_wrong_are_refused_while_it_runs(own: HubProcess) -> None:
    own.start()
    configure(own, "limits: {requests_per_minute: none of your business}\n")
    reload(own)
    until(lambda: "config.yaml" in log(own), seconds=60)
    assert own.session().get(f"{own.url}/healthz", timeout=30).ok
    own.stop()
    refused = own.run("serve", "--listen", own.listen, check=False)
    assert refused.returncode == 1
    assert "requests_per_minute" in refused.stderr
    configure(own, "")

# SPDX-License-Identifier: Apache-2.0
"""Hawser.HealthProbe: its verdict as a function, and the real package against real applications."""

from __future__ import annotations

import errno
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.handlers.conftest import ROOT, Instance, nothing_runs, processes_of
from tests.waiting import until

sys.path.insert(0, str(ROOT / "handlers" / "HealthProbe"))
try:
    import health  # type: ignore[import-not-found]
    import heart  # type: ignore[import-not-found]
finally:
    sys.path.pop(0)

QUICK = {"intervalInSeconds": 1, "timeoutInSeconds": 1}


@dataclass
class Application:
    """Answers with `status`, or, when that is 0, not in time."""

    port: int = 0
    status: int = 200


@pytest.fixture
def application() -> Iterator[Application]:
    made = Application()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if made.status == 0:
                time.sleep(2)
                return
            self.send_response(made.status if self.path == "/healthz?full=1" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Keep the test's output clean."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def becomes(probe: Instance, sequence: int, state: str, seconds: float = 15) -> None:
    """Wait for a verdict."""
    end = time.monotonic() + seconds
    while True:
        (part,) = probe.status(sequence)["substatus"]
        if part["formattedMessage"]["message"] == state:
            word = {"Initializing": "transitioning", "Healthy": "success", "Unhealthy": "error"}[state]
            assert part["status"] == word
            assert part["name"] == "AppHealthStatus"
            return
        assert time.monotonic() < end, probe.message(sequence)
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answers", "grace", "count", "states"),
    [
        ("1", 0, 1, "H"),
        ("0", 0, 1, "U"),
        ("111", 0, 3, "IIH"),
        ("110111", 0, 3, "IIIIIH"),
        ("000", 2, 1, "IIU"),
        ("0001", 3, 1, "IIIH"),
        ("10", 9, 1, "HU"),
        ("1001000", 9, 2, "IIIIIII"),
        ("11001011", 9, 2, "IHHUUUUH"),
        ("0000", 3, 2, "IIIU"),
    ],
)
def test_verdicts(answers: str, grace: int, count: int, states: str) -> None:
    known, found = health.Health(), ""
    for index, answer in enumerate(answers):
        known = health.judge(known, answer == "1", index < grace, count)
        found += known.state[0]
    # A failure in the time of grace says nothing, unless the application was healthy before.
    assert found == states


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 20), st.integers(1, 5))
def test_a_verdict_has_the_last_probes_behind_it(answers: list[bool], grace: int, count: int) -> None:
    known = health.Health()
    for index, good in enumerate(answers):
        former, known = known.state, health.judge(known, good, index < grace, count)
        if known.state != former:
            assert answers[index + 1 - count : index + 1] == [good] * count
            assert known.state == (health.HEALTHY if good else health.UNHEALTHY)
            assert good or index >= grace or former == health.HEALTHY
        assert known.state != health.INITIALIZING or former == health.INITIALIZING


def test_http(probe: Instance, application: Application) -> None:
    wish = {**QUICK, "protocol": "http", "port": application.port, "requestPath": "healthz?full=1"}
    assert probe.run("install") == (0, "")
    assert probe.enable(0, wish) == (0, "")
    becomes(probe, 0, "Healthy")
    assert probe.status(0)["status"] == "success"
    assert probe.message(0) == (
        f"The application is healthy: http://127.0.0.1:{application.port}/healthz?full=1 answers 200."
    )
    (beat,) = json.loads((probe.root / "heartbeat.log").read_text())
    assert beat["heartbeat"]["status"] == "ready"
    application.status = 503
    becomes(probe, 0, "Unhealthy")
    assert "answers 503" in probe.message(0)
    assert probe.status(0)["status"] == "success"
    application.status = 0
    application.status = 200
    becomes(probe, 0, "Healthy")
    written = (probe.root / "status" / "0.status").stat().st_mtime_ns
    time.sleep(2.5)
    assert (probe.root / "status" / "0.status").stat().st_mtime_ns == written
    assert probe.run("disable", 0) == (0, "")
    assert processes_of(probe.root) == []
    assert not (probe.root / "heartbeat.log").exists()


def test_no_answer_in_time(probe: Instance, application: Application) -> None:
    application.status = 0
    probe.enable(0, {**QUICK, "protocol": "http", "port": application.port, "gracePeriod": 0})
    becomes(probe, 0, "Unhealthy")
    assert "no answer in time" in probe.message(0)


def test_tcp_and_the_time_of_grace(probe: Instance) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        probe.enable(0, {**QUICK, "protocol": "tcp", "port": str(port), "gracePeriod": 600})
        time.sleep(2.5)
        becomes(probe, 0, "Initializing")
        assert probe.status(0)["status"] == "transitioning"
        listener.listen()
        becomes(probe, 0, "Healthy")
    becomes(probe, 0, "Unhealthy")
    assert "Connection refused" in probe.message(0)


def test_a_command_and_its_children_end_in_time(probe: Instance, tmp_path: Path) -> None:
    probe.enable(0, {**QUICK, "protocol": "command", "command": f"test -e {tmp_path}/up", "gracePeriod": 0})
    becomes(probe, 0, "Unhealthy")
    assert "the command ended with 1" in probe.message(0)
    (tmp_path / "up").touch()
    becomes(probe, 0, "Healthy")
    probe.enable(1, {**QUICK, "protocol": "command", "command": "sleep 60 & sleep 60", "gracePeriod": 0})
    becomes(probe, 1, "Unhealthy")
    assert "longer than 1 s" in probe.message(1)
    probe.run("disable", 1)
    nothing_runs(probe.root)


def test_one_process_whatever_happens(probe: Instance, application: Application) -> None:
    wish = {**QUICK, "protocol": "tcp", "port": application.port}
    for sequence in (0, 0, 1, 1):
        assert probe.enable(sequence, wish) == (0, "")
        assert len(processes_of(probe.root)) == 1
    becomes(probe, 1, "Healthy")
    (pid,) = processes_of(probe.root)
    assert probe.run("enable", 1) == (0, "")
    assert processes_of(probe.root) == [pid]
    os.kill(pid, signal.SIGKILL)
    # As at a boot: the same number, and nobody probes.
    assert probe.run("enable", 1) == (0, "")
    becomes(probe, 1, "Healthy")
    assert processes_of(probe.root) not in ([pid], [])


def test_a_disk_that_refuses_does_not_end_the_probe(probe: Instance, application: Application) -> None:
    wish = {**QUICK, "protocol": "http", "port": application.port, "requestPath": "/healthz?full=1"}
    assert probe.enable(0, wish) == (0, "")
    becomes(probe, 0, "Healthy")
    (pid,) = processes_of(probe.root)
    (probe.root / "status").rename(probe.root / "kept")
    (probe.root / "status").touch()
    application.status = 500
    end = time.monotonic() + 15
    while "going on" not in (log := (probe.logs / "handler.log").read_text()):
        assert time.monotonic() < end, log
        time.sleep(0.05)
    (probe.root / "status").unlink()
    (probe.root / "kept").rename(probe.root / "status")
    becomes(probe, 0, "Unhealthy")
    assert processes_of(probe.root) == [pid]


def test_the_heart_beats_beside_a_long_probe_and_not_beside_one_that_hangs() -> None:
    beats: list[str] = []
    beating = heart.Heart(beats.append, pytest.fail, "Initializing", 1.0, pause=0.05)
    with beating.beating():
        time.sleep(0.5)
        assert len(beats) >= 4
        beating.lives("Healthy")
        assert beats[-1] == "Healthy", "a new verdict is said at once"
        beating.ails()
        count = len(beats)
        time.sleep(0.3)
        assert len(beats) == count, "who cannot report is not believed"
        beating.lives("Healthy")
        time.sleep(2)
        count = len(beats)
        assert count >= 10
        time.sleep(0.3)
        assert len(beats) == count, "nor who has hung for longer than a turn may take"
        beating.lives("Healthy")
    count = len(beats)
    time.sleep(0.2)
    assert len(beats) == count


def test_the_heart_goes_on_over_a_disk_that_refuses() -> None:
    told: list[str] = []

    def write(_: str) -> None:
        if len(told) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        told.append("written")

    with heart.Heart(write, lambda error: told.append(error.strerror), "Healthy", 60.0, pause=0.02).beating():
        until(lambda: "written" in told)
    assert told[:4] == ["No space left on device"] * 3 + ["written"]


def test_a_number_that_another_process_has_by_now(probe: Instance) -> None:
    (probe.root / "watch.lock").write_text(str(os.getpid()))
    assert probe.run("disable") == (0, "")
    assert probe.run("uninstall") == (0, "")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (None, "protocol is None"),
        ({"protocol": "udp"}, "protocol is 'udp'. Give one of http, https, tcp, command."),
        ({"protocol": "tcp"}, "port is missing"),
        ({"protocol": "tcp", "port": 70000}, "port is 70000"),
        ({"protocol": "command"}, "command is missing"),
        ({"protocol": "command", "command": "true", "port": 1}, "port means nothing with the protocol command"),
        ({"protocol": "http", "command": "true"}, "command means nothing"),
        ({"protocol": "http", "requestPath": "/a b"}, "without blanks"),
        ({"protocol": "http", "host": 7}, "host is 7"),
        ({"protocol": "http", "intervalInSeconds": 2, "timeoutInSeconds": 3}, "longer than intervalInSeconds"),
        ({"protocol": "http", "numberOfProbes": 0}, "numberOfProbes is 0"),
        ({"protocol": "http", "path": "/"}, "Unknown settings: path"),
    ],
)
def test_wrong_settings_are_one_sentence(probe: Instance, settings: Any, words: str) -> None:
    code, said = probe.enable(0, settings)
    assert code == 53
    assert words in said
    assert probe.status(0)["code"] == 53
    assert words in probe.message(0)
    assert processes_of(probe.root) == []

# SPDX-License-Identifier: Apache-2.0
"""Webhooks and e-mail of a real hub to real receivers, which are down, slow, refuse, and are told twice at worst."""

from __future__ import annotations

import email
import email.policy
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from control_plane.hub import open_database
from control_plane.storage.fleet_models import Listening, MachineState, Outbox
from control_plane.storage.models import Heartbeat
from tests.integration import hub_process
from tests.integration.fleet_rows import fill
from tests.integration.hub_process import HubProcess
from tests.integration.receivers import SECRET, Mailbox, Receiver, certificate
from tests.waiting import until

STORM = 500


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("receiver"))


@pytest.fixture
def receiver(pem: Path) -> Iterator[Receiver]:
    made = Receiver(pem).start()
    yield made
    made.stop()


@pytest.fixture
def mailbox(pem: Path) -> Iterator[Mailbox]:
    made = Mailbox(pem)
    yield made
    made.stop()


def private(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def webhook(folder: Path, receiver: Receiver, **changes: Any) -> dict[str, Any]:
    return {
        "name": "hook",
        "webhook": {
            "url": f"https://127.0.0.1:{receiver.port}/in",
            "secret_file": private(folder / "hook.secret", SECRET + b"\n"),
            "ca_file": str(receiver.pem),
            "timeout": 2,
            **changes,
        },
    }


def make(folder: Path, *targets: dict[str, Any]) -> HubProcess:
    """A hub with these targets, not started."""
    made = hub_process.make(folder / "data", "--location", "local")
    hub_process.configure(made.data, {"notifications": {"targets": list(targets)}})
    return made


def lose(hub: HubProcess, count: int) -> None:
    """Machines of a stopped hub that were announced as connected and have been silent since, while the hub listened."""
    at = int(time.time())
    database = open_database(hub.data)
    with database.write() as session:
        rows = fill(session, count, at, hub.subscription_id)
        for row in rows:
            word = "Connected" if "seen" in row else "AwaitingConnection"
            session.add(MachineState(machine_id=row["id"], status=word, since=at - 9000, conflicts=0))
        session.execute(update(Heartbeat).values(seen=at - 5000, connected_since=at - 9000))
        session.add(Listening(id=1, since=at - 90_000, alive=at, deaf_from=0))
    database.close()


def told(hub: HubProcess) -> int:
    """How many transitions were announced."""
    return len(hub.json("events", "--kind", "machine.status", "--limit", "1000"))


def queued(hub: HubProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hub.json("notify", "list")
    return found


def test_a_storm_is_one_mail_and_few_requests(tmp_path: Path, receiver: Receiver, mailbox: Mailbox) -> None:
    mail = {
        "name": "people",
        "email": {
            "server": "127.0.0.1",
            "port": mailbox.port,
            "ca_file": str(receiver.pem),
            "username": "hub",
            "password_file": private(tmp_path / "mail.secret", b"password"),
            "from": "hub@example.org",
            "to": ["ops@example.org", "night@example.org"],
            "digest_seconds": 3,
        },
    }
    hub = make(tmp_path, webhook(tmp_path, receiver), mail)
    lose(hub, STORM)
    hub.start()
    until(lambda: mailbox.mails and len(receiver.events) >= 400, seconds=180)
    until(lambda: all(item["queued"] == 0 for item in queued(hub)), seconds=180)
    lost = told(hub)
    assert hub.stop() == 0
    assert lost > 400
    assert len(receiver.events) == len({event["id"] for event in receiver.events}) == lost
    assert all(body["signed"] and body["size"] <= 256 * 1024 for body in receiver.bodies)
    assert {event["transition"] for event in receiver.events} == {"Disconnected"}
    assert len(receiver.bodies) < 10
    assert len(mailbox.mails) == 1
    assert mailbox.encrypted == [True]
    parsed = email.message_from_string(mailbox.mails[0], policy=email.policy.default)
    assert parsed["Subject"].startswith(f"[hawser] {lost} machines Disconnected")
    assert parsed["To"] == "ops@example.org, night@example.org"
    text = parsed.get_content()
    assert f"... and {lost - 200} more" in text
    for words in (b"password", SECRET):
        assert words not in (hub.data / "serve.log").read_bytes()


@pytest.mark.parametrize("trouble", ["down", "500", "slow", "redirect"])
def test_what_does_not_arrive_is_sent_again(tmp_path: Path, receiver: Receiver, trouble: str) -> None:
    target = webhook(tmp_path, receiver)
    if trouble == "down":
        receiver.stop()
    receiver.status = {"500": 500, "redirect": 307}.get(trouble, 200)
    receiver.location = f"https://127.0.0.1:{receiver.port}/elsewhere" if trouble == "redirect" else None
    receiver.delay = 30 if trouble == "slow" else 0
    hub = make(tmp_path, target)
    lose(hub, 3)
    hub.start()
    until(lambda: queued(hub)[0]["failures"] >= 1, seconds=180)
    before = queued(hub)[0]["queued"]
    assert before > 0
    assert receiver.bodies == []
    assert "/elsewhere" not in receiver.paths
    receiver.status, receiver.delay, receiver.location = 200, 0, None
    if trouble == "down":
        receiver.start()
    until(lambda: queued(hub)[0]["queued"] == 0, seconds=180)
    assert hub.stop() == 0
    assert len({event["id"] for event in receiver.events}) == before


def test_a_receiver_that_is_gone_is_left_alone(tmp_path: Path, receiver: Receiver) -> None:
    receiver.status = 410
    hub = make(tmp_path, webhook(tmp_path, receiver))
    lose(hub, 3)
    hub.start()
    until(lambda: receiver.requests == 1, seconds=180)
    until(lambda: queued(hub)[0]["dropped"] > 0, seconds=180)
    state = queued(hub)[0]
    assert state["queued"] == 0
    assert state["nextAttempt"] is not None
    assert hub.stop() == 0
    assert receiver.requests == 1


def test_a_kill_between_delivery_and_note_repeats_and_loses_nothing(tmp_path: Path, receiver: Receiver) -> None:
    """The receiver holds its answer back; the hub is killed while it has the request."""
    hub = make(tmp_path, webhook(tmp_path, receiver, timeout=15))
    lose(hub, 3)
    receiver.delay = 5
    hub.start()
    until(lambda: receiver.requests == 1, seconds=180)
    hub.stop(signal.SIGKILL)
    receiver.delay = 0
    until(lambda: len(receiver.bodies) == 1, seconds=180)
    hub.start()
    until(lambda: len(receiver.bodies) == 2, seconds=180)
    until(lambda: queued(hub)[0]["queued"] == 0, seconds=180)
    assert hub.stop() == 0
    first, second = ({event["id"] for event in body["events"]} for body in receiver.bodies)
    assert first
    assert first <= second


def test_the_queue_is_bounded_and_says_what_it_gave_up(tmp_path: Path, receiver: Receiver) -> None:
    hub = make(tmp_path, webhook(tmp_path, receiver))
    database = open_database(hub.data)
    with database.write() as session:
        session.add_all(
            Outbox(target="hook", created=int(time.time()), event={"id": number, "transition": "Expired"})
            for number in range(1, 10_101)
        )
        session.add(Outbox(target="former", created=1, event={}))
    database.close()
    hub.start()
    until(lambda: len(receiver.events) == 10_000, seconds=180)
    assert receiver.events[0]["id"] == 101
    assert receiver.bodies[0]["dropped"] == 100
    assert [item["name"] for item in queued(hub)] == ["hook"]
    assert hub.stop() == 0


def test_the_command_tests_a_target(tmp_path: Path, receiver: Receiver, mailbox: Mailbox) -> None:
    people = {
        "server": "127.0.0.1",
        "port": mailbox.port,
        "ca_file": str(receiver.pem),
        "username": "hub",
        "password_file": private(tmp_path / "mail.secret", b"wrong"),
        "from": "hub@example.org",
        "to": ["ops@example.org"],
    }
    stranger = webhook(tmp_path, receiver)
    del stranger["webhook"]["ca_file"]
    hub = make(tmp_path, webhook(tmp_path, receiver), {"name": "people", "email": people}, {**stranger, "name": "tls"})
    assert "took a test request" in hub.run("notify", "test", "hook").stdout
    assert receiver.bodies[0]["test"] is True
    assert receiver.bodies[0]["signed"] is True
    for name, words in (
        ("people", "did not take it (SMTPAuthenticationError: (535"),
        ("tls", "could not be reached"),
        ("nobody", "There is no"),
    ):
        failed = hub.run("notify", "test", name, check=False)
        assert failed.returncode == 1
        assert words in failed.stderr
        assert "Traceback" not in failed.stderr
    private(tmp_path / "mail.secret", b"password")
    hub.run("notify", "test", "people")
    assert "This is a test" in mailbox.mails[0]
    (tmp_path / "hook.secret").chmod(0o644)
    open_to_all = hub.run("notify", "test", "hook", check=False)
    assert "Set its mode to 0600" in open_to_all.stderr
    assert json.dumps([]) not in open_to_all.stdout


@pytest.mark.parametrize(
    "target",
    [
        {"name": "x"},
        {"name": "x", "webhook": {"url": "http://hub/", "secret_file": "/x"}},
        {"name": "x", "webhook": {"url": "https://hub/"}},
        {"name": "x", "webhook": {"url": "https://hub/", "secret_file": "/x"}, "transitions": ["Rebooted"]},
        {"name": "x", "email": {"server": "m", "from": "a@b", "to": ["a@b\nBcc: c@d"]}},
        {"name": "x", "email": {"server": "m", "from": "a@b", "to": ["a@b"], "tls": "none"}},
        {"name": "x", "email": {"server": "m", "from": "a@b", "to": ["a@b"], "username": "u"}},
    ],
)
def test_targets_that_cannot_be_stop_the_start(tmp_path: Path, target: dict[str, Any]) -> None:
    hub = make(tmp_path, target)
    failed = hub.run("serve", "--listen", hub.listen, check=False)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert len(failed.stderr.splitlines()) == 2

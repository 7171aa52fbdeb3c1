# SPDX-License-Identifier: Apache-2.0
"""A herd that asks all at once is told to come one after another, and nobody loses anything by it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import pytest
import requests

from control_plane.channel.join import digest
from tests.integration.hub_machine import Machine, vector
from tests.integration.hub_process import HubProcess
from tests.waiting import until

HERE = vector(machine_id="m", dmi_uuid="u")


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    """One of its own: its pace is slowed down here."""
    return make_hub("--location", "local")


def joining(hub: HubProcess, session: requests.Session, token: str) -> requests.Response:
    body = {
        "protocol": 1,
        "requestId": str(uuid4()),
        "token": token,
        "imageId": None,
        "hostname": "herd",
        "vmId": str(uuid4()),
        "evidence": HERE,
        "builderEvidenceDigest": None,
    }
    return session.post(f"{hub.url}/channel/v1/join", json=body, timeout=60)


@contextmanager
def flooding(hub: HubProcess, source: str) -> Iterator[Counter[int]]:
    """Joins with tokens that nobody made, as fast as they can be, from one address; their statuses."""
    stop, statuses = threading.Event(), Counter[int]()

    def flood() -> None:
        session = hub.session(source)
        while not stop.is_set():
            statuses[joining(hub, session, f"hwe_{uuid4().hex}").status_code] += 1

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def test_who_comes_too_fast_is_told_when_and_accused_of_nothing(hub: HubProcess) -> None:
    original = Machine(hub, "original", evidence=HERE).connect(hub.token(hub.principal("owner", "Owner")))
    session = hub.session()

    def join(_number: int) -> requests.Response:
        return joining(hub, session, "hwe_" + "x" * 40)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(join, range(300)))
        beats = [original.checkin().status_code for _ in range(5)]
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {401, 429}, statuses
    late = [answer for answer in answers if answer.status_code == 429]
    waits = [int(answer.headers["Retry-After"]) for answer in late]
    assert min(waits) >= 1
    assert max(waits) > min(waits), "the later somebody comes, the longer the turn of all before takes"
    assert {answer.json()["error"]["code"] for answer in late} == {"TooManyRequests"}
    assert all(set(answer.json()) == {"error"} for answer in late), "429 says nothing about identity"
    assert beats == [200] * 5
    # A parked machine that is sent away is what it was, and is heard in its turn.
    with flooding(hub, "127.0.0.1"):
        until(lambda: original.ask().status_code == 429, seconds=60)
    assert hub.json("twins") == []
    assert original.checkin().status_code == 200


def test_one_address_without_a_token_keeps_nobody_out_and_fills_nothing(hub: HubProcess) -> None:
    Machine(hub, "first", evidence=HERE).connect(hub.token(hub.principal("maker", "Owner")))
    hub.run("profiles", "set", "herd", "--subscription", hub.subscription_id, "--group", "fleet")
    good, spent = (hub.json("profiles", "token", "herd", "--uses", "5", "--days", "1")["token"] for _ in range(2))
    hub.execute("UPDATE enrolment_tokens SET expires = 1 WHERE digest = :digest", digest=digest(spent))
    with flooding(hub, "127.0.0.3") as statuses:
        until(lambda: statuses[429] > 100, seconds=60)
        for number in range(3):
            joined = joining(hub, hub.session(f"127.0.0.{number + 4}"), good)
            assert joined.status_code == 200, joined.text
        for _ in range(3):
            assert joining(hub, hub.session("127.0.0.8"), spent).status_code == 403
    assert statuses.keys() == {401, 429}
    found = hub.rows("SELECT target, code FROM audit WHERE action = 'machines/join'")
    assert [code for _, code in found] in (["EnrolmentTokenSpent"], ["EnrolmentTokenSpent"] * 2), "one a minute"
    assert {target.rpartition("/")[0] for target, _ in found} == {"/profiles/herd/tokens"}
    text = hub.session().get(f"{hub.url}/metrics", timeout=30).text
    assert 'hawser_refusals_total{action="machines/join",code="InvalidEnrolmentToken"}' in text


def test_questions_that_prove_nothing_are_not_audited(hub: HubProcess) -> None:
    asker = Machine(hub, "asker", evidence=HERE).connect(hub.token(hub.principal("asking", "Owner")))
    asker.http = hub.session("127.0.0.9")
    answer = asker.ask(assertion="e30.e30.e30")
    assert answer.status_code == 401, answer.text
    assert hub.rows("SELECT actor FROM audit WHERE action = 'twins/ask'") == []

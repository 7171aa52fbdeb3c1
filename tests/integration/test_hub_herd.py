# SPDX-License-Identifier: Apache-2.0
"""A herd that asks all at once is told to come one after another, and nobody loses anything by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import requests

from tests.integration import hub_process
from tests.integration.hub_machine import Machine, vector
from tests.integration.hub_process import HubProcess

HERE = vector(machine_id="m", dmi_uuid="u")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One of its own: its pace is slowed down here."""
    made = hub_process.make(tmp_path_factory.mktemp("hub") / "data", "--location", "local").start()
    yield made
    assert made.stop() == 0


def test_who_comes_too_fast_is_told_when_and_accused_of_nothing(hub: HubProcess) -> None:
    original = Machine(hub, "original", evidence=HERE).connect(hub.token(hub.principal("owner", "Owner")))
    session = hub.session()
    body = {
        "protocol": 1,
        "requestId": str(uuid4()),
        "token": "hwe_" + "x" * 40,
        "imageId": None,
        "hostname": "herd",
        "vmId": str(uuid4()),
        "evidence": HERE,
        "builderEvidenceDigest": None,
    }

    def join(_number: int) -> requests.Response:
        return session.post(f"{hub.url}/channel/v1/join", json=body, timeout=60)

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
    asked = original.ask()
    assert asked.status_code == 429
    assert hub.json("twins") == []
    assert original.checkin().status_code == 200

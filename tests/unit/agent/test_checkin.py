# SPDX-License-Identifier: Apache-2.0
"""What a check-in makes of an answer that arrives when the identity was parked meanwhile."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from agent_runtime.himds.identity import Known, half_way, lease_of
from agent_runtime.hub.client import HubRefusal
from agent_runtime.hub.transport import Broken
from tests.models import agent_life, power_loss


class AskedError(Exception):
    """The check-in is over, and the hub is asked about the identity."""


@pytest.fixture(autouse=True)
def texts_for_keys() -> Iterator[None]:
    with agent_life.at_speed():
        yield


@pytest.mark.parametrize("failing", [False, True])
def test_an_identity_parked_during_a_check_in_stays_as_it_is(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    life = power_loss._connected(str(tmp_path / "root"))
    himds = life.himds()
    known, hub, keeper = himds._known, himds.model, himds._keeper
    before = dict(known.identity)

    async def parked_meanwhile(*_: Any) -> Any:
        known.hold("park", "evidence", "another machine", differs=["dmi_uuid"])
        if failing:
            raise Broken("the connection is gone")
        answer = b'{"generations": {"policy": 9}, "epoch": 1, "slot": 1, "nonce": "newest", "renew": true}'

        async def content() -> bytes:
            return answer

        return SimpleNamespace(body=content, close=lambda: None), SimpleNamespace(status=200, headers={}), lambda: None

    async def ask(_hub: Any) -> None:
        raise AskedError

    async def unhurried(_seconds: float) -> None:
        """Nobody waits here."""

    monkeypatch.setattr(hub, "begin_checkin", parked_meanwhile)
    monkeypatch.setattr(keeper, "_ask", ask)
    monkeypatch.setattr(keeper, "_pause", unhurried)
    with pytest.raises(AskedError):
        himds.drive(keeper._keep(hub))
    error = known.store.record.error or {}
    assert (known.state, error["reason"], error["differs"]) == ("parked", "evidence", ["dmi_uuid"])
    assert known.identity == before
    assert known.lease["nonce"] == "newest" or failing


@pytest.mark.parametrize("event", ["park", "quarantine"])
def test_a_held_identity_does_not_expire(tmp_path: Any, event: str) -> None:
    """Who is told that it has expired disconnects, and deletes the original at the hub."""
    life = power_loss._connected(str(tmp_path / "root"))
    himds = life.himds()
    known, keeper = himds._known, himds._keeper
    known.identity["certificateExpires"] = agent_life.NOW - 1
    known.hold(event, "evidence", "another machine")
    held = known.store.record
    assert himds.drive(keeper._expired(himds.model)) is False
    assert known.store.record == held


def test_a_renewal_that_fails_is_not_tried_with_every_heartbeat(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    life = power_loss._connected(str(tmp_path / "root"))
    himds = life.himds()
    keeper = himds._keeper

    async def unwritable(*_: Any) -> Any:
        raise HubRefusal(503, "ServiceUnavailable", "The database cannot be written.")

    with monkeypatch.context() as broken:
        broken.setattr(himds.model, "call", unwritable)
        assert keeper._renewal_due(himds.model, wanted=True)
        with pytest.raises(HubRefusal):
            himds.renew()
    assert not keeper._renewal_due(himds.model, wanted=True)
    himds.renew()
    assert keeper._renewal_due(himds.model, wanted=True), "one that succeeded is no reason to wait"


def test_a_document_is_fetched_again_when_half_of_its_time_is_over(tmp_path: Any) -> None:
    """Nobody changes it for weeks, and the machine is there all the time: it must not expire."""
    life = power_loss._connected(str(tmp_path / "root"))
    himds = life.himds()
    known, keeper = himds._known, himds._keeper
    clock = [1e9]

    async def desired(_credential: Any, _kind: str) -> dict[str, Any]:
        claims = json.dumps({"iat": clock[0], "exp": clock[0] + 100, "content": {}}).encode()
        return {"document": f"h.{base64.urlsafe_b64encode(claims).decode()}.s", "generation": 4}

    hub: Any = SimpleNamespace(desired=desired, now=lambda: clock[0])

    def fetched() -> tuple[list[str], bool]:
        answer = {"generations": {"extensions": 4, "policy": 0}, "epoch": 1, "slot": 1, "nonce": "n"}
        before = dict(known.documents)
        news = himds.drive(keeper._take_over(hub, known.credential(), answer))
        return [kind for kind in known.documents if known.documents[kind] != before.get(kind)], news

    assert fetched() == (["extensions"], True)
    for seconds, found in ((1, []), (48, []), (1, ["extensions"]), (49, []), (300, ["extensions"])):
        clock[0] += seconds
        assert fetched() == (found, False), "a new document is no news"
    again = Known(known.paths, known.log)
    assert again.fetch_again["extensions"] == clock[0] + 50, "a restart knows when"


@pytest.mark.parametrize("claims", [{}, {"iat": 5}, {"iat": "5", "exp": 9}, {"exp": None, "iat": 5}])
def test_a_document_that_does_not_say_how_long_it_holds_is_not_fetched_again(claims: dict[str, Any]) -> None:
    assert half_way(claims) == float("inf")


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": "x"},
        {"epoch": None},
        {"nonce": 5},
        {"generations": "q"},
        {"generations": {"policy": "x"}},
        {"lastHeartbeatUnix": "x"},
        {"lastHeartbeatUnix": 1e300},
        {"lastHeartbeatUnix": float("nan")},
    ],
)
def test_a_lease_that_makes_no_sense_is_damaged(changes: dict[str, Any]) -> None:
    lease = {"v": 1, "epoch": 3, "slot": 1, "nonce": "n", "lastHeartbeatUnix": 5.0, "generations": {"policy": 2}}
    assert lease_of(lease) == lease
    with pytest.raises(ValueError, match=r"member|number|time"):
        lease_of({**lease, **changes})

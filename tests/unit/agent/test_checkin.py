# SPDX-License-Identifier: Apache-2.0
"""What a check-in makes of an answer that arrives when the identity was parked meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from agent_runtime.himds.identity import lease_of
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
